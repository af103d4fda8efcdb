// Floats in a matrix unit. f32 as three parts of bf16: 24 products of tiles a step for 14 loads; bf16: 4 for 4 loads.
// No tile is spilled.
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-amx -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: FileCheck %s < %t.s
// RUN: not grep 'tile.*[0-9](%%rsp,' %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=LOOPS

// Fewer rows than fill a tile have one tile of them, whose height comes with the step.
// CHECK-LABEL: {{^}}linear_f32_64x768_bf16x6_few:
// CHECK: ldtilecfg
// CHECK: tilezero
// CHECK-COUNT-12: tdpbf16ps
// CHECK-NOT: tdpbf16ps
// CHECK: tilestored

// From one product to the next one side stays.
// CHECK-LABEL: {{^}}linear_f32_64x768_bf16x6_rows:
// CHECK: ldtilecfg
// CHECK-COUNT-4: tilezero
// CHECK-COUNT-4: tileloadd
// CHECK-NOT: tileloadd
// CHECK: tdpbf16ps %tmm[[L0:[0-9]]], %tmm[[H0:[0-9]]], %tmm
// CHECK-NEXT: tdpbf16ps %tmm[[L0]], %tmm[[H1:[0-9]]], %tmm
// CHECK-NEXT: tdpbf16ps %tmm[[L1:[0-9]]], %tmm[[H0]], %tmm
// CHECK-NEXT: tdpbf16ps %tmm[[L1]], %tmm[[H1]], %tmm
// CHECK-COUNT-2: tileloadd
// CHECK-NOT: tileloadd
// CHECK: tdpbf16ps %tmm{{[0-9]}}, %tmm[[H0]], %tmm
// CHECK: tilestored

// The sums of inputs before come back from memory.
// CHECK-LABEL: {{^}}linear_f32_64x1632_bf16x6_rows:
// CHECK-COUNT-4: tilezero
// CHECK: tilestored
// CHECK: tileloadd
// CHECK: tdpbf16ps
// CHECK: tilestored

// LOOPS: linear_f32_64x768_bf16x6_few: {{.*}} 12 dots
// Beside the products two rows of the block before are finished.
// LOOPS: linear_f32_64x768_bf16x6: 107 instructions, 24 dots, 0 fmas, 16 prefetches
// LOOPS: linear_f32_64x1632_bf16x6: {{.*}} 24 dots, 0 fmas, 16 prefetches
// LOOPS: linear_bf16_64x768_bf16x1_few: {{.*}} 2 dots, 0 fmas, 32 prefetches, 0 spills
// LOOPS: linear_bf16_64x768_bf16x1: 55 instructions, 4 dots, 0 fmas, 8 prefetches

// Scores of 48 queries with a page, and outputs of 32 queries and 32 features.
// LOOPS: attention_9_3_64_bf16_tiles: {{.*}} 12 dots, 0 fmas, 128 prefetches
// LOOPS: attention_9_3_64_bf16_tiles: {{.*}} 8 dots, 0 fmas, 0 prefetches
// LOOPS: attention_9_3_64_bf16_tiles_row: {{.*}} 4 dots, 0 fmas, 128 prefetches
// LOOPS: attention_9_3_64_bf16_tiles_row: {{.*}} 8 dots
// What the thread reads next is fetched beside the products: here values, a quarter beside each of four.
// LOOPS: attention_partitions_9_3_64_bf16_tiles_p1: {{.*}} 4 dots, 0 fmas, 64 prefetches

fm.block @short(%x: tensor<?x768xf32>, %w: !fm.weight<[64, 768], f32>) -> tensor<?x64xf32> {
  %0 = fm.quantize_rows %x : tensor<?x768xf32> -> tensor<?x3x768xbf16>
  %1 = fm.linear %0, %w : tensor<?x3x768xbf16>, !fm.weight<[64, 768], f32> -> tensor<?x64xf32>
  fm.return %1 : tensor<?x64xf32>
}
fm.block @long(%x: tensor<?x1632xf32>, %w: !fm.weight<[64, 1632], f32>) -> tensor<?x64xf32> {
  %0 = fm.quantize_rows %x : tensor<?x1632xf32> -> tensor<?x3x1632xbf16>
  %1 = fm.linear %0, %w : tensor<?x3x1632xbf16>, !fm.weight<[64, 1632], f32> -> tensor<?x64xf32>
  fm.return %1 : tensor<?x64xf32>
}
fm.block @bf16(%x: tensor<?x768xf32>, %w: !fm.weight<[64, 768], bf16>) -> tensor<?x64xf32> {
  %0 = fm.quantize_rows %x : tensor<?x768xf32> -> tensor<?x1x768xbf16>
  %1 = fm.linear %0, %w : tensor<?x1x768xbf16>, !fm.weight<[64, 768], bf16> -> tensor<?x64xf32>
  fm.return %1 : tensor<?x64xf32>
}
fm.block @attention(%q: tensor<?x576xf32>, %k: tensor<?x192xf32>, %rows: !fm.rows, %state: !fm.state) -> tensor<?x576xf32> {
  %0 = fm.attention %q, %k, %k, %rows, %state kv bf16 in_tiles {heads = 9 : i64, kv_heads = 3 : i64, scale = 0.125 : f64} : tensor<?x576xf32>, tensor<?x192xf32> -> tensor<?x576xf32>
  fm.return %0 : tensor<?x576xf32>
}
