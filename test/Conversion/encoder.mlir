// RUN: isthmus-opt %s --convert-fm-to-sched | FileCheck %s
// RUN: isthmus-opt %s --fm-limit-kv=budget=64 | FileCheck %s --check-prefix=KV

// What encoders keep lasts for a step: a budget of the cache does not concern them.
// KV: fm.attention
// KV-NOT: window
// KV: fm.program

// Rows that see their whole sequence have kernels of their own.
// CHECK-LABEL: module @kernels
// CHECK: func.func @class_token_32
// CHECK: func.func @append_kv_1_1_32_f32
// CHECK: func.func @attention_1_1_32_f32_x0_25_both
// CHECK: func.func @attention_partitions_1_1_32_f32_x0_25_both_p1
// CHECK: func.func @mean_rows_32
// CHECK: func.func @l2_norm_32
// CHECK: func.func @add_vector_32
fm.block @embed(%x: tensor<?x32xf32>, %rows: !fm.rows, %t: !fm.weight<[32], f32>) -> tensor<?x32xf32> {
  %0 = fm.class_token %x, %rows, %t : tensor<?x32xf32>, !fm.weight<[32], f32>
  fm.return %0 : tensor<?x32xf32>
}

fm.block @layer(%x: tensor<?x32xf32>, %rows: !fm.rows, %state: !fm.state) -> tensor<?x32xf32> {
  %0 = fm.attention %x, %x, %x, %rows, %state bidirectional {heads = 1 : i64, kv_heads = 1 : i64, scale = 0.25 : f64} : tensor<?x32xf32>, tensor<?x32xf32> -> tensor<?x32xf32>
  fm.return %0 : tensor<?x32xf32>
}

// Means and what follows have a row for each sequence that is wanted.
// CHECK: sched.template @head
// CHECK: sched.launch @mean_rows_32{{.*}} tiles 1 over outputs wait
// CHECK: sched.launch @l2_norm_32{{.*}} tiles 1 over outputs wait
// CHECK: sched.launch @add_vector_32{{.*}} tiles 1 over outputs wait
fm.block @head(%x: tensor<?x32xf32>, %rows: !fm.rows, %v: !fm.weight<[32], f32>) -> tensor<?x32xf32> {
  %0 = fm.mean_rows %x, %rows : tensor<?x32xf32>
  %1 = fm.l2_norm %0 : tensor<?x32xf32>
  %2 = fm.add_vector %1, %v : tensor<?x32xf32>, !fm.weight<[32], f32>
  fm.return %2 : tensor<?x32xf32>
}

fm.param @v : !fm.weight<[32], f32> {
  %0 = fm.source "m" at 0 as "f32" : !fm.weight<[32], f32>
  fm.yield %0 : !fm.weight<[32], f32>
}

fm.program @image(%x: tensor<?x32xf32>, %rows: !fm.rows) -> tensor<?x32xf32> {
  %0 = fm.call @embed(%x, %rows) params [@v] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  %1 = fm.call @layer(%0, %rows) state 0 params [] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  %2 = fm.call @layer(%1, %rows) state 0 params [] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  %3 = fm.call @head(%2, %rows) params [@v] : (tensor<?x32xf32>, !fm.rows) -> tensor<?x32xf32>
  fm.return %3 : tensor<?x32xf32>
}
