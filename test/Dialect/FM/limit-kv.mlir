// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-limit-kv=budget=64 | FileCheck %s
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-limit-kv=budget=3 2>&1 | FileCheck %s --check-prefix=ERROR

// CHECK: fm.attention
// CHECK-SAME: sinks = 4 : i64, window = 60 : i64
// ERROR: the budget must exceed the 4 sinks, got 3
