//===- Passes.td - conversions between dialects -------------*- tablegen -*-===//
#ifndef ISTHMUS_CONVERSION_PASSES_TD
#define ISTHMUS_CONVERSION_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertFMToSched : Pass<"convert-fm-to-sched", "::mlir::ModuleOp"> {
  let summary = "Turn blocks into schedule templates and the kernels they launch";
  let description = [{
    For each `fm.block` writes a `sched.template` of the same name into the nested
    module `@schedule`, and into the nested module `@kernels` one function for each
    distinct kernel (operator, shape, format), generated for the target. Blocks,
    programs and parameters stay: they say what templates are bound to. Launches that need no result of the launches since
    the last barrier carry no `wait`, so that independent projections run side by
    side.
  }];
  let options = [
    Option<"target", "target", "std::string", "\"x86-64-avx2\"",
           "name of the target description">,
    Option<"schedule", "schedule", "std::string", "\"\"",
           "what differs from the target's own kernel schedule: dot_rows=4,tile_bytes=65536">
  ];
  let dependentDialects = ["::isthmus::sched::SchedDialect", "::mlir::arith::ArithDialect",
                           "::mlir::func::FuncDialect", "::mlir::scf::SCFDialect",
                           "::mlir::vector::VectorDialect", "::mlir::LLVM::LLVMDialect",
                           "::mlir::math::MathDialect"];
}

#endif
