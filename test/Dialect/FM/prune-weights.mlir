// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-prune-weights | FileCheck %s
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights --fm-prune-weights="pattern=unstructured sparsity=0.3" | FileCheck %s --check-prefix=AFTER

// Embedding and head stay whole.
// CHECK: fm.param @table
// CHECK-NOT: fm.prune
// CHECK: fm.param @w0
// CHECK: %[[S:.*]] = fm.source
// CHECK: %[[P:.*]] = fm.prune %[[S]] "2:4"
// CHECK: fm.yield %[[P]]
// CHECK: fm.param @w1
// CHECK: fm.prune

// Pruning comes before rounding, whatever the order of the passes.
// AFTER: fm.param @w0
// AFTER: %[[S:.*]] = fm.source
// AFTER: %[[P:.*]] = fm.prune %[[S]] "unstructured" {sparsity = 3.000000e-01 : f64}
// AFTER: fm.quantize %[[P]]
