//===- Sched.h - schedule templates -----------------------------*- C++ -*-===//
#pragma once

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "isthmus/Dialect/Sched/IR/SchedDialect.h.inc"
#include "isthmus/Dialect/Sched/IR/SchedEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "isthmus/Dialect/Sched/IR/SchedAttributes.h.inc"
#define GET_TYPEDEF_CLASSES
#include "isthmus/Dialect/Sched/IR/SchedTypes.h.inc"
#define GET_OP_CLASSES
#include "isthmus/Dialect/Sched/IR/SchedOps.h.inc"
