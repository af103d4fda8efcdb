// RUN: isthmus-opt %s | isthmus-opt | FileCheck %s
// RUN: isthmus-opt --mlir-print-op-generic %s | isthmus-opt | FileCheck %s

// CHECK-LABEL: fm.param @table : !fm.weight<[64, 32], f32>
// CHECK: fm.source "m.gguf" at 128 as "q8_0" : <[64, 32], f32>
fm.param @table : !fm.weight<[64, 32], f32> {
  %0 = fm.source "m.gguf" at 128 as "q8_0" : !fm.weight<[64, 32], f32>
  fm.yield %0 : !fm.weight<[64, 32], f32>
}
// CHECK-LABEL: fm.param @q : !fm.weight<[32, 32], int4, group = 32>
fm.param @q : !fm.weight<[32, 32], int4, group = 32> {
  %0 = fm.source "m.gguf" at 0 as "f16" : !fm.weight<[32, 32], f32>
  // CHECK: fm.unpermute_rows %{{.*}} {heads = 2 : i64}
  %1 = fm.unpermute_rows %0 {heads = 2 : i64} : !fm.weight<[32, 32], f32>
  // CHECK: fm.prune %{{.*}} "2:4"
  %2 = fm.prune %1 "2:4" : !fm.weight<[32, 32], f32>
  // CHECK: fm.quantize
  %3 = fm.quantize %2 : !fm.weight<[32, 32], f32> -> !fm.weight<[32, 32], int4, group = 32>
  fm.yield %3 : !fm.weight<[32, 32], int4, group = 32>
}

// CHECK-LABEL: fm.param @k
fm.param @k : !fm.weight<[32, 48], f32> {
  %0 = fm.source "m.safetensors" at 0 as "f32" : !fm.weight<[48, 96], f32>
  // CHECK: fm.transpose %{{.*}} : <[48, 96], f32> -> <[96, 48], f32>
  %1 = fm.transpose %0 : !fm.weight<[48, 96], f32> -> !fm.weight<[96, 48], f32>
  // CHECK: fm.slice_rows %{{.*}} from 32 : <[96, 48], f32> -> <[32, 48], f32>
  %2 = fm.slice_rows %1 from 32 : !fm.weight<[96, 48], f32> -> !fm.weight<[32, 48], f32>
  // CHECK: fm.add_constant %{{.*}} 1.0
  %3 = fm.add_constant %2 1.0 : !fm.weight<[32, 48], f32>
  fm.yield %3 : !fm.weight<[32, 48], f32>
}

