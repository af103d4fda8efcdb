// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format | FileCheck %s
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format --fm-set-kv-format=format=f32 | FileCheck %s --check-prefix=BACK
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=bf16 | FileCheck %s --check-prefix=BF16
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=int8 | FileCheck %s --check-prefix=INT8
// RUN: sed 's/fm.vocab_size = 64/fm.task = "embed", fm.vocab_size = 64/' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-set-kv-format="format=bf16 encoders=int8" | FileCheck %s --check-prefix=INT8
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format="format=bf16 encoders=int8" | FileCheck %s --check-prefix=BF16
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=int4 2>&1 | FileCheck %s --check-prefix=ERROR

// CHECK: fm.attention {{.*}} kv f16 {
// BF16: fm.attention {{.*}} kv bf16 {
// INT8: fm.attention {{.*}} kv int8 {
// BACK: fm.attention
// BACK-NOT: kv f
// ERROR: fm-set-kv-format: format must be f32, f16, bf16 or int8, got 'int4'
