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

def FuseElementwise : Pass<"graph-fuse-elementwise", "::mlir::ModuleOp"> {
  let summary = "Make one node of neighbours that go element by element";
  let description = [{
    A node and those before it that nobody else needs become one, with them as its body:
    its kernel reads and writes each element once. What stands between them is rounded as
    if it were stored. Neighbours have equal sizes as far as types say; nodes that hang on constants
    alone stay as they are, since they run once.

    ```mlir
    %0 = graph.node "Add"(%x, %y) {} : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
    %1 = graph.node "Relu"(%0) {} : (tensor<?x64xf32>) -> tensor<?x64xf32>
    // becomes
    %1 = graph.node "isthmus.Fused"(%x, %y) {} : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32> {
    ^bb0(%a: tensor<?x64xf32>, %b: tensor<64xf32>):
      %2 = graph.node "Add"(%a, %b) {} : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
      %3 = graph.node "Relu"(%2) {} : (tensor<?x64xf32>) -> tensor<?x64xf32>
      graph.return %3 : tensor<?x64xf32>
    }
    ```
  }];
  let statistics = [Statistic<"numFused", "fused", "nodes made of several">];
}

#endif