// CHECK-LABEL: fm.block @embed
fm.block @embed(%ids: tensor<?xi32>, %rows: !fm.rows, %w: !fm.weight<[64, 32], f32>) -> tensor<?x32xf32> {
  // CHECK: fm.embedding
  %0 = fm.embedding %ids, %w : tensor<?xi32>, !fm.weight<[64, 32], f32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// CHECK-LABEL: fm.block @layer
fm.block @layer(%x: tensor<?x32xf32>, %rows: !fm.rows, %kv: !fm.state, %n: !fm.weight<[32], f32>,
                %w: !fm.weight<[32, 32], int4, group = 32>) -> tensor<?x32xf32> {
  // CHECK: fm.rms_norm %{{.*}} -> !fm.qrows<32, group = 32>
  %0 = fm.rms_norm %x, %n {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[32], f32> -> !fm.qrows<32, group = 32>
  // CHECK: fm.linear %{{.*}}, %{{.*}} bias %{{.*}} residual %{{.*}} :
  %1 = fm.linear %0, %w bias %n residual %x : !fm.qrows<32, group = 32>, !fm.weight<[32, 32], int4, group = 32> bias !fm.weight<[32], f32> residual tensor<?x32xf32> -> tensor<?x32xf32>
  // CHECK: fm.rotary
  %2 = fm.rotary %1, %rows {head_dim = 16 : i64, theta = 1.0e4 : f64} : tensor<?x32xf32>
  // CHECK: fm.attention
  %3 = fm.attention %2, %1, %1, %rows, %kv {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.25 : f64} : tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
  // CHECK: fm.glu
  %4 = fm.glu %3, %1 : tensor<?x32xf32> -> tensor<?x32xf32>
  // CHECK: fm.select_rows
  %5 = fm.select_rows %4, %rows : tensor<?x32xf32>
  fm.return %5 : tensor<?x32xf32>
}

// CHECK-LABEL: fm.block @others
fm.block @others(%x: tensor<?x32xf32>, %rows: !fm.rows, %n: !fm.weight<[32], f32>, %h: !fm.weight<[16], f32>,
                 %t: !fm.weight<[64, 32], f32>) -> tensor<?x32xf32> {
  // CHECK: fm.position_embedding
  %0 = fm.position_embedding %x, %rows, %t : tensor<?x32xf32>, !fm.weight<[64, 32], f32>
  // CHECK: fm.layer_norm
  %1 = fm.layer_norm %0, %n, %n {epsilon = 1.0e-5 : f64} : tensor<?x32xf32>, !fm.weight<[32], f32>, !fm.weight<[32], f32> -> tensor<?x32xf32>
  // CHECK: fm.rms_norm {{.*}}heads = 2 : i64
  %2 = fm.rms_norm %1, %h {epsilon = 1.0e-5 : f64, heads = 2 : i64} : tensor<?x32xf32>, !fm.weight<[16], f32> -> tensor<?x32xf32>
  // CHECK: fm.activate gelu_tanh
  %3 = fm.activate gelu_tanh %2 : tensor<?x32xf32> -> tensor<?x32xf32>
  // CHECK: fm.glu %{{.*}}, %{{.*}} with quick_gelu :
  %4 = fm.glu %3, %2 with quick_gelu : tensor<?x32xf32> -> tensor<?x32xf32>
  // CHECK: fm.scale %{{.*}} by 2.5
  %5 = fm.scale %4 by 2.5 : tensor<?x32xf32>
  // CHECK: fm.rotary {{.*}}factors = array<f32: 1.000000e+00, 8.000000e+00>
  %6 = fm.rotary %5, %rows {head_dim = 4 : i64, theta = 1.0e4 : f64, factors = array<f32: 1.0, 8.0>} : tensor<?x32xf32>
  fm.return %6 : tensor<?x32xf32>
}

// Patches of an image, and what becomes of them.
// CHECK-LABEL: fm.block @encoder
fm.block @encoder(%x: tensor<?x32xf32>, %rows: !fm.rows, %state: !fm.state, %v: !fm.weight<[32], f32>) -> tensor<?x32xf32> {
  // CHECK: fm.class_token %{{.*}}, %{{.*}}, %{{.*}} : tensor<?x32xf32>, <[32], f32>
  %0 = fm.class_token %x, %rows, %v : tensor<?x32xf32>, !fm.weight<[32], f32>
  // CHECK: fm.add_vector %{{.*}}, %{{.*}} : tensor<?x32xf32>, <[32], f32>
  %1 = fm.add_vector %0, %v : tensor<?x32xf32>, !fm.weight<[32], f32>
  // CHECK: fm.attention {{.*}} bidirectional kv bf16 {
  %2 = fm.attention %1, %1, %1, %rows, %state bidirectional kv bf16 {heads = 2 : i64, kv_heads = 2 : i64, scale = 0.25 : f64} : tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
  // CHECK: fm.mean_rows
  %3 = fm.mean_rows %2, %rows : tensor<?x32xf32>
  // CHECK: fm.l2_norm
  %4 = fm.l2_norm %3 : tensor<?x32xf32>
  fm.return %4 : tensor<?x32xf32>
}

fm.param @norm : !fm.weight<[32], f32> {
  %0 = fm.source "m.gguf" at 0 as "f32" : !fm.weight<[32], f32>
  fm.yield %0 : !fm.weight<[32], f32>
}

// CHECK-LABEL: fm.program @main
fm.program @main(%ids: tensor<?xi32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  // CHECK: fm.call @embed(%{{.*}}, %{{.*}}) params [@table] :
  %0 = fm.call @embed(%ids, %rows) params [@table] : (tensor<?xi32>, !fm.rows) -> tensor<?x32xf32>
  // CHECK: fm.call @layer(%{{.*}}, %{{.*}}) state 3 params [@norm, @q] on @board :
  %1 = fm.call @layer(%0, %rows) state 3 params [@norm, @q] on @board : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  fm.return %1 : tensor<?x32xf32>
}
