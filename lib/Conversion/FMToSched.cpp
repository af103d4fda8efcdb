//===- FMToSched.cpp - convert-fm-to-sched --------------------------------===//
#include "isthmus/Codegen/Kernels.h"
#include "isthmus/Conversion/Passes.h"
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/Sched/IR/Sched.h"
#include "isthmus/Target/TargetDescription.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/ADT/SmallPtrSet.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/xxhash.h"

#include <cmath>
#include <fmt/format.h>

namespace isthmus {
#define GEN_PASS_DEF_CONVERTFMTOSCHED
#include "isthmus/Conversion/Passes.h.inc"
} // namespace isthmus

using namespace mlir;
using namespace isthmus;

namespace {

std::string describe(fm::WeightType type) {
  const PackedLayout layout = type.getPackedLayout();
  return llvm::formatv(
      "{0}{1}_{2}x{3}", fm::stringifyWeightFormat(type.getFormat()),
      layout.oneScale ? "rows" : "", layout.outputs, layout.inputs);
}

RowFormat rowFormatOf(Type activation) {
  if (isa<fm::QRowsType>(activation))
    return fm::hasOneScale(activation) ? RowFormat::Int8Row : RowFormat::Int8;
  if (int64_t parts = fm::getParts(activation))
    return parts == 1 ? RowFormat::BF16x1 : RowFormat::BF16x3;
  return cast<RankedTensorType>(activation).getElementType().isBF16()
             ? RowFormat::BF16
             : RowFormat::F32;
}

/// Ends the name of a kernel that writes rows of the format.
StringRef suffixOf(RowFormat rows) {
  switch (rows) {
  case RowFormat::F32:
    return "";
  case RowFormat::BF16:
    return "_b";
  case RowFormat::BF16x1:
    return "_bx1";
  case RowFormat::BF16x3:
    return "_bx3";
  case RowFormat::Int8:
    return "_q";
  case RowFormat::Int8Row:
    return "_qrow";
  }
  llvm_unreachable("unknown row format");
}

sched::Arithmetic arithmeticOf(RowFormat rows) {
  switch (rows) {
  case RowFormat::F32:
    return sched::Arithmetic::F32;
  case RowFormat::BF16:
    return sched::Arithmetic::BF16;
  case RowFormat::BF16x1:
    return sched::Arithmetic::BF16x1;
  case RowFormat::BF16x3:
    return sched::Arithmetic::BF16x6;
  case RowFormat::Int8:
  case RowFormat::Int8Row:
    return sched::Arithmetic::Int8;
  }
  llvm_unreachable("unknown row format");
}

/// Converts one block. Buffers, launches and barriers follow the order of the
/// block's operators.
class BlockConverter {
public:
  BlockConverter(fm::BlockOp block, ModuleOp schedule, ModuleOp kernels,
                 const TargetDescription &target, int64_t partitions)
      : block(block), schedule(schedule), kernels(kernels), target(target),
        partitions(partitions), builder(block.getContext()) {}

  LogicalResult convert() {
    builder.setInsertionPointToEnd(schedule.getBody());
    auto op =
        sched::TemplateOp::create(builder, block.getLoc(), block.getSymName());
    Block &body = op.getBody().emplaceBlock();
    builder.setInsertionPointToStart(&body);
    if (failed(mapArguments(body)))
      return failure();
    for (Operation &inner : block.getBody().front().without_terminator())
      if (failed(convertOp(inner)))
        return failure();
    if (kvPageBytes)
      op->setAttr("kv_page_bytes", builder.getI64IntegerAttr(kvPageBytes));
    return success();
  }

private:
  fm::BlockOp block;
  ModuleOp schedule, kernels;
  const TargetDescription &target;
  int64_t partitions; ///< of the longest sequence
  OpBuilder builder;
  llvm::DenseMap<Value, Value> mapping;
  /// Values written since the last barrier of large and of small steps. What a
  /// replicated launch writes is no news to any thread in a small step.
  llvm::SmallPtrSet<void *, 8> writtenLarge, writtenSmall;
  bool firstLaunch = true;
  int64_t kvPageBytes = 0;
  /// Bytes of a row that hold values, for a launch's cost: not what lies
  /// between rows, and none of buffers of which rows use some only.
  llvm::DenseMap<Value, int64_t> usedRowBytes;

