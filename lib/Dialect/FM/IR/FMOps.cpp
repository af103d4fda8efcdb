//===- FMOps.cpp - verifiers and folds of fm operators --------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Weights/PackedLayout.h"

#include "mlir/IR/PatternMatch.h"
#include "mlir/Interfaces/FunctionImplementation.h"
#include "llvm/ADT/StringSet.h"

#include <cmath>

using namespace mlir;
using namespace isthmus::fm;

#define GET_OP_CLASSES
#include "isthmus/Dialect/FM/IR/FMOps.cpp.inc"

//===----------------------------------------------------------------------===//
// Functions and calls
//===----------------------------------------------------------------------===//

template <typename OpT>
static ParseResult parseFunctionLike(OpAsmParser &parser,
                                     OperationState &result) {
  auto buildFuncType =
      [](Builder &builder, ArrayRef<Type> args, ArrayRef<Type> results,
         function_interface_impl::VariadicFlag,
         std::string &) { return builder.getFunctionType(args, results); };
  return function_interface_impl::parseFunctionOp(
      parser, result, /*allowVariadic=*/false,
      OpT::getFunctionTypeAttrName(result.name), buildFuncType,
      OpT::getArgAttrsAttrName(result.name),
      OpT::getResAttrsAttrName(result.name));
}

template <typename OpT>
static void printFunctionLike(OpAsmPrinter &printer, OpT op) {
  function_interface_impl::printFunctionOp(
      printer, op, /*isVariadic=*/false, op.getFunctionTypeAttrName(),
      op.getArgAttrsAttrName(), op.getResAttrsAttrName());
}

ParseResult BlockOp::parse(OpAsmParser &parser, OperationState &result) {
  return parseFunctionLike<BlockOp>(parser, result);
}
void BlockOp::print(OpAsmPrinter &printer) {
  printFunctionLike(printer, *this);
}
ParseResult ProgramOp::parse(OpAsmParser &parser, OperationState &result) {
  return parseFunctionLike<ProgramOp>(parser, result);
}
void ProgramOp::print(OpAsmPrinter &printer) {
  printFunctionLike(printer, *this);
}

LogicalResult ReturnOp::verify() {
  auto function = cast<FunctionOpInterface>((*this)->getParentOp());
  if (getOperandTypes() != function.getResultTypes())
    return emitOpError("returns ")
           << getOperandTypes() << " but '" << function.getName()
           << "' declares " << function.getResultTypes();
  return success();
}

/// Looks a symbol up in this table and the enclosing ones: a stage of a split
/// program uses the blocks and parameters of the module around it.
template <typename OpT>
static OpT lookupOutwards(Operation *from, FlatSymbolRefAttr name,
                          SymbolTableCollection &symbols) {
  for (Operation *table = SymbolTable::getNearestSymbolTable(from); table;
       table = table->getParentOp()
                   ? SymbolTable::getNearestSymbolTable(table->getParentOp())
                   : nullptr)
    if (auto found = symbols.lookupSymbolIn<OpT>(table, name.getAttr()))
      return found;
  return nullptr;
}

LogicalResult CallOp::verifySymbolUses(SymbolTableCollection &symbols) {
  auto block = lookupOutwards<BlockOp>(*this, getCalleeAttr(), symbols);
  if (!block)
    return emitOpError("no fm.block named '") << getCallee() << "'";
  SmallVector<Type> expected(getInputs().getTypes());
  if (getState())
    expected.push_back(StateType::get(getContext()));
  for (auto param : getParams().getAsRange<FlatSymbolRefAttr>()) {
    auto op = lookupOutwards<ParamOp>(*this, param, symbols);
    if (!op)
      return emitOpError("no fm.param named '") << param.getValue() << "'";
    expected.push_back(op.getWeightType());
  }
  if (TypeRange(expected) != TypeRange(block.getArgumentTypes()))
    return emitOpError("binds ")
           << expected << " to block '" << getCallee() << "', which takes "
           << block.getArgumentTypes();
  if (block.getResultTypes() != ArrayRef<Type>(getResult().getType()))
    return emitOpError("result type differs from block '")
           << getCallee() << "'";
  return success();
}

//===----------------------------------------------------------------------===//
// Weight programs
//===----------------------------------------------------------------------===//

LogicalResult ParamOp::verify() {
  auto yield = dyn_cast_or_null<YieldOp>(
      getBody().front().empty() ? nullptr : &getBody().front().back());
  if (!yield)
    return emitOpError("weight program must end with fm.yield");
  if (yield.getValue().getType() != getType())
    return emitOpError("yields ")
           << yield.getValue().getType() << " but is declared " << getType();
  return success();
}

