//===- DistDialect.cpp - placement and transfers --------------------------===//
#include "isthmus/Dialect/Dist/IR/Dist.h"

using namespace mlir;
using namespace isthmus::dist;

#include "isthmus/Dialect/Dist/IR/DistDialect.cpp.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Dist/IR/DistOps.cpp.inc"

void DistDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "isthmus/Dialect/Dist/IR/DistOps.cpp.inc"
      >();
}

LogicalResult TransferOp::verify() {
  if (getSource() == getDestination())
    return emitOpError("source and destination are the same device");
  return success();
}
