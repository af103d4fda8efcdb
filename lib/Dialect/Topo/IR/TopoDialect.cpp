//===- TopoDialect.cpp - devices, links and budgets -----------------------===//
#include "isthmus/Dialect/Topo/IR/Topo.h"

using namespace mlir;
using namespace isthmus::topo;

#include "isthmus/Dialect/Topo/IR/TopoDialect.cpp.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Topo/IR/TopoOps.cpp.inc"

void TopoDialect::initialize() {
  addOperations<
#define GET_OP_LIST
#include "isthmus/Dialect/Topo/IR/TopoOps.cpp.inc"
      >();
}

LogicalResult DeviceOp::verify() {
  if (getMemory() <= 0)
    return emitOpError("memory must be positive");
  if (getBandwidth().convertToDouble() <= 0 || getOps().convertToDouble() <= 0)
    return emitOpError("bandwidth and ops must be positive");
  return success();
}

LogicalResult LinkOp::verify() {
  auto topology = cast<TopologyOp>((*this)->getParentOp());
  for (FlatSymbolRefAttr end : {getAAttr(), getBAttr()})
    if (!isa_and_nonnull<DeviceOp>(
            SymbolTable::lookupSymbolIn(topology, end.getAttr())))
      return emitOpError("no topo.device named '") << end.getValue() << "'";
  if (getA() == getB())
    return emitOpError("joins a device to itself");
  if (getLatency().convertToDouble() < 0 ||
      getBandwidth().convertToDouble() <= 0)
    return emitOpError("latency must not be negative, bandwidth positive");
  return success();
}