LogicalResult SourceOp::verify() {
  static const llvm::StringSet<> known = {
      "f32",  "f16",  "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1",
      "q4_k", "q5_k", "q6_k", "u8",   "i8",   "u4",   "i4"};
  if (!known.contains(getDtype()))
    return emitOpError("unknown dtype '") << getDtype() << "'";
  if (getOffset() < 0)
    return emitOpError("offset must not be negative");
  if (getResult().getType().getFormat() != WeightFormat::F32)
    return emitOpError("yields f32 values whatever the stored format");
  return success();
}

LogicalResult LiteralOp::verify() {
  const WeightType type = getResult().getType();
  if (type.getFormat() != WeightFormat::F32 ||
      int64_t(getValues().size()) !=
          ShapedType::getNumElements(type.getShape()))
    return emitOpError("needs as many values as its f32 result has");
  return success();
}

LogicalResult DequantizeOp::verify() {
  ArrayRef<int64_t> shape = getResult().getType().getShape();
  ArrayRef<int64_t> scales = getScales().getType().getShape();
  if (getValues().getType() != getResult().getType())
    return emitOpError("must keep the shape");
  if (getZeros() && getZeros().getType() != getScales().getType())
    return emitOpError("needs a zero point for each scale");
  const bool rows = scales.size() == 1 &&
                    (scales[0] == 1 || scales[0] == shape[0]),
             blocks = scales.size() == 2 && shape.size() == 2 &&
                      scales[0] == shape[0] && shape[1] % scales[1] == 0;
  if (!rows && !blocks)
    return emitOpError("needs one scale, one a row, or one a block of a row");
  return success();
}

LogicalResult UnpermuteRowsOp::verify() {
  int64_t outputs = getResult().getType().getShape()[0];
  int64_t heads = getHeads();
  if (heads <= 0 || outputs % heads != 0 || (outputs / heads) % 2 != 0)
    return emitOpError("needs an even number of rows a head: ")
           << outputs << " rows, " << heads << " heads";
  return success();
}

LogicalResult SliceRowsOp::verify() {
  ArrayRef<int64_t> from = getSource().getType().getShape();
  ArrayRef<int64_t> to = getResult().getType().getShape();
  if (from.size() != to.size() || from.drop_front() != to.drop_front())
    return emitOpError("must keep the width");
  const int64_t first = getFirst();
  if (first < 0 || to[0] > from[0] || first > from[0] - to[0])
    return emitOpError("takes rows beyond the source's ") << from[0];
  return success();
}

LogicalResult TransposeOp::verify() {
  ArrayRef<int64_t> from = getSource().getType().getShape();
  ArrayRef<int64_t> to = getResult().getType().getShape();
  if (from.size() != 2 || to.size() != 2 || from[0] != to[1] ||
      from[1] != to[0])
    return emitOpError("must exchange outputs and inputs of a matrix");
  return success();
}

LogicalResult PruneOp::verify() {
  WeightType type = getResult().getType();
  if (type.getFormat() != WeightFormat::F32)
    return emitOpError("prunes f32 values: place it before fm.quantize");
  if (type.getShape().size() != 2)
    return emitOpError("prunes matrices only");
  if (getPattern() == "2:4") {
    if (type.getShape()[1] % 4 != 0)
      return emitOpError("2:4 needs a multiple of 4 inputs, got ")
             << type.getShape()[1];
    return success();
  }
  if (getPattern() != "unstructured")
    return emitOpError("pattern must be \"2:4\" or \"unstructured\", got \"")
           << getPattern() << "\"";
  double sparsity = getSparsity().convertToDouble();
  if (!(sparsity >= 0.0 && sparsity < 1.0))
    return emitOpError("sparsity must be in [0, 1)");
  return success();
}

LogicalResult QuantizeOp::verify() {
  if (getSource().getType().getFormat() != WeightFormat::F32)
    return emitOpError("quantises f32 values");
  if (getSource().getType().getShape() != getResult().getType().getShape())
    return emitOpError("must keep the shape");
  const WeightFormat format = getResult().getType().getFormat();
  if (isBlocks(storedAs(format)) &&
      storedDType(getSource()) != stringifyWeightFormat(format))
    return emitOpError("keeps blocks of ")
           << stringifyWeightFormat(format)
           << ", and takes rows of a source that has them";
  return success();
}

