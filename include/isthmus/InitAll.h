//===- InitAll.h - registers every dialect and pass -------------*- C++ -*-===//
#pragma once

#include "isthmus/Conversion/Passes.h"
#include "isthmus/Dialect/Dist/IR/Dist.h"
#include "isthmus/Dialect/Dist/Transforms/Passes.h"
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"
#include "isthmus/Dialect/Sched/IR/Sched.h"
#include "isthmus/Dialect/Topo/IR/Topo.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace isthmus {

inline void registerAllDialects(mlir::DialectRegistry &registry) {
  registry.insert<fm::FMDialect, topo::TopoDialect, dist::DistDialect,
                  sched::SchedDialect, graph::GraphDialect,
                  mlir::arith::ArithDialect, mlir::cf::ControlFlowDialect,
                  mlir::func::FuncDialect, mlir::LLVM::LLVMDialect,
                  mlir::math::MathDialect, mlir::scf::SCFDialect,
                  mlir::vector::VectorDialect>();
}

inline void registerAllPasses() {
  fm::registerFMPasses();
  dist::registerDistPasses();
  graph::registerGraphPasses();
  registerConversionPasses();
}

} // namespace isthmus
