//===- QuantizeWeights.cpp - fm-quantize-weights --------------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"
#include "isthmus/Weights/PackedLayout.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/MapVector.h"

#include <optional>

namespace isthmus::fm {
#define GEN_PASS_DEF_QUANTIZEWEIGHTS
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm

using namespace mlir;
using namespace isthmus;
using namespace isthmus::fm;

namespace {
struct QuantizeWeights
    : public isthmus::fm::impl::QuantizeWeightsBase<QuantizeWeights> {
  using Base::Base;

  void runOnOperation() override {
    auto chosen = symbolizeWeightFormat(format);
    const bool isFormat =
        chosen && *chosen != WeightFormat::F32 && !isBlocks(storedAs(*chosen));
    if (!isFormat && format != "file") {
      getOperation().emitError("fm-quantize-weights: format must be f16, bf16, "
                               "int8, int7, int4 or file, got '")
          << format << "'";
      return signalPassFailure();
    }
    if (scales != "group" && scales != "row") {
      getOperation().emitError("fm-quantize-weights: scales must be group or "
                               "row, got '")
          << scales << "'";
      return signalPassFailure();
    }
    if (isFormat)
      chooseFormats(*chosen);
    else if (failed(keepFormats()))
      return signalPassFailure();
    if (failed(retypeParams()))
      return signalPassFailure();
    for (BlockOp block : getOperation().getOps<BlockOp>())
      retypeBlock(block);
  }

private:
  /// The new type of each parameter that is quantised, and of each block
  /// argument bound to one.
  llvm::MapVector<StringAttr, WeightType> paramTypes;
  llvm::DenseMap<Value, WeightType> argumentTypes;

  /// Inputs of an integer format that share a scale. A whole row's sum of
  /// products must stay in int32.
  int64_t groupOf(WeightFormat format, int64_t inputs) const {
    constexpr int64_t kMostInputs = int64_t(1) << 17;
    if (scales == "row" && inputs <= kMostInputs &&
        inputs > int8GroupOf(inputs))
      return inputs;
    return format == WeightFormat::Int4 ? PackedLayout::kInt4Group
                                        : int8GroupOf(inputs);
  }

  static bool isMatrixOperand(OpOperand &use) {
    return isProductWeight(use) || isa<EmbeddingOp>(use.getOwner());
  }

  /// Calls `use(call, argument, param)` for each f32 matrix that a call binds
  /// to an argument of its block which multiplies with it, or looks rows up.
  void
  forEachMatrix(llvm::function_ref<void(CallOp, BlockArgument, ParamOp)> use) {
    SymbolTable symbols(getOperation());
    for (ProgramOp program : getOperation().getOps<ProgramOp>())
      for (CallOp call : program.getOps<CallOp>()) {
        auto block = symbols.lookup<BlockOp>(call.getCallee());
        const unsigned first =
            call.getInputs().size() + (call.getState() ? 1 : 0);
        for (auto [i, ref] : llvm::enumerate(
                 call.getParams().getAsRange<FlatSymbolRefAttr>())) {
          BlockArgument argument = block.getBody().getArgument(first + i);
          auto param = symbols.lookup<ParamOp>(ref.getValue());
          if (llvm::any_of(argument.getUses(), isMatrixOperand) &&
              param.getWeightType().getFormat() == WeightFormat::F32)
            use(call, argument, param);
        }
      }
  }

  void choose(BlockArgument argument, ParamOp param, WeightFormat format,
              int64_t group) {
    auto type = WeightType::get(&getContext(), param.getWeightType().getShape(),
                                format, group);
    paramTypes.insert({param.getSymNameAttr(), type});
    argumentTypes[argument] = type;
  }

  /// Decides a format for each parameter from what the blocks do with it. A
  /// parameter that several blocks share (a tied embedding) gets the most
  /// precise of the formats its uses ask for.
  void chooseFormats(WeightFormat chosen) {
    forEachMatrix([&](CallOp call, BlockArgument argument, ParamOp param) {
      WeightFormat wanted = chosen;
      const bool isLayer = call.getState().has_value();
      if (wanted == WeightFormat::Int4 && !isLayer)
        wanted = WeightFormat::Int8;
      // A width that no group (or pair) divides stays a float format.
      const bool grouped = isQuantized(wanted);
      const int64_t inputs = param.getWeightType().getShape()[1];
      int64_t group = grouped ? groupOf(wanted, inputs) : 0;
      int64_t together =
          wanted == WeightFormat::BF16 ? 2 : std::max<int64_t>(group, 1);
      if (inputs % together != 0 ||
          (grouped && inputs % PackedLayout::kInt4Group != 0)) {
        wanted = WeightFormat::F16;
        group = 0;
      }
      choose(argument, param, wanted, group);
    });
  }

  /// The format that keeps the values of a parameter as its file has them.
  static FailureOr<WeightFormat> keptFormat(ParamOp param) {
    Value rows = cast<YieldOp>(param.getBody().front().back()).getValue();
    auto turned = rows.getDefiningOp<TransposeOp>();
    const StringRef stored = storedDType(turned ? turned.getSource() : rows);
    const std::optional<WeightFormat> format = symbolizeWeightFormat(stored);
    const int64_t inputs = param.getWeightType().getShape()[1];
    // (Pairs of bf16 stand side by side.)
    if (format == WeightFormat::BF16 && inputs % 2 != 0)
      return WeightFormat::F32;
    if (format &&
        (!isQuantized(*format) || (isBlocks(storedAs(*format)) && !turned)))
      return *format;
    return param.emitError("'")
           << param.getSymName() << "' cannot be kept as its file has it: "
           << (stored.empty() ? "its values are computed"
                              : "no product takes '" + stored.str() + "'")
           << "; choose a format, int8 or int4 for example, instead of file";
  }

  /// Keeps each parameter as its file has it. Calls whose parameters differ
  /// have a block each.
  LogicalResult keepFormats() {
    llvm::MapVector<ParamOp, WeightFormat> formats;
    bool failed = false;
    forEachMatrix([&](CallOp, BlockArgument, ParamOp param) {
      if (formats.contains(param))
        return;
      FailureOr<WeightFormat> format = keptFormat(param);
      failed |= mlir::failed(format);
      formats[param] = mlir::failed(format) ? WeightFormat::F32 : *format;
    });
    if (failed)
      return failure();
    separateCalls(formats);
    forEachMatrix([&](CallOp, BlockArgument argument, ParamOp param) {
      const WeightFormat format = formats.lookup(param);
      if (format == WeightFormat::F32)
        return;
      const ArrayRef<int64_t> shape = param.getWeightType().getShape();
      const PackedLayout layout{storedAs(format), shape[0], shape[1]};
      choose(argument, param, format,
             isBlocks(layout.format) ? layout.group() : 0);
    });
    return success();
  }

  /// Clones blocks until all calls of one bind parameters of the same formats.
  void separateCalls(const llvm::MapVector<ParamOp, WeightFormat> &formats) {
    llvm::MapVector<CallOp, SmallVector<WeightFormat>> bound;
    forEachMatrix([&](CallOp call, BlockArgument, ParamOp param) {
      bound[call].push_back(formats.lookup(param));
    });
    SymbolTable symbols(getOperation());
    using Kind = std::pair<StringAttr, SmallVector<WeightFormat>>;
    SmallVector<std::pair<Kind, StringAttr>> blocks; // and what calls call
    for (auto &[call, own] : bound) {
      auto callee = call.getCalleeAttr().getAttr();
      const Kind kind{callee, own};
      auto *known = llvm::find_if(
          blocks, [&](const auto &entry) { return entry.first == kind; });
      if (known == blocks.end()) {
        const bool isFirst = llvm::none_of(blocks, [&](const auto &entry) {
          return entry.first.first == callee;
        });
        StringAttr name = callee;
        if (!isFirst) {
          auto block = symbols.lookup<BlockOp>(callee);
          auto clone = block.clone();
          name = symbols.insert(clone, std::next(Block::iterator(block)));
        }
        blocks.push_back({kind, name});
        known = std::prev(blocks.end());
      }
      call.setCalleeAttr(FlatSymbolRefAttr::get(known->second));
    }
  }

  LogicalResult retypeParams() {
    for (ParamOp param : getOperation().getOps<ParamOp>()) {
      auto it = paramTypes.find(param.getSymNameAttr());
      if (it == paramTypes.end())
        continue;
      auto yield = cast<YieldOp>(param.getBody().front().back());
      OpBuilder builder(yield);
      Value quantized = QuantizeOp::create(builder, param.getLoc(), it->second,
                                           yield.getValue());
      yield.getValueMutable().assign(quantized);
      param.setType(it->second);
      ++numQuantized;
    }
    return success();
  }

  void retypeBlock(BlockOp block) {
    SmallVector<Type> inputs(block.getArgumentTypes());
    for (auto [i, argument] : llvm::enumerate(block.getBody().getArguments())) {
      auto it = argumentTypes.find(argument);
      if (it == argumentTypes.end())
        continue;
      argument.setType(it->second);
      inputs[i] = it->second;
    }
    block.setFunctionType(
        FunctionType::get(&getContext(), inputs, block.getResultTypes()));

    // The rows that products take, by the format of the weight.
    llvm::DenseMap<std::pair<Value, Type>, Value> roundedRows;
    // x is the first operand of both kinds of product.
    for (Operation &op : block.getBody().front()) {
      WeightType weight;
      if (auto linear = dyn_cast<LinearOp>(op))
        weight = linear.getWeight().getType();
      else if (auto gated = dyn_cast<GatedLinearOp>(op))
        weight = gated.getGate().getType();
      Type rounded = weight ? roundedType(weight) : Type();
      if (!rounded || op.getOperand(0).getType() == rounded)
        continue;
      Value &rows = roundedRows[{op.getOperand(0), rounded}];
      if (!rows) {
        OpBuilder builder(&op);
        rows = op.getOperand(0);
        // What a gated unit gives waits in memory for the row's scale.
        if (rows.getDefiningOp<GluOp>() && hasOneScale(rounded))
          rows = QuantizeRowsOp::create(builder, op.getLoc(),
                                        bf16Rows(getFeatures(rows.getType())),
                                        rows);
        rows = QuantizeRowsOp::create(builder, op.getLoc(), rounded, rows);
      }
      op.setOperand(0, rows);
    }
  }

  /// What rows become before they are multiplied with `weight`, if anything.
  Type roundedType(WeightType weight) {
    int64_t inputs = weight.getShape()[1];
    if (weight.isQuantized())
      return QRowsType::get(&getContext(), inputs,
                            weight.getGroup() == inputs ? inputs
                                                        : int8GroupOf(inputs));
    if (weight.getFormat() == WeightFormat::BF16)
      return bf16Rows(inputs);
    return {};
  }

  Type bf16Rows(int64_t features) {
    return RankedTensorType::get({ShapedType::kDynamic, features},
                                 BFloat16Type::get(&getContext()));
  }
};
} // namespace
