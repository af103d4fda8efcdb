// RUN: isthmus-opt %S/../Inputs/two-layers.mlir --convert-fm-to-sched | FileCheck %s
// RUN: not isthmus-opt %S/../Inputs/two-layers.mlir --convert-fm-to-sched=target=z80 2>&1 | FileCheck %s --check-prefix=TARGET
// RUN: sed 's/\b32\b/64/g; s/x32x/x64x/g' %S/../Inputs/two-layers.mlir | isthmus-opt --fm-quantize-weights=format=int4 -o %t.mlir
// RUN: sed 's/int8, group = 64/int8, group = 32/' %t.mlir | not isthmus-opt --convert-fm-to-sched 2>&1 | FileCheck %s --check-prefix=GROUP
// RUN: sed 's/qrows<64, group = 64>/qrows<64, group = 32>/; s/int8, group = 64/int4, group = 32/' %t.mlir | not isthmus-opt --convert-fm-to-sched 2>&1 | FileCheck %s --check-prefix=ROWS
// RUN: not isthmus-opt %S/../Inputs/odd-rows.mlir --convert-fm-to-sched 2>&1 | FileCheck %s --check-prefix=ODD

// RUN: sed 's/\b32\b/128/g; s/x32x/x128x/g' %S/../Inputs/two-layers.mlir | isthmus-opt --fm-quantize-weights="format=int8 scales=row" -o %t.rows.mlir
// RUN: isthmus-opt %t.rows.mlir --canonicalize --convert-fm-to-sched | FileCheck %s --check-prefix=WHOLE
// RUN: sed 's/int8, group = 128/int8, group = 64/' %t.rows.mlir | not isthmus-opt --convert-fm-to-sched 2>&1 | FileCheck %s --check-prefix=BOTH

// One function for each distinct kernel, however many launches it has.
// CHECK-LABEL: module @kernels attributes {isthmus.target = "x86-64-avx2"}
// CHECK: func.func @probe_read(
// CHECK: func.func @probe_read_ahead(
// CHECK: func.func @probe_f32
// CHECK: func.func @probe_bf16
// CHECK: func.func @probe_int8
// CHECK: func.func @embedding_f32_64x32
// CHECK: func.func @rms_norm_32
// CHECK: func.func @linear_f32_32x32
// CHECK-NOT: func.func @linear_f32_32x32(
// CHECK: func.func @rotary_32_32_10000
// As transformers rounds them, not to the nearest of theta^(-2i/D): those of i = 5 and 10 are 0.0562341325 and 0.00316227763.
// CHECK: dense<[1.000000e+00, 0.562341332, 0.316227764, 0.177827939, 1.000000e-01, 0.0562341288, 0.0316227786, 0.0177827943, 0.00999999977, 0.00562341325, 0.00316227786, 0.00177827943, 1.000000e-03, 5.62341302E-4, 3.16227786E-4, 1.7782794E-4]> : vector<16xf32>
// CHECK: func.func @append_kv_1_1_32_f32
// CHECK: func.func @attention_1_1_32_f32_x0_25
// CHECK: func.func @attention_partitions_1_1_32_f32_x0_25_p1
// CHECK: func.func @attention_merge_1_1_32_f32_x0_25_p1
// CHECK-LABEL: module @schedule
// CHECK: sched.template @layer attributes {kv_page_bytes = 8192 : i64}
// Every thread norms a lone row itself, so that the products wait in large steps alone.
// CHECK: sched.buffer per_thread
// CHECK: sched.launch @rms_norm_32{{.*}} wait replicate
// The two products need the norm, not one another.
// CHECK-NEXT: sched.buffer :
// CHECK-NEXT: sched.launch @linear_f32_32x32{{.*}} tiles 2 over tokens wait_large {cost = #sched.cost<bytes = 4096, row_bytes = 256, row_ops = 2048>, rows_per_tile = 240 : i64}
// CHECK-NEXT: sched.buffer :
// CHECK-NEXT: sched.launch @linear_f32_32x32{{.*}} tiles 2 over tokens {cost
// CHECK: sched.launch @rotary_32_32_10000{{.*}} over tokens wait replicate
// Few rows share out the partitions of the context.
// CHECK: sched.launch @attention_1_1_32_f32_x0_25{{.*}} over tokens in large wait
// CHECK: sched.launch @attention_partitions_1_1_32_f32_x0_25_p1{{.*}} per_partition over tokens in small wait {
// CHECK: sched.launch @attention_merge_1_1_32_f32_x0_25_p1{{.*}} over tokens in small wait replicate
// CHECK: sched.template @head
// CHECK: sched.launch @select_rows_32{{.*}} over outputs wait
// CHECK: sched.launch @linear_f32_64x32{{.*}} tiles 4 over outputs wait_large

// TARGET: unknown target 'z80'; known: x86-64-amx x86-64-avx512-bf16 x86-64-avx512-vnni x86-64-avx-vnni x86-64-avx2 aarch64-i8mm aarch64-dotprod aarch64
// GROUP: kernels take groups of 64 inputs, 'embed' has 32; fm-quantize-weights chooses them
// ROWS: kernels take groups of 64 features or whole rows, not groups of 32
// ODD: kernels take a multiple of 32 quantised features, not 48; fm-quantize-weights leaves others f16
// BOTH: kernels take scales of groups on both sides, or of whole rows

// A norm that writes rows with one scale keeps its values in scratch until the largest is known.
// WHOLE: sched.launch @rms_norm_128{{.*}}_qrow{{.*}} scratch = 576
// WHOLE: sched.launch @linear_int8rows_128x128
