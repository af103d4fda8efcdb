// The inner loops of products with blocks of GGUF, kept as a file has them: for each kernel the
// loop of one row, of two panels at once, and the one of many rows. See inner-loops.mlir.
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-avx2 -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=AVX2
// RUN: isthmus-opt %s --convert-fm-to-sched=target=x86-64-avx512-vnni -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=VNNI
// RUN: isthmus-opt %s --convert-fm-to-sched=target=aarch64-dotprod -o %t.mlir
// RUN: isthmus-translate --kernels-to-asm %t.mlir -o %t.s
// RUN: awk -f %S/loops.awk %t.s | FileCheck %s --check-prefix=NEON

// As int8 in groups of 32.
// AVX2: linear_q8_0_128x256: 127 instructions, 16 dots, 2 fmas, 9 prefetches, 0 spills, 0 shuffles
// AVX2: linear_q8_0_128x256: 705 instructions, 128 dots, 16 fmas, 0 prefetches, 36 spills, 0 shuffles
// Fewer instructions than int4: a scale is converted at once, and the zero of nibbles is where
// their sums start.
// AVX2: linear_q4_0_128x256: 98 instructions, 16 dots, 2 fmas, 5 prefetches, 0 spills, 0 shuffles
// AVX2: linear_q4_0_128x256: 498 instructions, 128 dots, 16 fmas, 0 prefetches, 34 spills, 0 shuffles
// AVX2: linear_q4_1_128x256: 101 instructions, 16 dots, 4 fmas, 5 prefetches, 0 spills, 0 shuffles
// AVX2: linear_q4_1_128x256: 500 instructions, 128 dots, 32 fmas, 0 prefetches, 44 spills, 0 shuffles
// Upper bits take a shift, a mask and an or each, which many rows share.
// AVX2: linear_q5_0_128x256: 164 instructions, 16 dots, 2 fmas, 6 prefetches, 2 spills, 0 shuffles
// AVX2: linear_q5_0_128x256: 661 instructions, 128 dots, 16 fmas, 0 prefetches, 74 spills, 0 shuffles
// AVX2: linear_q4_k_128x256: 110 instructions, 16 dots, 4 fmas, 5 prefetches, 0 spills, 0 shuffles
// AVX2: linear_q4_k_128x256: 520 instructions, 128 dots, 32 fmas, 0 prefetches, 42 spills, 0 shuffles
// Half as many inputs a scale.
// AVX2: linear_q6_k_128x256: 91 instructions, 8 dots, 2 fmas, 4 prefetches, 0 spills, 0 shuffles
// AVX2: linear_q6_k_128x256: 808 instructions, 128 dots, 32 fmas, 0 prefetches, 123 spills, 0 shuffles

// The dots beyond 32 and 128 make what sums start from.
// VNNI: linear_q8_0_128x256: 138 instructions, 32 dots, 4 fmas, 36 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q8_0_128x256: 287 instructions, 128 dots, 16 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q4_0_128x256: 150 instructions, 33 dots, 4 fmas, 20 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q4_0_128x256: 246 instructions, 136 dots, 16 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q4_1_128x256: 162 instructions, 32 dots, 8 fmas, 20 prefetches, 2 spills, 0 shuffles
// VNNI: linear_q4_1_128x256: 240 instructions, 128 dots, 32 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q5_0_128x256: 219 instructions, 33 dots, 4 fmas, 24 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q5_0_128x256: 289 instructions, 136 dots, 16 fmas, 0 prefetches, 8 spills, 0 shuffles
// VNNI: linear_q4_k_128x256: 179 instructions, 32 dots, 8 fmas, 24 prefetches, 10 spills, 0 shuffles
// VNNI: linear_q4_k_128x256: 249 instructions, 128 dots, 32 fmas, 0 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q6_k_128x256: 134 instructions, 17 dots, 4 fmas, 20 prefetches, 0 spills, 0 shuffles
// VNNI: linear_q6_k_128x256: 422 instructions, 160 dots, 32 fmas, 0 prefetches, 48 spills, 0 shuffles

// NEON: linear_q8_0_128x256: 121 instructions, 64 dots, 8 fmas, 0 prefetches, 0 spills, 0 shuffles
// NEON: linear_q4_0_128x256: 160 instructions, 64 dots, 8 fmas, 0 prefetches, 0 spills, 0 shuffles
// NEON: linear_q4_1_128x256: {{[0-9]+}} instructions, 64 dots, 16 fmas, 0 prefetches
// NEON: linear_q5_0_128x256: {{[0-9]+}} instructions, 64 dots, 8 fmas, 0 prefetches
// NEON: linear_q4_k_128x256: {{[0-9]+}} instructions, 64 dots, 16 fmas, 0 prefetches
// NEON: linear_q6_k_128x256: {{[0-9]+}} instructions, 32 dots, 8 fmas, 0 prefetches

fm.block @q8_0(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], q8_0, group = 32>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], q8_0, group = 32> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @q4_0(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], q4_0, group = 32>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], q4_0, group = 32> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @q4_1(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], q4_1, group = 32>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], q4_1, group = 32> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @q5_0(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], q5_0, group = 32>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], q5_0, group = 32> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @q4_k(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], q4_k, group = 32>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], q4_k, group = 32> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
fm.block @q6_k(%x: tensor<?x256xf32>, %w: !fm.weight<[128, 256], q6_k, group = 16>) -> tensor<?x128xf32> {
  %0 = fm.quantize_rows %x : tensor<?x256xf32> -> !fm.qrows<256, group = 64>
  %1 = fm.linear %0, %w : !fm.qrows<256, group = 64>, !fm.weight<[128, 256], q6_k, group = 16> -> tensor<?x128xf32>
  fm.return %1 : tensor<?x128xf32>
}