  /// Has `value` stand in `buffer`.
  Value mapTo(Value value, Value buffer) {
    Type type = value.getType();
    usedRowBytes[buffer] = usedBytes(rowFormatOf(type), fm::getFeatures(type));
    return mapping[value] = buffer;
  }

  sched::BufferType bufferType(Type type, sched::RowKind rows) {
    return sched::BufferType::get(
        builder.getContext(),
        rowBytes(rowFormatOf(type), fm::getFeatures(type)), rows);
  }

  sched::RowKind rowsOf(Value value) {
    return cast<sched::BufferType>(mapping.lookup(value).getType()).getRows();
  }

  LogicalResult mapArguments(Block &body) {
    MLIRContext *context = builder.getContext();
    auto result = cast<fm::ReturnOp>(block.getBody().front().getTerminator())
                      .getOperand(0);
    for (BlockArgument argument : block.getBody().getArguments()) {
      Type type = argument.getType();
      Type mapped;
      if (auto rows = dyn_cast<RankedTensorType>(type);
          isa<fm::QRowsType>(type) || (rows && rows.getElementType().isBF16()))
        return block.emitError("kernels take f32 rows between blocks, '")
               << block.getSymName() << "' takes " << type;
      if (isa<RankedTensorType>(type) && !isIds(argument))
        mapped = bufferType(type, sched::RowKind::Tokens);
      else if (isa<fm::WeightType>(type))
        mapped = sched::WeightType::get(context);
      else if (isa<fm::StateType>(type))
        mapped = sched::StateType::get(context);
      else
        continue; // ids and rows come with the step
      if (isa<fm::StateType>(type))
        continue;
      Value own = body.addArgument(mapped, argument.getLoc());
      if (isa<sched::BufferType>(mapped))
        mapTo(argument, own);
      else
        mapping[argument] = own;
      if (auto weight = dyn_cast<fm::WeightType>(type))
        if (weight.isQuantized() &&
            weight.getGroup() != weight.getPackedLayout().scaleGroup())
          return block.emitError("kernels take groups of ")
                 << weight.getPackedLayout().scaleGroup() << " inputs, '"
                 << block.getSymName() << "' has " << weight.getGroup()
                 << "; fm-quantize-weights chooses them";
    }
    // The output buffer comes after the input and before the weights; rows of
    // kind `outputs` if they were selected on the way.
    unsigned position = 0;
    while (position < body.getNumArguments() &&
           isa<sched::BufferType>(body.getArgument(position).getType()))
      ++position;
    bool selects = llvm::any_of(block.getBody().front(), fm::choosesRows);
    auto type = bufferType(result.getType(), selects ? sched::RowKind::Outputs
                                                     : sched::RowKind::Tokens);
    mapTo(result, body.insertArgument(position, type, result.getLoc()));
    for (BlockArgument argument : block.getBody().getArguments())
      if (isa<fm::StateType>(argument.getType()))
        mapping[argument] = body.addArgument(
            sched::StateType::get(builder.getContext()), argument.getLoc());
    return success();
  }

  static bool isIds(Value value) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    return type && type.getElementType().isInteger(32);
  }

  /// The buffer that holds an operator's result.
  Value resultBuffer(Value result, sched::RowKind rows) {
    if (Value buffer = mapping.lookup(result))
      return buffer;
    return mapTo(result,
                 sched::BufferOp::create(builder, result.getLoc(),
                                         bufferType(result.getType(), rows),
                                         /*per_thread=*/false));
  }

