// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-split-rows --canonicalize | FileCheck %s
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-split-rows=least-image-rows=128 | FileCheck %s --check-prefix=TEXT
// RUN: sed 's/\b32\b/48/g; s/x32x/x48x/g' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-split-rows | FileCheck %s --check-prefix=TEXT
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-split-rows --canonicalize | not isthmus-opt --convert-fm-to-sched=target=x86-64-avx512-bf16 2>&1 | FileCheck %s --check-prefix=TARGET

// The norm writes the parts itself; weights stay as they are.
// CHECK: fm.param @w0 : !fm.weight<[32, 32], f32>
// CHECK: %[[N:.*]] = fm.rms_norm {{.*}} -> tensor<?x3x32xbf16>
// CHECK: fm.linear %[[N]]{{.*}} : tensor<?x3x32xbf16>, <[32, 32], f32> -> tensor<?x32xf32>
// One row of a sequence is chosen there.
// CHECK: fm.block @head
// CHECK: fm.linear {{.*}} : tensor<?x32xf32>

// No program of images, or a width that is no multiple of 32.
// TEXT-NOT: bf16

// Rows that were rounded for bf16 weights have one part.
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=bf16 --fm-split-rows --canonicalize | FileCheck %s --check-prefix=BF16
// BF16: fm.rms_norm {{.*}} -> tensor<?x1x32xbf16>
// BF16: fm.linear {{.*}} : tensor<?x1x32xbf16>, <[32, 32], bf16> -> tensor<?x32xf32>
// BF16: fm.block @head
// BF16: fm.linear {{.*}} : tensor<?x32xbf16>

// TARGET: target x86-64-avx512-bf16 has no matrix unit of bf16; compile for x86-64-amx, or with --products vector
