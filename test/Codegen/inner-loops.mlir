// What the inner loops of the products do: an LLVM upgrade must not quietly lose the speed.
// One row takes several panels at once and fetches ahead; many rows take as many as the registers
// hold. With 32 vector registers of 512 bits nothing is shuffled, or spilled where many rows make arithmetic
// set the pace, and nibbles cost an AND and a shift.
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-avx512-vnni -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=VNNI --implicit-check-not='linear_{{(int8|f).*}} {{[1-9][0-9]*}} spills' --implicit-check-not='linear_{{(int8|int4_|f).*}} {{[1-9][0-9]*}} shuffles'
// RUN: FileCheck %s --check-prefix=UNPACK < %t.s
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-avx512-bf16 -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=BF16 --implicit-check-not='linear_bf16{{.*}} {{[1-9][0-9]*}} spills'
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-amx -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=AMX
// RUN: FileCheck %s --check-prefix=TILES < %t.s
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-avx2 -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=AVX2
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-avx-vnni -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=AVXVNNI
// RUN: isthmus-opt %s --convert-fm-to-sched=target=aarch64-dotprod -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=NEON
// RUN: FileCheck %s --check-prefix=LANES < %t.s

// RUN: isthmus-opt %s --convert-fm-to-sched=target=aarch64-i8mm -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=I8MM
// RUN: FileCheck %s --check-prefix=MATRIX < %t.s

// VNNI: linear_int4_128x256: 183 instructions, 32 dots, 8 fmas, 20 prefetches, 11 spills, 0 shuffles
// VNNI: linear_int4_128x256: 248 instructions, 128 dots, 32 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_int8_128x256: 115 instructions, 32 dots, 0 fmas, 32 prefetches, 0 spills, 0 shuffles
// VNNI: linear_int8_128x256: 182 instructions, 128 dots, 8 fmas, 0 prefetches, 0 spills, 0 shuffles
// With one scale a row nothing but dot products, their loads, and a bit flipped in the weights.
// VNNI: linear_int8rows_128x256: 212 instructions, 64 dots, 0 fmas, 64 prefetches, 0 spills, 0 shuffles
// VNNI: linear_int8rows_128x256: 420 instructions, 256 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// Of nibbles with one scale no sum is a float, and a dot product takes step and offset; for many
// rows they become bytes, and then nothing tells them from int8.
// VNNI: linear_int4rows_128x256: 146 instructions, 37 dots, 0 fmas, 20 prefetches, 0 spills, 0 shuffles
// VNNI: linear_int4rows_128x256: 125 instructions, 80 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_int4rows_128x256: 55 instructions, 0 dots, 0 fmas, 4 prefetches, 0 spills, 1 shuffles
// VNNI: linear_int4rows_128x256: 420 instructions, 256 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_f16_128x256: 48 instructions, 0 dots, 16 fmas, 8 prefetches, 0 spills, 0 shuffles
// VNNI: linear_f16_128x256: 158 instructions, 0 dots, 96 fmas, 2 prefetches, 0 spills, 0 shuffles
// Without products of pairs rows of bf16 are f32, which multiply-adds broadcast themselves.
// VNNI: linear_bf16_128x256: 340 instructions, 0 dots, 192 fmas, 2 prefetches, 8 spills, 0 shuffles

// BF16: linear_bf16_128x256: 40 instructions, 0 dots, 16 fmas, 16 prefetches, 0 spills, 0 shuffles
// BF16: linear_bf16_128x256: 158 instructions, 0 dots, 96 fmas, 2 prefetches, 0 spills, 0 shuffles
// BF16: attention_9_9_64_bf16: 24 instructions, 0 dots, 8 fmas, 4 prefetches, 0 spills, 0 shuffles
// BF16: attention_9_9_64_bf16: 29 instructions, 0 dots, 16 fmas, 0 prefetches, 0 spills, 0 shuffles
// BF16: attention_partitions_9_9_64_bf16_p1: 27 instructions, 0 dots, 8 fmas, 8 prefetches, 0 spills, 0 shuffles
// BF16: attention_partitions_9_9_64_bf16_p1: 15 instructions, 0 dots, 4 fmas, 4 prefetches, 0 spills, 0 shuffles

// int8 keys and values are widened to pairs of int16.
// VNNI: attention_9_9_64_int8: 22 instructions, 8 dots, 0 fmas, 2 prefetches, 0 spills, 0 shuffles
// VNNI: attention_9_9_64_int8: 29 instructions, 16 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: attention_partitions_9_9_64_int8_p1: 37 instructions, 2 dots, 0 fmas, 4 prefetches, 0 spills, 0 shuffles
// VNNI: attention_partitions_9_9_64_int8_p1: 17 instructions, 4 dots, 0 fmas, 2 prefetches, 0 spills, 0 shuffles