  /// What a launch must read and compute; bytes of its buffers are added.
  struct Cost {
    int64_t bytes = 0, rowOps = 0, positionBytes = 0, positionOps = 0;
    sched::Arithmetic arithmetic = sched::Arithmetic::F32;
    bool bidirectional = false;
  };

  /// Everything of a launch but its kernel and operands; the last operand is
  /// the one that it writes.
  struct Shape {
    int64_t tiles;
    sched::RowKind rows;
    int64_t scratch = 0;
    bool perPartition = false;
    sched::Steps steps = sched::Steps::Any;
    int64_t rowsPerTile = 1;
  };

  void launch(Location loc, StringRef kernel, ValueRange operands,
              const Shape &shape, const Cost &cost) {
    Value output = operands.back();
    const bool inSmall = shape.steps != sched::Steps::Large;
    const bool inLarge = shape.steps != sched::Steps::Small;
    // Rows one by one, into a temporary: cheaper to do twice than to wait for.
    auto temporary = output.getDefiningOp<sched::BufferOp>();
    const bool replicate = inSmall && !shape.perPartition && shape.tiles == 1 &&
                           shape.rowsPerTile == 1 && temporary;
    auto touches = [&](const llvm::SmallPtrSetImpl<void *> &written) {
      return llvm::any_of(operands, [&](Value operand) {
        return written.contains(operand.getAsOpaquePointer());
      });
    };
    const bool waitSmall = inSmall && (firstLaunch || touches(writtenSmall));
    // A barrier of small steps is one of large steps too, if both have it.
    const bool waitLarge =
        inLarge && (firstLaunch || waitSmall || touches(writtenLarge));
    if (waitLarge)
      writtenLarge.clear();
    if (waitSmall)
      writtenSmall.clear();
    firstLaunch = false;
    if (inLarge)
      writtenLarge.insert(output.getAsOpaquePointer());
    if (replicate)
      temporary.setPerThread(true);
    else if (inSmall)
      writtenSmall.insert(output.getAsOpaquePointer());
    int64_t rowBytes = 0;
    for (Value operand : operands)
      rowBytes += usedRowBytes.lookup(operand);
    const bool wait = inSmall ? waitSmall : waitLarge;
    sched::LaunchOp::create(
        builder, loc, kernel, operands, shape.tiles, shape.perPartition,
        shape.rows, shape.steps, wait,
        /*wait_large=*/waitLarge && !wait, replicate, shape.scratch,
        shape.rowsPerTile,
        sched::CostAttr::get(builder.getContext(), cost.bytes, rowBytes,
                             cost.positionBytes, cost.rowOps, cost.positionOps,
                             cost.bidirectional, cost.arithmetic));
  }

  /// Emits the kernel `name` unless an equal one exists already.
  void kernel(StringRef name, Location loc,
              llvm::function_ref<void(KernelBuilder &)> emit) {
    if (kernels.lookupSymbol(name))
      return;
    KernelBuilder k(kernels, name, target, loc);
    emit(k);
    k.finish();
  }

  LogicalResult checkLanes(Operation &op, int64_t size, StringRef what) {
    if (size % kLanes == 0)
      return success();
    return op.emitError() << what << " of " << size << " is not a multiple of "
                          << kLanes << ", which the kernels need";
  }

