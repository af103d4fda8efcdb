// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=int4 | FileCheck %s
// RUN: isthmus-opt %S/../../Inputs/two-layers.mlir --fm-quantize-weights=format=f16 | FileCheck %s --check-prefix=F16
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

// F16: fm.param @table : !fm.weight<[64, 32], f16>
// F16-NOT: fm.quantize_rows

// ERROR: format must be f16, int8 or int4, got 'int3'
