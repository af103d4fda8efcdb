//===- Passes.td - placement passes -------------------------*- tablegen -*-===//
#ifndef ISTHMUS_DIALECT_DIST_TRANSFORMS_PASSES_TD
#define ISTHMUS_DIALECT_DIST_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def Partition : Pass<"dist-partition", "::mlir::ModuleOp"> {
  let summary = "Place the calls of each program on the devices of the topology";
  let description = [{
    A pipeline split at call boundaries. Devices take contiguous runs of calls in
    the order of the topology; the cut is the one with the least estimated time a
    token among those that fit every memory budget (`isthmus/Plan/Pipeline.h`). An
    infeasible model is an error that names the budget and the bytes missing.
    Inserts `dist.transfer` where a value changes device.
  }];
  let options = [
    Option<"contextTokens", "context", "int64_t", "2048",
           "tokens of KV cache that the budgets must hold">
  ];
  let dependentDialects = ["::isthmus::dist::DistDialect"];
}

def SplitStages : Pass<"dist-split-stages", "::mlir::ModuleOp"> {
  let summary = "Cut each program at its transfers into one stage a device";
  let description = [{
    ```mlir
    %1 = fm.call @embed(%ids, %rows) params [@table] on @a : ...
    %2 = dist.transfer %1 from @a to @b : tensor<?x64xf32>
    // becomes, in the stage on @a,
    dist.send %1 to @b : tensor<?x64xf32>
    // and in the stage on @b
    %1 = dist.recv from @a : tensor<?x64xf32>
    ```
  }];
  let dependentDialects = ["::isthmus::dist::DistDialect"];
}

#endif