  LogicalResult convertOp(Operation &op) {
    for (Type type : op.getResultTypes()) {
      auto rows = dyn_cast<fm::QRowsType>(type);
      if (rows && rows.getFeatures() % PackedLayout::kInt4Group != 0)
        return op.emitError("kernels take a multiple of ")
               << PackedLayout::kInt4Group << " quantised features, not "
               << rows.getFeatures()
               << "; fm-quantize-weights leaves others f16";
      if (rows && rows.getGroup() != int8GroupOf(rows.getFeatures()) &&
          rows.getGroup() != rows.getFeatures())
        return op.emitError("kernels take groups of ")
               << int8GroupOf(rows.getFeatures())
               << " features or whole rows, not groups of " << rows.getGroup()
               << "; fm-quantize-weights chooses them";
    }
    return llvm::TypeSwitch<Operation &, LogicalResult>(op)
        .Case<fm::EmbeddingOp, fm::LinearOp, fm::GatedLinearOp, fm::AddOp,
              fm::RMSNormOp, fm::QuantizeRowsOp, fm::RotaryOp, fm::AttentionOp,
              fm::ActivateOp, fm::GluOp, fm::ScaleOp, fm::LayerNormOp,
              fm::PositionEmbeddingOp, fm::SelectRowsOp, fm::AddVectorOp,
              fm::ClassTokenOp, fm::MeanRowsOp, fm::L2NormOp>(
            [&](auto typed) { return convert(typed); })
        .Default([](Operation &other) {
          return other.emitError("has no kernel; see docs/add-an-operator.md");
        });
  }

  LogicalResult checkMatrixUnit(Operation &op) {
    if (target.tileRegisters > 0)
      return success();
    return op.emitError("target ")
           << target.name
           << " has no matrix unit of bf16; compile for x86-64-amx, or with "
              "--products vector";
  }

  /// Rows with one scale go with weights with one scale an output.
  LogicalResult checkRows(Operation &op, Value rows,
                          const PackedLayout &weight) {
    if (fm::getParts(rows.getType()))
      return checkMatrixUnit(op);
    if (rowFormatOf(rows.getType()) == rowFormatFor(weight))
      return success();
    return op.emitError("kernels take scales of groups on both sides, or of "
                        "whole rows; fm-quantize-weights chooses them");
  }

  LogicalResult convert(fm::EmbeddingOp op) {
    const PackedLayout table = op.getTable().getType().getPackedLayout();
    std::string name = "embedding_" + describe(op.getTable().getType());
    kernel(name, op.getLoc(), [&](auto &k) { emitEmbedding(k, table); });
    Value y = resultBuffer(op, sched::RowKind::Tokens);
    launch(op.getLoc(), name, {mapping.lookup(op.getTable()), y},
           {1, sched::RowKind::Tokens}, {});
    return success();
  }

  /// In the name of a product: which ones of a matrix unit stand for it.
  static StringRef nameOfTiles(bool inTiles, const PackedLayout &weight) {
    return !inTiles ? "" : partsOf(weight.format) == 1 ? "_bf16x1" : "_bf16x6";
  }

  Shape productShape(int64_t tiles, const PackedLayout &weight, bool inTiles,
                     sched::RowKind rows) {
    Shape shape{tiles, rows};
    shape.rowsPerTile = productRowsPerTile(weight, inTiles, target);
    return shape;
  }

  LogicalResult convert(fm::LinearOp op) {
    LinearSpec spec{op.getWeight().getType().getPackedLayout(),
                    bool(op.getBias()), bool(op.getResidual()),
                    fm::getParts(op.getX().getType()) > 0};
    if (failed(checkRows(*op, op.getX(), spec.weight)))
      return failure();
    std::string name = "linear_" + describe(op.getWeight().getType());
    name += nameOfTiles(spec.inTiles, spec.weight);
    SmallVector<Value> operands{mapping.lookup(op.getX()),
                                mapping.lookup(op.getWeight())};
    if (spec.bias) {
      name += "_bias";
      operands.push_back(mapping.lookup(op.getBias()));
    }
    if (spec.residual) {
      name += "_residual";
      operands.push_back(mapping.lookup(op.getResidual()));
    }
    kernel(name, op.getLoc(), [&](auto &k) { emitLinear(k, spec); });
    sched::RowKind rows = rowsOf(op.getX());
    operands.push_back(resultBuffer(op, rows));
    Cost cost{spec.weight.bytes(),
              2 * spec.weight.outputs * spec.weight.inputs};
    cost.arithmetic = arithmeticOf(rowFormatOf(op.getX().getType()));
    launch(op.getLoc(), name, operands,
           productShape(spec.tiles(), spec.weight, spec.inTiles, rows), cost);
    return success();
  }

