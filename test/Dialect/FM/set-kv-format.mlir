// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format | FileCheck %s
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format --fm-set-kv-format=format=f32 | FileCheck %s --check-prefix=BACK
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=bf16 | FileCheck %s --check-prefix=BF16
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=int4 2>&1 | FileCheck %s --check-prefix=ERROR

// CHECK: fm.attention {{.*}} kv f16 {
// BF16: fm.attention {{.*}} kv bf16 {
// BACK: fm.attention
// BACK-NOT: kv f
// ERROR: fm-set-kv-format: format must be f32, f16 or bf16, got 'int4'
