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