  LogicalResult convert(fm::GatedLinearOp op) {
    GatedLinearSpec spec{
        op.getGate().getType().getPackedLayout(), rowFormatOf(op.getType()),
        functionOf(op.getFunction()), fm::getParts(op.getX().getType()) > 0};
    if (failed(checkRows(*op, op.getX(), spec.weight)))
      return failure();
    if (spec.result == RowFormat::Int8Row)
      return op.emitError(
          "writes tiles of a row, and cannot quantise it whole; "
          "fm.quantize_rows can");
    std::string name = "gated_linear_" + describe(op.getGate().getType());
    name += nameOfTiles(spec.inTiles, spec.weight);
    if (spec.function != Function::Silu)
      name += "_" + fm::stringifyFunction(op.getFunction()).str();
    name += suffixOf(spec.result);
    kernel(name, op.getLoc(), [&](auto &k) { emitGatedLinear(k, spec); });
    sched::RowKind rows = rowsOf(op.getX());
    Cost cost{2 * spec.weight.bytes(),
              4 * spec.weight.outputs * spec.weight.inputs};
    cost.arithmetic = arithmeticOf(rowFormatOf(op.getX().getType()));
    launch(op.getLoc(), name,
           {mapping.lookup(op.getX()), mapping.lookup(op.getGate()),
            mapping.lookup(op.getUp()), resultBuffer(op, rows)},
           productShape(spec.weight.outputs / spec.tileOutputs(), spec.weight,
                        spec.inTiles, rows),
           cost);
    return success();
  }

  LogicalResult convert(fm::RMSNormOp op) {
    NormSpec spec{fm::getFeatures(op.getX().getType()),
                  op.getEpsilon().convertToDouble(), rowFormatOf(op.getType()),
                  int64_t(op.getHeads())};
    if (failed(checkLanes(*op, spec.features / spec.heads, "width")))
      return failure();
    std::string name = nameOf("rms_norm", spec);
    kernel(name, op.getLoc(), [&](auto &k) { emitRMSNorm(k, spec); });
    rowWise(op, name, {op.getX(), op.getWeight()});
    return success();
  }

  LogicalResult convert(fm::LayerNormOp op) {
    NormSpec spec{fm::getFeatures(op.getX().getType()),
                  op.getEpsilon().convertToDouble(), rowFormatOf(op.getType())};
    if (failed(checkLanes(*op, spec.features, "width")))
      return failure();
    std::string name = nameOf("layer_norm", spec);
    kernel(name, op.getLoc(), [&](auto &k) { emitLayerNorm(k, spec); });
    rowWise(op, name, {op.getX(), op.getWeight(), op.getBias()});
    return success();
  }

  static std::string nameOf(StringRef norm, const NormSpec &spec) {
    return llvm::formatv("{0}_{1}{2}_{3}{4}", norm, spec.features,
                         spec.heads > 1 ? "_h" + std::to_string(spec.heads)
                                        : std::string(),
                         exactly(spec.epsilon), suffixOf(spec.result));
  }
  /// A number as part of a symbol, different for different numbers.
  static std::string exactly(double value) {
    std::string text = fmt::format("{}", value); // the shortest that reads back
    for (char &c : text)
      if (c == '-' || c == '+' || c == '.')
        c = c == '-' ? 'm' : '_';
    return text;
  }

  /// The two enumerations list the functions in the same order.
  static Function functionOf(fm::Function function) {
    return static_cast<Function>(function);
  }

  LogicalResult convert(fm::ActivateOp op) {
    return convertActivation(op, op.getFunction(), "", emitActivate);
  }

  LogicalResult convert(fm::GluOp op) {
    return convertActivation(op, op.getFunction(), "_mul", emitGlu);
  }