StringRef isthmus::fm::storedDType(Value rows) {
  Operation *op = rows.getDefiningOp();
  while (isa_and_nonnull<UnpermuteRowsOp, SliceRowsOp>(op))
    op = op->getOperand(0).getDefiningOp();
  auto source = dyn_cast_or_null<SourceOp>(op);
  return source && source.getFile() != "<seed>" ? source.getDtype()
                                                : StringRef();
}

bool isthmus::fm::isKVFormat(WeightFormat format) {
  return format <= WeightFormat::Int8;
}

bool isthmus::fm::choosesRows(Operation &op) {
  return isa<SelectRowsOp, MeanRowsOp>(op);
}

bool isthmus::fm::isProductWeight(OpOperand &use) {
  if (auto linear = dyn_cast<LinearOp>(use.getOwner()))
    return use.get() == linear.getWeight();
  if (auto gated = dyn_cast<GatedLinearOp>(use.getOwner()))
    return use.get() != gated.getX();
  return false;
}

//===----------------------------------------------------------------------===//
// Operators
//===----------------------------------------------------------------------===//

/// Verifies that `weight` is an f32 vector of `size` values.
static LogicalResult verifyVector(Operation *op, WeightType weight,
                                  int64_t size, StringRef name) {
  if (weight.getShape() != ArrayRef<int64_t>(size) ||
      weight.getFormat() != WeightFormat::F32)
    return op->emitOpError() << name << " must be !fm.weight<[" << size
                             << "], f32>, got " << weight;
  return success();
}

LogicalResult EmbeddingOp::verify() {
  WeightType table = getTable().getType();
  if (table.getShape().size() != 2 ||
      table.getShape()[1] != getFeatures(getResult().getType()))
    return emitOpError("result features must equal the table's width");
  return success();
}

/// Verifies that rows of `x` can be multiplied with `weight`, and that the
/// products are rows of `result`.
static LogicalResult verifyProduct(Operation *op, Type x, WeightType weight,
                                   Type result) {
  if (weight.getShape().size() != 2)
    return op->emitOpError("weight must be a matrix");
  int64_t outputs = weight.getShape()[0], inputs = weight.getShape()[1];
  if (getFeatures(x) != inputs)
    return op->emitOpError("input has ")
           << getFeatures(x) << " features, the weight takes " << inputs;
  if (getFeatures(result) != outputs)
    return op->emitOpError("result has ")
           << getFeatures(result) << " features, the weight gives " << outputs;
  auto qrows = dyn_cast<QRowsType>(x);
  auto floats = dyn_cast<RankedTensorType>(x);
  const bool bf16 = floats && floats.getElementType().isBF16();
  const WeightFormat format = weight.getFormat();
  const bool fits = getParts(x) == isthmus::kFloatParts
                        ? format == WeightFormat::F32
                        : getParts(x) <= 1 &&
                              bool(qrows) == weight.isQuantized() &&
                              bf16 == (format == WeightFormat::BF16);
  if (!fits)
    return op->emitOpError(
        "quantised weights go with !fm.qrows inputs, bf16 weights with bf16 "
        "inputs, others with f32; inputs of three parts with f32 weights");
  if (qrows && qrows.getGroup() % weight.getGroup() != 0)
    return op->emitOpError("a group of the input is no whole number of groups "
                           "of the weight");
  return success();
}

LogicalResult LinearOp::verify() {
  WeightType weight = getWeight().getType();
  if (failed(verifyProduct(*this, getX().getType(), weight,
                           getResult().getType())))
    return failure();
  if (getBias() && failed(verifyVector(*this, getBias().getType(),
                                       weight.getShape()[0], "bias")))
    return failure();
  if (getResidual() && getResidual().getType() != getResult().getType())
    return emitOpError("residual and result types differ");
  return success();
}

LogicalResult GatedLinearOp::verify() {
  return verifyProduct(*this, getX().getType(), getGate().getType(),
                       getResult().getType());
}

/// Verifies that an operator changes values, not how many there are.
static LogicalResult verifyKeepsFeatures(Operation *op) {
  if (getFeatures(op->getResult(0).getType()) !=
      getFeatures(op->getOperand(0).getType()))
    return op->emitOpError("must keep the number of features");
  return success();
}

static LogicalResult verifyNorm(Operation *op, const llvm::APFloat &epsilon) {
  if (epsilon.convertToDouble() <= 0)
    return op->emitOpError("epsilon must be positive");
  return verifyKeepsFeatures(op);
}

