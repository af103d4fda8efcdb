// RUN: isthmus-opt %s --canonicalize | FileCheck %s

// CHECK-LABEL: fm.block @residual
// CHECK: %[[Y:.*]] = fm.linear %arg0, %arg1 residual %arg0
// CHECK-NOT: fm.add
// CHECK: fm.return %[[Y]]
fm.block @residual(%x: tensor<?x32xf32>, %w: !fm.weight<[32, 32], f32>) -> tensor<?x32xf32> {
  %0 = fm.linear %x, %w : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %1 = fm.add %x, %0 : tensor<?x32xf32>
  fm.return %1 : tensor<?x32xf32>
}

// A linear that is used twice stays.
// CHECK-LABEL: fm.block @two_uses
// CHECK: fm.linear
// CHECK: fm.add
// CHECK: fm.add
fm.block @two_uses(%x: tensor<?x32xf32>, %w: !fm.weight<[32, 32], f32>) -> tensor<?x32xf32> {
  %0 = fm.linear %x, %w : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %1 = fm.add %x, %0 : tensor<?x32xf32>
  %2 = fm.add %1, %0 : tensor<?x32xf32>
  fm.return %2 : tensor<?x32xf32>
}

// CHECK-LABEL: fm.block @quantize_in_producer
// CHECK: %[[Q:.*]] = fm.rms_norm {{.*}} -> !fm.qrows<32, group = 32>
// CHECK-NOT: fm.quantize_rows
// CHECK: fm.linear %[[Q]]
fm.block @quantize_in_producer(%x: tensor<?x32xf32>, %n: !fm.weight<[32], f32>, %w: !fm.weight<[32, 32], int8, group = 32>) -> tensor<?x32xf32> {
  %0 = fm.rms_norm %x, %n {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[32], f32> -> tensor<?x32xf32>
  %1 = fm.quantize_rows %0 : tensor<?x32xf32> -> !fm.qrows<32, group = 32>
  %2 = fm.linear %1, %w : !fm.qrows<32, group = 32>, !fm.weight<[32, 32], int8, group = 32> -> tensor<?x32xf32>
  fm.return %2 : tensor<?x32xf32>
}

// CHECK-LABEL: fm.block @gated
// CHECK: %[[H:.*]] = fm.gated_linear %arg0, %arg1, %arg2 : {{.*}} -> !fm.qrows<64, group = 32>
// CHECK-NOT: fm.glu
// CHECK-NOT: fm.quantize_rows
// CHECK: fm.linear %[[H]]
fm.block @gated(%x: !fm.qrows<32, group = 32>, %g: !fm.weight<[64, 32], int4, group = 32>, %u: !fm.weight<[64, 32], int4, group = 32>, %d: !fm.weight<[32, 64], int4, group = 32>) -> tensor<?x32xf32> {
  %0 = fm.linear %x, %g : !fm.qrows<32, group = 32>, !fm.weight<[64, 32], int4, group = 32> -> tensor<?x64xf32>
  %1 = fm.linear %x, %u : !fm.qrows<32, group = 32>, !fm.weight<[64, 32], int4, group = 32> -> tensor<?x64xf32>
  %2 = fm.glu %0, %1 : tensor<?x64xf32> -> tensor<?x64xf32>
  %3 = fm.quantize_rows %2 : tensor<?x64xf32> -> !fm.qrows<64, group = 32>
  %4 = fm.linear %3, %d : !fm.qrows<64, group = 32>, !fm.weight<[32, 64], int4, group = 32> -> tensor<?x32xf32>
  fm.return %4 : tensor<?x32xf32>
}

// Rows with one scale are quantised when they are whole: after a gated unit, which writes them in
// pieces, but by a norm.
// CHECK-LABEL: fm.block @whole_rows
// CHECK: %[[N:.*]] = fm.rms_norm {{.*}} -> !fm.qrows<128, group = 128>
// CHECK: %[[H:.*]] = fm.gated_linear %[[N]], {{.*}} -> tensor<?x128xf32>
// CHECK: %[[Q:.*]] = fm.quantize_rows %[[H]]
// CHECK: fm.linear %[[Q]]
fm.block @whole_rows(%x: tensor<?x128xf32>, %n: !fm.weight<[128], f32>, %w: !fm.weight<[128, 128], int8, group = 128>) -> tensor<?x128xf32> {
  %0 = fm.rms_norm %x, %n {epsilon = 1.0e-5 : f64} : tensor<?x128xf32>, !fm.weight<[128], f32> -> tensor<?x128xf32>
  %1 = fm.quantize_rows %0 : tensor<?x128xf32> -> !fm.qrows<128, group = 128>
  %2 = fm.linear %1, %w : !fm.qrows<128, group = 128>, !fm.weight<[128, 128], int8, group = 128> -> tensor<?x128xf32>
  %3 = fm.linear %1, %w : !fm.qrows<128, group = 128>, !fm.weight<[128, 128], int8, group = 128> -> tensor<?x128xf32>
  %4 = fm.glu %2, %3 : tensor<?x128xf32> -> tensor<?x128xf32>
  %5 = fm.quantize_rows %4 : tensor<?x128xf32> -> !fm.qrows<128, group = 128>
  %6 = fm.linear %5, %w : !fm.qrows<128, group = 128>, !fm.weight<[128, 128], int8, group = 128> -> tensor<?x128xf32>
  fm.return %6 : tensor<?x128xf32>
}

// Products of different rows are no gated unit, nor is one that is used elsewhere.
// CHECK-LABEL: fm.block @not_gated
// CHECK-COUNT-2: fm.glu
fm.block @not_gated(%x: tensor<?x32xf32>, %z: tensor<?x32xf32>, %g: !fm.weight<[32, 32], f32>, %u: !fm.weight<[32, 32], f32>) -> tensor<?x32xf32> {
  %0 = fm.linear %x, %g : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %1 = fm.linear %z, %u : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %2 = fm.glu %0, %1 : tensor<?x32xf32> -> tensor<?x32xf32>
  %3 = fm.linear %x, %u : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %4 = fm.glu %3, %3 : tensor<?x32xf32> -> tensor<?x32xf32>
  %5 = fm.add %2, %4 : tensor<?x32xf32>
  fm.return %5 : tensor<?x32xf32>
}

// A layer norm and an activation write rounded rows; norms of heads, which may be smaller than a
// group, do not.
// CHECK-LABEL: fm.block @rounded_rows
// CHECK: fm.layer_norm {{.*}} -> !fm.qrows<32, group = 32>
// CHECK: fm.activate gelu_erf {{.*}} -> !fm.qrows<32, group = 32>
// CHECK: fm.rms_norm {{.*}} -> tensor<?x32xf32>
// CHECK: fm.quantize_rows
fm.block @rounded_rows(%x: tensor<?x32xf32>, %n: !fm.weight<[32], f32>, %h: !fm.weight<[16], f32>, %w: !fm.weight<[32, 32], int8, group = 32>) -> tensor<?x32xf32> {
  %0 = fm.layer_norm %x, %n, %n {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[32], f32>, !fm.weight<[32], f32> -> tensor<?x32xf32>
  %1 = fm.quantize_rows %0 : tensor<?x32xf32> -> !fm.qrows<32, group = 32>
  %2 = fm.linear %1, %w : !fm.qrows<32, group = 32>, !fm.weight<[32, 32], int8, group = 32> -> tensor<?x32xf32>
  %3 = fm.activate gelu_erf %2 : tensor<?x32xf32> -> tensor<?x32xf32>
  %4 = fm.quantize_rows %3 : tensor<?x32xf32> -> !fm.qrows<32, group = 32>
  %5 = fm.linear %4, %w : !fm.qrows<32, group = 32>, !fm.weight<[32, 32], int8, group = 32> -> tensor<?x32xf32>
  %6 = fm.rms_norm %5, %h {epsilon = 1.0e-5 : f64, heads = 2 : i64} : tensor<?x32xf32>, !fm.weight<[16], f32> -> tensor<?x32xf32>
  %7 = fm.quantize_rows %6 : tensor<?x32xf32> -> !fm.qrows<32, group = 32>
  %8 = fm.linear %7, %w : !fm.qrows<32, group = 32>, !fm.weight<[32, 32], int8, group = 32> -> tensor<?x32xf32>
  fm.return %8 : tensor<?x32xf32>
}

// CHECK-LABEL: fm.block @gated_gelu
// CHECK: fm.gated_linear {{.*}} with gelu_tanh :
fm.block @gated_gelu(%x: tensor<?x32xf32>, %g: !fm.weight<[32, 32], f32>, %u: !fm.weight<[32, 32], f32>) -> tensor<?x32xf32> {
  %0 = fm.linear %x, %g : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %1 = fm.linear %x, %u : tensor<?x32xf32>, !fm.weight<[32, 32], f32> -> tensor<?x32xf32>
  %2 = fm.glu %0, %1 with gelu_tanh : tensor<?x32xf32> -> tensor<?x32xf32>
  fm.return %2 : tensor<?x32xf32>
}