  LogicalResult
  convertActivation(Operation *op, fm::Function function, StringRef infix,
                    void (*emit)(KernelBuilder &, const ActivationSpec &)) {
    Type result = op->getResult(0).getType();
    ActivationSpec spec{fm::getFeatures(result), functionOf(function),
                        rowFormatOf(result)};
    if (failed(checkLanes(*op, spec.features, "width")))
      return failure();
    std::string name =
        llvm::formatv("{0}{1}_{2}{3}", fm::stringifyFunction(function), infix,
                      spec.features, suffixOf(spec.result));
    kernel(name, op->getLoc(), [&](auto &k) { emit(k, spec); });
    rowWise(op, name, op->getOperands());
    return success();
  }

  LogicalResult convert(fm::ScaleOp op) {
    const int64_t features = fm::getFeatures(op.getType());
    const double factor = op.getFactor().convertToDouble();
    if (failed(checkLanes(*op, features, "width")))
      return failure();
    std::string name =
        llvm::formatv("scale_{0}_{1}", features, exactly(factor));
    kernel(name, op.getLoc(), [&](auto &k) { emitScale(k, features, factor); });
    rowWise(op, name, {op.getX()});
    return success();
  }

  LogicalResult convert(fm::PositionEmbeddingOp op) {
    const PackedLayout table = op.getTable().getType().getPackedLayout();
    std::string name =
        "position_embedding_" + describe(op.getTable().getType());
    kernel(name, op.getLoc(),
           [&](auto &k) { emitPositionEmbedding(k, table); });
    rowWise(op, name, {op.getX(), op.getTable()});
    return success();
  }

  LogicalResult convert(fm::QuantizeRowsOp op) {
    int64_t features = fm::getFeatures(op.getX().getType());
    RowFormat from = rowFormatOf(op.getX().getType());
    RowFormat result = rowFormatOf(op.getType());
    std::string name = llvm::formatv("quantize_rows_{0}{1}{2}", features,
                                     suffixOf(from), suffixOf(result));
    kernel(name, op.getLoc(),
           [&](auto &k) { emitQuantizeRows(k, features, from, result); });
    rowWise(op, name, {op.getX()});
    return success();
  }

  LogicalResult convert(fm::AddOp op) {
    return convertRows(op, "add", emitAdd, {op.getLhs(), op.getRhs()});
  }

  LogicalResult convert(fm::RotaryOp op) {
    RotarySpec spec{fm::getFeatures(op.getType()), int64_t(op.getHeadDim()),
                    op.getFrequencies()};
    if (failed(checkLanes(*op, spec.headDim / 2, "half head size")))
      return failure();
    std::string name =
        llvm::formatv("rotary_{0}_{1}_{2}", spec.features, spec.headDim,
                      exactly(op.getTheta().convertToDouble()));
    // What distinguishes them is too long for a name.
    if (auto factors = op.getFactors())
      name += llvm::formatv(
          "_{0:x-}", llvm::xxh3_64bits(llvm::ArrayRef(
                         reinterpret_cast<const uint8_t *>(factors->data()),
                         factors->size() * sizeof(float))));
    kernel(name, op.getLoc(), [&](auto &k) { emitRotary(k, spec); });
    rowWise(op, name, {op.getX()});
    return success();
  }

  LogicalResult convert(fm::AddVectorOp op) {
    return convertRows(op, "add_vector", emitAddVector,
                       {op.getX(), op.getVector()});
  }

  LogicalResult convert(fm::ClassTokenOp op) {
    return convertRows(op, "class_token", emitClassToken,
                       {op.getX(), op.getToken()});
  }

  LogicalResult convert(fm::L2NormOp op) {
    return convertRows(op, "l2_norm", emitL2Norm, {op.getX()});
  }

  /// A kernel of which the number of features says everything.
  using EmitRows = void (*)(KernelBuilder &, int64_t);
  LogicalResult convertRows(Operation *op, StringRef kind, EmitRows emit,
                            ValueRange inputs) {
    const int64_t features = fm::getFeatures(op->getResult(0).getType());
    if (failed(checkLanes(*op, features, "width")))
      return failure();
    std::string name = llvm::formatv("{0}_{1}", kind, features);
    kernel(name, op->getLoc(), [&](auto &k) { emit(k, features); });
    rowWise(op, name, inputs);
    return success();
  }