LogicalResult RMSNormOp::verify() {
  if (failed(verifyNorm(*this, getEpsilon())))
    return failure();
  const int64_t features = getFeatures(getX().getType()), heads = getHeads();
  if (heads <= 0 || features % heads != 0)
    return emitOpError("heads must divide the features");
  return verifyVector(*this, getWeight().getType(), features / heads, "weight");
}

LogicalResult LayerNormOp::verify() {
  if (failed(verifyNorm(*this, getEpsilon())))
    return failure();
  const int64_t features = getFeatures(getX().getType());
  if (failed(verifyVector(*this, getWeight().getType(), features, "weight")))
    return failure();
  return verifyVector(*this, getBias().getType(), features, "bias");
}

LogicalResult ActivateOp::verify() { return verifyKeepsFeatures(*this); }

LogicalResult GluOp::verify() { return verifyKeepsFeatures(*this); }

LogicalResult PositionEmbeddingOp::verify() {
  WeightType table = getTable().getType();
  if (table.getShape().size() != 2 ||
      table.getShape()[1] != getFeatures(getX().getType()))
    return emitOpError("the table's width must equal the features");
  return success();
}

LogicalResult AddVectorOp::verify() {
  return verifyVector(*this, getVector().getType(),
                      getFeatures(getX().getType()), "vector");
}

LogicalResult ClassTokenOp::verify() {
  return verifyVector(*this, getToken().getType(),
                      getFeatures(getX().getType()), "token");
}

LogicalResult QuantizeRowsOp::verify() {
  if (failed(verifyKeepsFeatures(*this)))
    return failure();
  const int64_t parts = getParts(getResult().getType());
  if (parts > 1 && parts != isthmus::kFloatParts)
    return emitOpError("splits features into three parts, or into one");
  auto type = dyn_cast<QRowsType>(getResult().getType());
  if (!type && getX().getType().getElementType().isBF16())
    return emitOpError("rows of bf16 are rounded already, and become int8 "
                       "alone; give f32 rows");
  if (!type)
    return success();
  if (type.getGroup() <= 0 || type.getFeatures() % type.getGroup() != 0)
    return emitOpError("group of ")
           << type.getGroup() << " does not divide the features";
  return success();
}

LogicalResult RotaryOp::verify() {
  int64_t dim = getHeadDim();
  if (dim <= 0 || dim % 2 != 0 || getFeatures(getX().getType()) % dim != 0)
    return emitOpError("head_dim must be even and divide the features");
  if (getFactors() && int64_t(getFactors()->size()) != dim / 2)
    return emitOpError("needs ") << dim / 2 << " factors, one a pair";
  return success();
}

SmallVector<float> RotaryOp::getFrequencies() {
  const auto dim = int64_t(getHeadDim());
  const double theta = getTheta().convertToDouble();
  SmallVector<float> frequencies;
  for (int64_t i = 0; i < dim / 2; ++i) {
    // Each step is an f32: 1 / theta^(2i/D), not theta^(-2i/D), and the power
    // is rounded in between.
    const float exponent = float(2 * i) / float(dim);
    frequencies.push_back(1.0F / float(std::pow(theta, double(exponent))));
  }
  if (auto factors = getFactors())
    for (auto [frequency, factor] : llvm::zip_equal(frequencies, *factors))
      frequency /= factor;
  return frequencies;
}

LogicalResult AttentionOp::verify() {
  int64_t heads = getHeads(), kvHeads = getKvHeads();
  if (heads <= 0 || kvHeads <= 0 || heads % kvHeads != 0)
    return emitOpError("heads must be a multiple of kv_heads, got ")
           << heads << " and " << kvHeads;
  int64_t features = getFeatures(getQ().getType());
  if (features % heads != 0)
    return emitOpError("heads must divide the query's features");
  int64_t kvFeatures = features / heads * kvHeads;
  if (getFeatures(getK().getType()) != kvFeatures)
    return emitOpError("keys and values must have ")
           << kvFeatures << " features";
  if (getResult().getType() != getQ().getType())
    return emitOpError("result and query types differ");
  if (bool(getSinks()) != bool(getWindow()))
    return emitOpError("'sinks' and 'window' come together");
  if (!isKVFormat(getKvFormat()))
    return emitOpError("kv_format must be f32, f16, bf16 or int8");
  if (getWindow() && (*getWindow() <= 0 || *getSinks() < 0))
    return emitOpError("window must be positive and sinks not negative");
  if (getWindow() && getBidirectional())
    return emitOpError("a bidirectional row sees its whole sequence; it has no "
                       "window");
  if (getInTiles() && !fitsTiles())
    return emitOpError("in tiles takes a bf16 cache, heads of a multiple of 32 "
                       "features, and at most 16 of them for a key/value head");
  return success();
}

