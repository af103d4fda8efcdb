// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 | FileCheck %s
// RUN: sed 's/\b32\b/64/g; s/x32x/x64x/g' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-quantize-weights=format=int4 | FileCheck %s --check-prefix=WIDE
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=f16 | FileCheck %s --check-prefix=F16
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=bf16 --canonicalize | FileCheck %s --check-prefix=BF16
// RUN: sed 's/\b32\b/128/g; s/x32x/x128x/g' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-quantize-weights="format=int8 scales=row" | FileCheck %s --check-prefix=ROW
// RUN: sed 's/\b32\b/128/g; s/x32x/x128x/g' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-quantize-weights="format=int4 scales=row" | FileCheck %s --check-prefix=ROW4
// RUN: sed 's/\b32\b/64/g; s/x32x/x64x/g' %S/../../Inputs/two-layers.mlir | isthmus-opt --fm-quantize-weights="format=int4 scales=row" | FileCheck %s --check-prefix=WIDE
// RUN: isthmus-opt %s --fm-quantize-weights="format=int8 scales=row" --canonicalize | FileCheck %s --check-prefix=GATED
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=int7 | FileCheck %s --check-prefix=SEVEN
// RUN: sed -e '/at 1 /s/"<seed>".*"f32"/"m.gguf" at 1 as "q8_0"/' -e '/at 3 /s/"<seed>".*"f32"/"m.gguf" at 3 as "q4_0"/' -e '/at 4 /s/"<seed>".*"f32"/"m.gguf" at 4 as "f16"/' %S/../../Inputs/two-layers.mlir > %t.file.mlir
// RUN: isthmus-opt %t.file.mlir --fm-quantize-weights=format=file | FileCheck %s --check-prefix=FILE
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=file 2>&1 | FileCheck %s --check-prefix=COMPUTED
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights="format=int8 scales=column" 2>&1 | FileCheck %s --check-prefix=SCALES
// RUN: not isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=int3 2>&1 | FileCheck %s --check-prefix=ERROR

// The table is embedding and head: it stays in int8.
// CHECK: fm.param @table : !fm.weight<[64, 32], int8, group = 32>
// CHECK: %[[S:.*]] = fm.source
// CHECK: fm.quantize %[[S]] : <[64, 32], f32> -> <[64, 32], int8, group = 32>
// CHECK: fm.param @norm : !fm.weight<[32], f32>
// CHECK-NOT: fm.quantize
// CHECK: fm.param @w0 : !fm.weight<[32, 32], int4, group = 32>
// CHECK: fm.block @layer
// One quantisation of the rows serves both products.
// CHECK: %[[N:.*]] = fm.rms_norm
// CHECK: %[[Q:.*]] = fm.quantize_rows %[[N]]
// CHECK: fm.linear %[[Q]]
// CHECK-NOT: fm.quantize_rows
// CHECK: fm.linear %[[Q]]
// CHECK: fm.block @head
// CHECK: fm.quantize_rows

// Groups of 64 where they divide the width, but for int4 weights. (A row that is one group has no
// other scale to offer.)
// WIDE: fm.param @table : !fm.weight<[64, 64], int8, group = 64>
// WIDE: fm.param @w0 : !fm.weight<[64, 64], int4, group = 32>
// WIDE: fm.quantize_rows {{.*}} -> !fm.qrows<64, group = 64>

// A scale for each output, and one for each row that it multiplies.
// ROW: fm.param @table : !fm.weight<[64, 128], int8, group = 128>
// ROW: fm.quantize_rows {{.*}} -> !fm.qrows<128, group = 128>
// ROW4: fm.param @table : !fm.weight<[64, 128], int8, group = 128>
// ROW4: fm.param @w0 : !fm.weight<[128, 128], int4, group = 128>
// ROW4: fm.quantize_rows {{.*}} -> !fm.qrows<128, group = 128>
// SCALES: scales must be group or row, got 'column'

// SEVEN: fm.param @table : !fm.weight<[64, 32], int7, group = 32>
// SEVEN: fm.param @w0 : !fm.weight<[32, 32], int7, group = 32>
// SEVEN: fm.quantize_rows {{.*}} -> !fm.qrows<32, group = 32>

// F16: fm.param @table : !fm.weight<[64, 32], f16>
// F16-NOT: fm.quantize_rows

// bf16 weights take bf16 rows, which the norm writes itself.
// BF16: fm.param @table : !fm.weight<[64, 32], bf16>
// BF16: %[[N:.*]] = fm.rms_norm {{.*}} -> tensor<?x32xbf16>
// BF16: fm.linear %[[N]]{{.*}} : tensor<?x32xbf16>, <[32, 32], bf16> -> tensor<?x32xf32>

// Each matrix as its file has it; layers whose formats differ have a block each.
// FILE: fm.param @table : !fm.weight<[64, 32], q8_0, group = 32>
// FILE: fm.quantize {{.*}} -> <[64, 32], q8_0, group = 32>
// FILE: fm.param @w0 : !fm.weight<[32, 32], q4_0, group = 32>
// FILE: fm.param @w1 : !fm.weight<[32, 32], f16>
// FILE: fm.block @layer({{.*}}!fm.weight<[32, 32], q4_0, group = 32>)
// FILE: fm.quantize_rows
// FILE: fm.block @layer_0({{.*}}!fm.weight<[32, 32], f16>)
// FILE-NOT: fm.quantize_rows
// FILE: fm.block @head
// FILE: fm.call @layer(
// FILE: fm.call @layer_0(
// COMPUTED: 'table' cannot be kept as its file has it: its values are computed; choose a format

// ERROR: format must be f16, bf16, int8, int7, int4 or file, got 'int3'

// What a gated unit gives waits in bf16 for the one scale of its row.
// GATED: %[[H:.*]] = fm.gated_linear {{.*}} -> tensor<?x128xbf16>
// GATED: %[[Q:.*]] = fm.quantize_rows %[[H]] : tensor<?x128xbf16> -> !fm.qrows<128, group = 128>
// GATED: fm.linear %[[Q]]
fm.param @w : !fm.weight<[128, 128], f32> {
  %0 = fm.source "<seed>" at 1 as "f32" : !fm.weight<[128, 128], f32>
  fm.yield %0 : !fm.weight<[128, 128], f32>
}
fm.block @gated(%x: tensor<?x128xf32>, %rows: !fm.rows, %w: !fm.weight<[128, 128], f32>) -> tensor<?x128xf32> {
  %0 = fm.linear %x, %w : tensor<?x128xf32>, !fm.weight<[128, 128], f32> -> tensor<?x128xf32>
  %1 = fm.linear %x, %w : tensor<?x128xf32>, !fm.weight<[128, 128], f32> -> tensor<?x128xf32>
  %2 = fm.glu %0, %1 : tensor<?x128xf32> -> tensor<?x128xf32>
  %3 = fm.linear %2, %w : tensor<?x128xf32>, !fm.weight<[128, 128], f32> -> tensor<?x128xf32>
  fm.return %3 : tensor<?x128xf32>
}
fm.program @main(%x: tensor<?x128xf32>, %rows: !fm.rows) -> tensor<?x128xf32> attributes {fm.context_length = 128 : i64, fm.vocab_size = 64 : i64} {
  %0 = fm.call @gated(%x, %rows) params [@w] : (tensor<?x128xf32>, !fm.rows) -> tensor<?x128xf32>
  fm.return %0 : tensor<?x128xf32>
}
