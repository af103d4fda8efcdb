//===- Blocks.cpp - cuts a model into blocks ------------------------------===//
//
// A model has layers, the graph does not say where. Between layers one value is
// alive, what is added to: there the model is cut. A block begins where
// attention is next, or the head.
//
//===----------------------------------------------------------------------===//
#include "Raiser.h"

#include "mlir/IR/IRMapping.h"

#include <fmt/format.h>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::raise;

namespace {
/// Neighbouring operations with one activation before and one after them.
struct Segment {
  std::vector<Operation *> operations;
  Value result;
  template <typename Op> bool has() const {
    return llvm::any_of(operations, [](Operation *op) { return isa<Op>(op); });
  }
};

/// What a block needs from outside.
struct Needs {
  Value input;
  SmallVector<Value> states, weights;
};

class Cutter {
public:
  Cutter(ModuleOp module, Block &flat, Value result,
         ArrayRef<std::string> parameters)
      : module(module), flat(flat), result(result), parameters(parameters),
        b(OpBuilder::atBlockEnd(module.getBody())) {}

  void run(int64_t contextLength, int64_t vocabulary) {
    struct Call {
      std::string callee;
      Needs needs;
      Type result;
      Location loc;
    };
    std::vector<Call> calls;
    for (const Segment &block : join(cut())) {
      Needs needs = needsOf(block);
      if (needs.states.size() > 1)
        throw Unraisable{"attention of two layers side by side"};
      calls.push_back({blockOf(block, needs), needs, block.result.getType(),
                       block.operations.front()->getLoc()});
    }
    Location loc = b.getUnknownLoc();
    Type idsType = flat.getArgument(0).getType(),
         rowsType = flat.getArgument(1).getType();
    b.setInsertionPointToEnd(module.getBody());
    auto program = fm::ProgramOp::create(
        b, loc, b.getStringAttr("main"),
        TypeAttr::get(b.getFunctionType({idsType, rowsType}, result.getType())),
        nullptr, nullptr);
    program->setAttr("fm.context_length", b.getI64IntegerAttr(contextLength));
    program->setAttr("fm.vocab_size", b.getI64IntegerAttr(vocabulary));
    Block &body = program.getBody().emplaceBlock();
    Value x = body.addArgument(idsType, loc),
          rows = body.addArgument(rowsType, loc);
    b.setInsertionPointToStart(&body);
    int64_t state = 0;
    for (const Call &call : calls) {
      SmallVector<Attribute> symbols;
      for (Value weight : call.needs.weights)
        symbols.push_back(FlatSymbolRefAttr::get(
            b.getContext(),
            parameters[cast<BlockArgument>(weight).getArgNumber() - 2]));
      x = fm::CallOp::create(
          b, call.loc, call.result, call.callee, ValueRange{x, rows},
          b.getArrayAttr(symbols),
          call.needs.states.empty() ? nullptr : b.getI64IntegerAttr(state++),
          nullptr);
    }
    fm::ReturnOp::create(b, loc, x);
  }

private:
  ModuleOp module;
  Block &flat;
  Value result;
  ArrayRef<std::string> parameters;
  OpBuilder b;
  std::map<std::string, std::string> blocks; ///< names by texts

  /// What is not needed for the result is left out.
  std::vector<Operation *> needed() {
    llvm::SmallPtrSet<Operation *, 32> seen;
    SmallVector<Value> left = {result};
    while (!left.empty())
      if (Operation *op = left.pop_back_val().getDefiningOp();
          op && seen.insert(op).second)
        llvm::append_range(left, op->getOperands());
    std::vector<Operation *> operations;
    for (Operation &op : flat)
      if (seen.contains(&op))
        operations.push_back(&op);
    return operations;
  }

