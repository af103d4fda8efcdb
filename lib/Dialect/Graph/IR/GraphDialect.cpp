//===- GraphDialect.cpp - graphs of tensors -------------------------------===//
#include "isthmus/Dialect/Graph/IR/Graph.h"

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace isthmus::graph;
using isthmus::rt::DataType;

#include "isthmus/Dialect/Graph/IR/GraphDialect.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/Graph/IR/GraphTypes.cpp.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Graph/IR/GraphOps.cpp.inc"

void GraphDialect::initialize() {
  addTypes<
#define GET_TYPEDEF_LIST
#include "isthmus/Dialect/Graph/IR/GraphTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "isthmus/Dialect/Graph/IR/GraphOps.cpp.inc"
      >();
}

LogicalResult ProgramOp::verify() {
  Block &block = getBody().front();
  if (block.getNumArguments() != getArgumentNames().size())
    return emitOpError("has ")
           << block.getNumArguments() << " inputs and "
           << getArgumentNames().size() << " names for them";
  auto result = dyn_cast<ReturnOp>(block.getTerminator());
  if (!result || result.getNumOperands() != getResultNames().size())
    return emitOpError("must return a value for each of its ")
           << getResultNames().size() << " names";
  return success();
}

LogicalResult ConstantOp::verify() {
  if (bool(getValue()) == bool(getFile()))
    return emitOpError("has either a value or a place in a file");
  if (getFile() && (!getOffset() || int64_t(*getOffset()) < 0))
    return emitOpError("needs the offset of its bytes in the file");
  return success();
}

Type isthmus::graph::elementType(MLIRContext *context, DataType type) {
  Builder b(context);
  auto uint = [&](unsigned bits) {
    return IntegerType::get(context, bits, IntegerType::Unsigned);
  };
  switch (type) {
  case DataType::F32:
    return b.getF32Type();
  case DataType::F16:
    return b.getF16Type();
  case DataType::BF16:
    return b.getBF16Type();
  case DataType::F64:
    return b.getF64Type();
  case DataType::U2:
    return uint(2);
  case DataType::U4:
    return uint(4);
  case DataType::U8:
    return uint(8);
  case DataType::U16:
    return uint(16);
  case DataType::U32:
    return uint(32);
  case DataType::U64:
    return uint(64);
  case DataType::I2:
    return b.getIntegerType(2);
  case DataType::I4:
    return b.getIntegerType(4);
  case DataType::I8:
    return b.getIntegerType(8);
  case DataType::I16:
    return b.getIntegerType(16);
  case DataType::I32:
    return b.getIntegerType(32);
  case DataType::I64:
    return b.getIntegerType(64);
  case DataType::Bool:
    return b.getIntegerType(1);
  case DataType::C64:
    return ComplexType::get(b.getF32Type());
  case DataType::C128:
    return ComplexType::get(b.getF64Type());
  case DataType::F8E4M3FN:
    return Float8E4M3FNType::get(context);
  case DataType::F8E4M3FNUZ:
    return Float8E4M3FNUZType::get(context);
  case DataType::F8E5M2:
    return Float8E5M2Type::get(context);
  case DataType::F8E5M2FNUZ:
    return Float8E5M2FNUZType::get(context);
  case DataType::F8E8M0:
    return Float8E8M0FNUType::get(context);
  case DataType::F4E2M1:
    return Float4E2M1FNType::get(context);
  case DataType::String:
    return StringType::get(context);
  case DataType::Undefined:
    break;
  }
  return {};
}

DataType isthmus::graph::dataTypeOf(Type element) {
  // The inverse of a short list is found by trying.
  for (int32_t i = 1; i <= int32_t(DataType::I2); ++i)
    if (elementType(element.getContext(), DataType(i)) == element)
      return DataType(i);
  return DataType::Undefined;
}

ElementsAttr isthmus::graph::toElements(RankedTensorType type,
                                        ArrayRef<char> bytes) {
  if (!type.getElementType().isInteger(1))
    return DenseElementsAttr::getFromRawBuffer(type, bytes);
  SmallVector<bool> bits;
  for (char byte : bytes)
    bits.push_back(byte != 0);
  return DenseElementsAttr::get(type, bits);
}

std::vector<char> isthmus::graph::toBytes(ElementsAttr values) {
  auto dense = cast<DenseElementsAttr>(values);
  const auto count = size_t(dense.getNumElements());
  std::vector<char> bytes;
  if (dense.getElementType().isInteger(1)) {
    for (bool bit : dense.getValues<bool>())
      bytes.push_back(bit);
    return bytes;
  }
  ArrayRef<char> raw = dense.getRawData();
  const size_t repeats = dense.isSplat() ? count : 1;
  for (size_t i = 0; i < repeats; ++i)
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  return bytes;
}