// UNPACK-LABEL: {{^}}linear_int4_128x256:
// UNPACK: vpand{{[dq]}} %zmm{{[0-9]+}}, %zmm[[A:[0-9]+]], %zmm[[LOW:[0-9]+]]
// UNPACK-DAG: vpdpbusd {{.*}}%zmm[[LOW]], %zmm
// UNPACK-DAG: vpsrlw $4, %zmm[[A]], %zmm[[B:[0-9]+]]
// UNPACK: vpand{{[dq]}} %zmm{{[0-9]+}}, %zmm[[B]], %zmm[[HIGH:[0-9]+]]
// UNPACK: vpdpbusd {{.*}}%zmm[[HIGH]], %zmm
// Many rows: the activations are broadcast by the dot product itself.
// UNPACK: vpdpbusd {{.*}}{1to16}

// 16 rows a tile product, sums come back through memory; those of nibbles, which
// are unpacked before, for two groups of the weight at once.
// AMX: linear_int4_128x256: 198 instructions, 2 dots, 64 fmas, 0 prefetches, 41 spills, 0 shuffles
// AMX: linear_int8_128x256: 88 instructions, 1 dots, 16 fmas, 4 prefetches, 3 spills, 0 shuffles
// With one scale a row they stay in tiles, two of rows by two of weights, while
// rows of the block before are finished: one a step, or eight where four steps
// have time for 32. (Spills are addresses.)
// AMX: linear_int4rows_128x256: 55 instructions, 0 dots, 0 fmas, 4 prefetches, 0 spills
// AMX: linear_int4rows_128x256: {{1[0-9][0-9]}} instructions, 4 dots, 0 fmas, 0 prefetches, {{[0-9]}} spills, 0 shuffles
// AMX: linear_int8rows_128x2048: 65 instructions, 4 dots, 0 fmas, 8 prefetches, 8 spills, 0 shuffles
// TILES-LABEL: {{^}}linear_int8rows_128x2048_rows:
// TILES: tilezero
// TILES-COUNT-4: tileloadd
// TILES-NEXT: tdpbssd %tmm[[W:[0-9]]], %tmm[[A:[0-9]]], %tmm
// TILES-NEXT: tdpbssd %tmm[[W]], %tmm[[B:[0-9]]], %tmm
// TILES-NEXT: tdpbssd %tmm[[V:[0-9]]], %tmm[[A]], %tmm
// TILES-NEXT: tdpbssd %tmm[[V]], %tmm[[B]], %tmm
// TILES-NOT: tilestored
// TILES-COUNT-2: vcvtdq2ps
// TILES-NOT: tilestored
// TILES: prefetcht1
// TILES-NOT: tilestored
// TILES: jb