  LogicalResult convert(fm::SelectRowsOp op) {
    return convertOutputs(op, "select_rows", emitSelectRows);
  }

  LogicalResult convert(fm::MeanRowsOp op) {
    return convertOutputs(op, "mean_rows", emitMeanRows);
  }

  /// From the rows of the step to those that are wanted.
  LogicalResult convertOutputs(Operation *op, StringRef kind, EmitRows emit) {
    const int64_t features = fm::getFeatures(op->getResult(0).getType());
    if (failed(checkLanes(*op, features, "width")))
      return failure();
    std::string name = llvm::formatv("{0}_{1}", kind, features);
    kernel(name, op->getLoc(), [&](auto &k) { emit(k, features); });
    Value y = resultBuffer(op->getResult(0), sched::RowKind::Outputs);
    launch(op->getLoc(), name, {mapping.lookup(op->getOperand(0)), y},
           {1, sched::RowKind::Outputs}, {});
    return success();
  }

  LogicalResult convert(fm::AttentionOp op) {
    int64_t heads = op.getHeads();
    AttentionSpec spec{{static_cast<PackedFormat>(op.getKvFormat()),
                        int64_t(op.getKvHeads()),
                        fm::getFeatures(op.getQ().getType()) / heads},
                       heads,
                       op.getScale().convertToDouble(),
                       op.getSinks(),
                       op.getWindow(),
                       op.getBidirectional(),
                       partitions,
                       op.getInTiles()};
    if (spec.inTiles && failed(checkMatrixUnit(*op)))
      return failure();
    spec.rowsAtOnce = spec.rowsPerTile();
    while (!spec.inTiles && spec.rowsAtOnce > 1 &&
           spec.rowsAtOnce * spec.group() > target.schedule.attentionQueries)
      spec.rowsAtOnce /= 2;
    if (failed(checkLanes(*op, spec.headDim, "head size")))
      return failure();
    // Sums of 127 * kLargestFactor must stay in int32 (CacheProducts.h).
    constexpr int64_t kMostFeatures = 512;
    if (spec.hasScales() && spec.headDim > kMostFeatures)
      return op.emitError("an int8 cache takes heads of at most ")
             << kMostFeatures << " features, not of " << spec.headDim
             << "; keep it in bf16 (--kv bf16)";
    kvPageBytes = spec.pageBytes();
    std::string shape =
        llvm::formatv("{0}_{1}_{2}_{3}", spec.heads, spec.kvHeads, spec.headDim,
                      fm::stringifyWeightFormat(op.getKvFormat()));
    std::string append = "append_kv_" + shape;
    kernel(append, op.getLoc(), [&](auto &k) { emitAppendKV(k, spec); });
    Value q = mapping.lookup(op.getQ()), state = mapping.lookup(op.getState());
    launch(op.getLoc(), append,
           {mapping.lookup(op.getK()), mapping.lookup(op.getV()), state},
           {spec.kvHeads, sched::RowKind::Tokens}, {});
    if (spec.scale != 1 / std::sqrt(double(spec.headDim)))
      shape += "_x" + exactly(spec.scale);
    if (spec.bidirectional)
      shape += "_both";
    if (spec.window)
      shape += llvm::formatv("_s{0}_w{1}", *spec.sinks, *spec.window);
    if (spec.inTiles)
      shape += "_tiles";
    Cost cost;
    cost.positionBytes = spec.positionBytes();
    cost.positionOps = 4 * spec.heads * spec.headDim;
    cost.bidirectional = spec.bidirectional;
    if (spec.format == PackedFormat::BF16)
      cost.arithmetic =
          spec.inTiles ? sched::Arithmetic::BF16x1 : sched::Arithmetic::BF16;
    Value y = resultBuffer(op, sched::RowKind::Tokens);
    std::string whole = "attention_" + shape;
    kernel(whole, op.getLoc(), [&](auto &k) { emitAttention(k, spec); });
    launch(op.getLoc(), whole, {q, state, y},
           {spec.kvHeads, sched::RowKind::Tokens, spec.scratchBytes(), false,
            sched::Steps::Large, spec.rowsPerTile()},
           cost);
    // Few rows have too few heads for the threads: partitions are shared out.
    std::string parts = "attention_partitions_" + shape +
                        llvm::formatv("_p{0}", spec.partitions).str();
    kernel(parts, op.getLoc(),
           [&](auto &k) { emitAttentionPartitions(k, spec); });
    Value partial = sched::BufferOp::create(
        builder, op.getLoc(),
        sched::BufferType::get(builder.getContext(), spec.partialRowBytes(),
                               sched::RowKind::Tokens),
        /*per_thread=*/false);
    launch(op.getLoc(), parts, {q, state, partial},
           {spec.kvHeads, sched::RowKind::Tokens, spec.scratchBytes(), true,
            sched::Steps::Small},
           cost);
    std::string merge = "attention_merge_" + shape +
                        llvm::formatv("_p{0}", spec.partitions).str();
    kernel(merge, op.getLoc(), [&](auto &k) { emitAttentionMerge(k, spec); });
    launch(op.getLoc(), merge, {partial, y},
           {1, sched::RowKind::Tokens, 0, false, sched::Steps::Small}, {});
    return success();
  }

