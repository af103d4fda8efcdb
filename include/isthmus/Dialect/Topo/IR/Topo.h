//===- Topo.h - devices, links and budgets ----------------------*- C++ -*-===//
#pragma once

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "isthmus/Dialect/Topo/IR/TopoDialect.h.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Topo/IR/TopoOps.h.inc"