// 16 registers: sums are taken in the order that needs the fewest (KernelBuilder::inOrder). Of many
// rows both halves of 16 outputs take what was broadcast of a row; what spills are totals.
// AVX2: linear_int4_128x256: 106 instructions, 16 dots, 4 fmas, 5 prefetches, 0 spills, 0 shuffles
// AVX2: linear_int4_128x256: 519 instructions, 128 dots, 32 fmas, 0 prefetches, 44 spills, 0 shuffles
// AVX2: linear_int8_128x256: 687 instructions, 128 dots, 8 fmas, 0 prefetches, 20 spills, 0 shuffles
// AVX2: linear_int8rows_128x256: 228 instructions, 32 dots, 0 fmas, 16 prefetches, 0 spills, 0 shuffles
// AVX2: linear_int8rows_128x256: 646 instructions, 128 dots, 0 fmas, 0 prefetches, 4 spills, 0 shuffles
// Bytes of seven bits have no signs to move.
// AVX2: linear_int7rows_128x256: 164 instructions, 32 dots, 0 fmas, 16 prefetches, 0 spills, 0 shuffles
// AVX2: linear_int7rows_128x256: 484 instructions, 128 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// Nibbles take fewer instructions than bytes, also of many rows.
// AVX2: linear_int4rows_128x256: 95 instructions, 16 dots, 0 fmas, 5 prefetches, 0 spills, 0 shuffles
// AVX2: linear_int4rows_128x256: 258 instructions, 64 dots, 0 fmas, 0 prefetches, 19 spills, 0 shuffles
// AVX2: linear_f16_128x256: 85 instructions, 0 dots, 48 fmas, 1 prefetches, 0 spills, 0 shuffles
// AVX2: linear_bf16_128x256: 176 instructions, 0 dots, 96 fmas, 1 prefetches, 0 spills, 0 shuffles
// AVX2: attention_9_9_64_bf16: 40 instructions, 0 dots, 16 fmas, 2 prefetches, 0 spills, 0 shuffles
// AVX2: attention_9_9_64_bf16: 35 instructions, 0 dots, 16 fmas, 0 prefetches, 0 spills, 0 shuffles
// A few queries take more positions at once, and fetch the next page beside them.
// AVX2: attention_partitions_9_9_64_bf16_p1: 31 instructions, 0 dots, 8 fmas, 2 prefetches, 0 spills, 0 shuffles
// AVX2: attention_partitions_9_9_64_bf16_p1: 61 instructions, 0 dots, 16 fmas, 4 prefetches, 4 spills, 0 shuffles
// AVXVNNI: linear_int4_128x256: {{[0-9]+}} instructions, 16 dots, 4 fmas, 5 prefetches
// AVXVNNI: linear_int8_128x256: {{[0-9]+}} instructions, 16 dots, 0 fmas, 9 prefetches, 0 spills, 0 shuffles
// AVXVNNI: linear_int8rows_128x256: 228 instructions, 128 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// NEON: linear_int4_128x256: {{[0-9]+}} instructions, 64 dots, 16 fmas, 10 prefetches
// NEON: linear_int8_128x256: {{[0-9]+}} instructions, 64 dots, 0 fmas, 16 prefetches
// NEON: linear_int8_128x256: 90 instructions, 64 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// NEON: linear_int8rows_128x256: 303 instructions, 256 dots, 0 fmas, 0 prefetches, 0 spills, 0 shuffles
// NEON: linear_int4rows_128x256: {{[0-9]+}} instructions, 64 dots, 0 fmas, 10 prefetches
// LANES-LABEL: {{^}}linear_int8_128x256:
// LANES: sdot v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.4b[{{[0-3]}}]
// Many rows: sums of two rows and two outputs; a register of weights costs a shuffle.
// I8MM: linear_int8_128x256: 125 instructions, 64 dots, 0 fmas, 16 prefetches
// I8MM: linear_int8_128x256: 173 instructions, 64 dots, 0 fmas, 0 prefetches, {{[0-2]}} spills, 52 shuffles
// MATRIX-LABEL: {{^}}linear_int8_128x256:
// MATRIX: sdot v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.4b[{{[0-3]}}]
// MATRIX: smmla v{{[0-9]+}}.4s, v{{[0-9]+}}.16b, v{{[0-9]+}}.16b

fm.block @int4(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], int4, group = 32>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], int4, group = 32> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @int8(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], int8, group = 64>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], int8, group = 64> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @int8_rows(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], int8, group = 256>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 256>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 256>, !fm.weight<[128, 256], int8, group = 256> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @int7_rows(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], int7, group = 256>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 256>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 256>, !fm.weight<[128, 256], int7, group = 256> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @int4_rows(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], int4, group = 256>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 256>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 256>, !fm.weight<[128, 256], int4, group = 256> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @int8_long_rows(%x: tensor<?x2048xf32>, %w: !fm.weight<[128, 2048], int8, group = 2048>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x2048xf32> -> !fm.qrows<2048, group = 2048>
  %1 = fm.linear %0, %w : !fm.qrows<2048, group = 2048>, !fm.weight<[128, 2048], int8, group = 2048> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @f16(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], f16>) -> tensor<?x128xf32> {
  %0 = fm.linear %x, %w : tensor<?x256xf32>, !fm.weight<[128, 256], f16> -> tensor<?x128xf32>
  fm.return %0 : tensor<?x128xf32>
}
fm.block @bf16(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], bf16>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> tensor<?x256xbf16>
  %1 = fm.linear %0, %w : tensor<?x256xbf16>, !fm.weight<[128, 256], bf16> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @attention(%q: tensor<?x576xf32>, %rows: !fm.rows, %state: !fm.state) -> tensor<?x576xf32> {
  %k = fm.rotary %q, %rows {head_dim = 64 : i64, theta = 1.0e4 : f64} : tensor<?x576xf32>
  %0 = fm.attention %q, %k, %k, %rows, %state kv bf16 {heads = 9 : i64, kv_heads = 9 : i64, scale = 0.125 : f64} : tensor<?x576xf32>, tensor<?x576xf32> -> tensor<?x576xf32>
  fm.return %0 : tensor<?x576xf32>
}
fm.block @attention_int8(%q: tensor<?x576xf32>, %rows: !fm.rows, %state: !fm.state) -> tensor<?x576xf32> {
  %k = fm.rotary %q, %rows {head_dim = 64 : i64, theta = 1.0e4 : f64} : tensor<?x576xf32>
  %0 = fm.attention %q, %k, %k, %rows, %state kv int8 {heads = 9 : i64, kv_heads = 9 : i64, scale = 0.125 : f64} : tensor<?x576xf32>, tensor<?x576xf32> -> tensor<?x576xf32>
  fm.return %0 : tensor<?x576xf32>
}
