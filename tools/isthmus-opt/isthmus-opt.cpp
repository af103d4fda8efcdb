//===- isthmus-opt.cpp - runs passes over isthmus IR ----------------------===//
#include "isthmus/Codegen/ObjectEmitter.h"
#include "isthmus/InitAll.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "mlir/Transforms/Passes.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  isthmus::registerAllDialects(registry);
  isthmus::registerAllPasses();
  mlir::registerTransformsPasses();
  mlir::PassPipelineRegistration<>(
      "lower-kernels", "Lower a module of kernels to the LLVM dialect",
      isthmus::buildKernelLowering);
  return mlir::asMainReturnCode(
      mlir::MlirOptMain(argc, argv, "isthmus optimizer\n", registry));
}