  std::vector<Segment> cut() {
    const std::vector<Operation *> operations = needed();
    llvm::DenseMap<Value, size_t> lastUse;
    for (auto [i, op] : llvm::enumerate(operations))
      for (Value operand : op->getOperands())
        lastUse[operand] = i;
    lastUse[result] = operations.size();
    std::vector<Segment> segments(1);
    size_t alive = 0;
    std::vector<size_t> deaths(operations.size() + 1);
    size_t idsUntil = lastUse[flat.getArgument(0)];
    for (auto [i, op] : llvm::enumerate(operations)) {
      segments.back().operations.push_back(op);
      ++alive;
      ++deaths[lastUse[op->getResult(0)]];
      alive -= deaths[i];
      if (alive == 1 && idsUntil <= i && lastUse[op->getResult(0)] > i) {
        segments.back().result = op->getResult(0);
        segments.emplace_back();
      }
    }
    segments.pop_back(); // the result is the last cut
    return segments;
  }

  /// Segments that make one block.
  static std::vector<Segment> join(const std::vector<Segment> &segments) {
    std::vector<Segment> result;
    for (const Segment &segment : segments) {
      if (result.empty() || segment.has<fm::AttentionOp>() ||
          segment.has<fm::SelectRowsOp>()) {
        result.push_back(segment);
        continue;
      }
      llvm::append_range(result.back().operations, segment.operations);
      result.back().result = segment.result;
    }
    return result;
  }

  Needs needsOf(const Segment &block) {
    Needs needs;
    llvm::SmallPtrSet<Value, 16> seen;
    llvm::SmallPtrSet<Operation *, 16> own(block.operations.begin(),
                                           block.operations.end());
    for (Operation *op : block.operations)
      for (Value operand : op->getOperands()) {
        if (!seen.insert(operand).second || operand == flat.getArgument(1) ||
            (operand.getDefiningOp() && own.contains(operand.getDefiningOp())))
          continue;
        if (isa<fm::StateType>(operand.getType()))
          needs.states.push_back(operand);
        else if (isa<fm::WeightType>(operand.getType()))
          needs.weights.push_back(operand);
        else
          needs.input = operand;
      }
    return needs;
  }

  /// The name of the fm.block; one that is there already if it is equal.
  std::string blockOf(const Segment &block, const Needs &needs) {
    b.setInsertionPointToEnd(module.getBody());
    Location loc = block.operations.front()->getLoc();
    auto op = fm::BlockOp::create(b, loc, b.getStringAttr("block"),
                                  TypeAttr::get(b.getFunctionType({}, {})),
                                  nullptr, nullptr);
    Block &body = op.getBody().emplaceBlock();
    IRMapping mapping;
    auto add = [&](Value value) {
      mapping.map(value, body.addArgument(value.getType(), value.getLoc()));
    };
    add(needs.input);
    add(flat.getArgument(1));
    for (Value value : llvm::concat<const Value>(needs.states, needs.weights))
      add(value);
    b.setInsertionPointToStart(&body);
    for (Operation *operation : block.operations)
      b.clone(*operation, mapping);
    fm::ReturnOp::create(b, loc, mapping.lookup(block.result));
    op.setFunctionType(
        b.getFunctionType(body.getArgumentTypes(), {block.result.getType()}));
    std::string text;
    llvm::raw_string_ostream(text) << op;
    auto [found, fresh] = blocks.try_emplace(text);
    if (!fresh) {
      op.erase();
      return found->second;
    }
    const char *kind = block.has<fm::AttentionOp>()    ? "layer"
                       : block.has<fm::SelectRowsOp>() ? "head"
                                                       : "embed";
    std::string name = kind;
    for (int number = 1; module.lookupSymbol(name); ++number)
      name = fmt::format("{}_{}", kind, number);
    op.setSymName(name);
    return found->second = name;
  }
};
} // namespace

void isthmus::raise::cutIntoBlocks(ModuleOp module, Block &flat, Value result,
                                   ArrayRef<std::string> parameters,
                                   int64_t contextLength, int64_t vocabulary) {
  Cutter(module, flat, result, parameters).run(contextLength, vocabulary);
}
