//===- FMDialect.cpp - fm dialect, types and registration -----------------===//
#include "isthmus/Dialect/FM/IR/FM.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace isthmus::fm;

#include "isthmus/Dialect/FM/IR/FMDialect.cpp.inc"
#include "isthmus/Dialect/FM/IR/FMEnums.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/FM/IR/FMTypes.cpp.inc"

void FMDialect::initialize() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "isthmus/Dialect/FM/IR/FMTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "isthmus/Dialect/FM/IR/FMOps.cpp.inc"
      >();
}

LogicalResult WeightType::verify(function_ref<InFlightDiagnostic()> emitError,
                                 ArrayRef<int64_t> shape, WeightFormat format,
                                 int64_t group) {
  if (shape.empty() || shape.size() > 2)
    return emitError() << "a weight is a vector or a matrix, got rank "
                       << shape.size();
  for (int64_t dim : shape)
    if (dim <= 0)
      return emitError() << "weight dimensions must be positive, got " << dim;
  if (!fm::isQuantized(format)) {
    if (group != 0)
      return emitError() << "'group' goes with formats of integers only";
    return success();
  }
  if (shape.size() != 2)
    return emitError() << "only matrices are quantised in groups";
  if (group <= 0 || shape[1] % group != 0)
    return emitError() << "group of " << group << " does not divide the "
                       << shape[1] << " inputs";
  if (const PackedFormat stored = storedAs(format); isBlocks(stored)) {
    const PackedLayout layout{stored, shape[0], shape[1]};
    const int64_t block =
        hasSuperBlocks(stored) ? kSuperBlock : PackedLayout::kInt4Group;
    if (group != layout.group() || shape[1] % block != 0)
      return emitError() << stringifyWeightFormat(format) << " has groups of "
                         << layout.group() << " in whole blocks of " << block
                         << "; got " << group << " of " << shape[1]
                         << " inputs";
  }
  if (format == WeightFormat::Int4 && group != PackedLayout::kInt4Group &&
      (group != shape[1] || group % PackedLayout::kInt4Group != 0))
    return emitError() << "int4 has groups of " << PackedLayout::kInt4Group
                       << ", or one for all inputs, a multiple of that; got "
                       << group << " of " << shape[1] << " inputs";
  return success();
}

isthmus::PackedLayout WeightType::getPackedLayout() const {
  const int64_t inputs = getShape().size() == 2 ? getShape()[1] : 0;
  PackedLayout layout{storedAs(getFormat()), getShape()[0], inputs};
  if (getFormat() == WeightFormat::Int7)
    layout.range = ByteRange::SevenBits;
  layout.oneScale = isQuantized() && !isBlocks(layout.format) &&
                    getGroup() == inputs && inputs != int8GroupOf(inputs);
  return layout;
}

bool isthmus::fm::hasOneScale(Type activation) {
  auto rows = dyn_cast<QRowsType>(activation);
  return rows && rows.getGroup() == rows.getFeatures() &&
         rows.getGroup() != int8GroupOf(rows.getFeatures());
}

int64_t isthmus::fm::getFeatures(Type activation) {
  if (auto rows = dyn_cast<QRowsType>(activation))
    return rows.getFeatures();
  return cast<RankedTensorType>(activation).getShape().back();
}

int64_t isthmus::fm::getParts(Type activation) {
  auto rows = dyn_cast<RankedTensorType>(activation);
  return rows && rows.getRank() == 3 ? rows.getDimSize(1) : 0;
}
