//===- SchedDialect.cpp - schedule templates ------------------------------===//
#include "isthmus/Dialect/Sched/IR/Sched.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace isthmus::sched;

#include "isthmus/Dialect/Sched/IR/SchedDialect.cpp.inc"
#include "isthmus/Dialect/Sched/IR/SchedEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "isthmus/Dialect/Sched/IR/SchedAttributes.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/Sched/IR/SchedTypes.cpp.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Sched/IR/SchedOps.cpp.inc"

void SchedDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "isthmus/Dialect/Sched/IR/SchedAttributes.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "isthmus/Dialect/Sched/IR/SchedTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "isthmus/Dialect/Sched/IR/SchedOps.cpp.inc"
      >();
}

LogicalResult BufferOp::verify() {
  if (getResult().getType().getRowBytes() <= 0)
    return emitOpError("needs a positive number of bytes a row");
  return success();
}

LogicalResult LaunchOp::verify() {
  if (getTiles() <= 0)
    return emitOpError("needs at least one tile");
  if (getScratch() < 0)
    return emitOpError("scratch must not be negative");
  if (getRowsPerTile() <= 0)
    return emitOpError("a tile needs at least one row");
  if (getWait() && getWaitLarge())
    return emitOpError("'wait' and 'wait_large' exclude one another");
  for (Type type : getOperandTypes())
    if (!isa<BufferType, WeightType, StateType>(type))
      return emitOpError("operand must be a buffer, a weight or a state, got ")
             << type;
  return success();
}