  void rowWise(Operation *op, StringRef name, ValueRange inputs) {
    sched::RowKind rows = rowsOf(inputs[0]);
    SmallVector<Value> operands;
    for (Value input : inputs)
      operands.push_back(mapping.lookup(input));
    operands.push_back(resultBuffer(op->getResult(0), rows));
    // A few operations a value: an estimate, these kernels only move bytes.
    Type result = op->getResult(0).getType();
    Shape shape{1, rows};
    shape.scratch =
        writeScratchBytes(rowFormatOf(result), fm::getFeatures(result));
    launch(op->getLoc(), name, operands, shape,
           {0, 4 * fm::getFeatures(inputs[0].getType())});
  }
};

struct ConvertFMToSched
    : public isthmus::impl::ConvertFMToSchedBase<ConvertFMToSched> {
  using Base::Base;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    const TargetDescription *description = findTarget(target);
    if (!description) {
      std::string known;
      for (const TargetDescription &candidate : allTargets())
        known += " " + candidate.name;
      module.emitError("unknown target '") << target << "'; known:" << known;
      return signalPassFailure();
    }
    TargetDescription scheduled = *description;
    try {
      parseSchedule(schedule, scheduled.schedule);
    } catch (const rt::Error &error) {
      module.emitError(error.what());
      return signalPassFailure();
    }
    OpBuilder builder = OpBuilder::atBlockEnd(module.getBody());
    auto kernels =
        ModuleOp::create(builder, module.getLoc(), StringRef("kernels"));
    kernels->setAttr("isthmus.target",
                     builder.getStringAttr(description->name));
    auto templates =
        ModuleOp::create(builder, module.getLoc(), StringRef("schedule"));
    emitProbes(kernels, scheduled, module.getLoc());
    int64_t longest = 1;
    module.walk([&](fm::ProgramOp program) {
      if (auto length =
              program->getAttrOfType<IntegerAttr>("fm.context_length"))
        longest = std::max(longest, length.getInt());
    });
    const int64_t partitions =
        (longest + rt::kPartitionPositions - 1) / rt::kPartitionPositions;
    for (fm::BlockOp block : module.getOps<fm::BlockOp>())
      if (failed(
              BlockConverter(block, templates, kernels, scheduled, partitions)
                  .convert()))
        return signalPassFailure();
  }
};
} // namespace
