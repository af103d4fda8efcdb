// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=bf16 --fm-tile-attention | FileCheck %s
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=int8 --fm-tile-attention | FileCheck %s --check-prefix=OTHER
// RUN: sed 's/heads = 1/heads = 2/g' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-set-kv-format=format=bf16 --fm-tile-attention | FileCheck %s --check-prefix=OTHER
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=bf16 --fm-tile-attention | sed 's/kv bf16/kv f16/' | not isthmus-opt 2>&1 | FileCheck %s --check-prefix=ERROR
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-set-kv-format=format=bf16 --fm-tile-attention | not isthmus-opt --convert-fm-to-sched=target=x86-64-avx512-bf16 2>&1 | FileCheck %s --check-prefix=TARGET

// CHECK: fm.attention {{.*}} kv bf16 in_tiles {
// An int8 cache, or heads of 16 features, which fill no line of a tile.
// OTHER: fm.attention {{.*}} kv
// OTHER-NOT: in_tiles
// ERROR: in tiles takes a bf16 cache, heads of a multiple of 32 features, and at most 16 of them for a key/value head
// TARGET: target x86-64-avx512-bf16 has no matrix unit of bf16