int64_t AttentionOp::getHeadFeatures() {
  return getFeatures(getQ().getType()) / int64_t(getHeads());
}

bool AttentionOp::fitsTiles() {
  constexpr int64_t kQueries = 16, kFactors = 32; // of a tile
  return getKvFormat() == WeightFormat::BF16 &&
         getHeadFeatures() % kFactors == 0 &&
         int64_t(getHeads() / getKvHeads()) <= kQueries;
}

//===----------------------------------------------------------------------===//
// Canonicalisation
//===----------------------------------------------------------------------===//

namespace {
/// add(x, linear(...)) becomes linear(... residual x): one pass over memory
/// less.
struct FoldResidual : OpRewritePattern<AddOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(AddOp op,
                                PatternRewriter &rewriter) const override {
    for (auto [value, other] : {std::pair(op.getRhs(), op.getLhs()),
                                std::pair(op.getLhs(), op.getRhs())}) {
      auto linear = value.getDefiningOp<LinearOp>();
      if (!linear || linear.getResidual() || !linear->hasOneUse())
        continue;
      rewriter.replaceOpWithNewOp<LinearOp>(op, op.getType(), linear.getX(),
                                            linear.getWeight(),
                                            linear.getBias(), other);
      return success();
    }
    return rewriter.notifyMatchFailure(op, "neither side is a lone linear");
  }
};

/// True for operators that can write rounded rows of the type.
bool canRound(Operation *producer, Type result) {
  // A gated product writes a row piece by piece, and is yet to be made of a
  // glu.
  if (isa_and_nonnull<GatedLinearOp, GluOp>(producer) && hasOneScale(result))
    return false;
  // The heads of a norm may be smaller than a group.
  if (auto norm = dyn_cast_or_null<RMSNormOp>(producer))
    return norm.getHeads() == 1;
  return isa_and_nonnull<LayerNormOp, ActivateOp, GluOp, GatedLinearOp>(
      producer);
}

/// quantize_rows(producer) becomes a producer that writes rounded rows.
struct FoldQuantizeRows : OpRewritePattern<QuantizeRowsOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(QuantizeRowsOp op,
                                PatternRewriter &rewriter) const override {
    Operation *producer = op.getX().getDefiningOp();
    if (!canRound(producer, op.getType()) || !producer->hasOneUse())
      return rewriter.notifyMatchFailure(op, "producer cannot round its rows");
    rewriter.setInsertionPoint(op);
    Operation *fused = rewriter.clone(*producer);
    fused->getResult(0).setType(op.getType());
    rewriter.replaceOp(op, fused->getResults());
    return success();
  }
};

/// glu(linear(x, gate), linear(x, up)) becomes gated_linear(x, gate, up).
struct FuseGatedLinear : OpRewritePattern<GluOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GluOp op,
                                PatternRewriter &rewriter) const override {
    auto gate = op.getGate().getDefiningOp<LinearOp>();
    auto up = op.getUp().getDefiningOp<LinearOp>();
    auto plain = [](LinearOp linear) {
      return linear && linear->hasOneUse() && !linear.getBias() &&
             !linear.getResidual();
    };
    if (!plain(gate) || !plain(up) || gate.getX() != up.getX() ||
        gate.getWeight().getType() != up.getWeight().getType())
      return rewriter.notifyMatchFailure(op, "not two plain products of a row");
    // Quantised results are whole groups of panels.
    const int64_t outputs = gate.getWeight().getType().getShape()[0];
    if (outputs % isthmus::int8GroupOf(outputs) != 0)
      return rewriter.notifyMatchFailure(op, "outputs are not whole groups");
    if (hasOneScale(op.getType()))
      return rewriter.notifyMatchFailure(op, "writes a row piece by piece");
    rewriter.replaceOpWithNewOp<GatedLinearOp>(
        op, op.getResult().getType(), gate.getX(), gate.getWeight(),
        up.getWeight(), op.getFunction());
    return success();
  }
};
} // namespace

void GluOp::getCanonicalizationPatterns(RewritePatternSet &results,
                                        MLIRContext *context) {
  results.add<FuseGatedLinear>(context);
}

void AddOp::getCanonicalizationPatterns(RewritePatternSet &results,
                                        MLIRContext *context) {
  results.add<FoldResidual>(context);
}

void QuantizeRowsOp::getCanonicalizationPatterns(RewritePatternSet &results,
                                                 MLIRContext *context) {
  results.add<FoldQuantizeRows>(context);
}
