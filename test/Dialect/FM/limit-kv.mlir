// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-limit-kv=budget=64 | FileCheck %s
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-limit-kv=budget=3 2>&1 | FileCheck %s --check-prefix=ERROR

// CHECK: fm.attention
// CHECK-SAME: sinks = 4 : i64, window = 60 : i64
// A smaller budget counts, a larger one does not widen what the model sees.
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-limit-kv=budget=64 --fm-limit-kv=budget=32 --fm-limit-kv=budget=128 | FileCheck %s --check-prefix=SMALLEST
// SMALLEST: fm.attention
// SMALLEST-SAME: sinks = 4 : i64, window = 28 : i64
// ERROR: the budget must exceed the 4 sinks, got 3
