// RUN: isthmus-opt %s | isthmus-opt | FileCheck %s
// RUN: isthmus-translate --templates-to-text %s | FileCheck %s --check-prefix=TEXT

// CHECK: sched.template @layer {
sched.template @layer {
^bb0(%x: !sched.buffer<128, tokens>, %y: !sched.buffer<128, tokens>, %w: !sched.weight, %kv: !sched.state):
  // CHECK: %[[B:.*]] = sched.buffer : <64, outputs>
  %b = sched.buffer : !sched.buffer<64, outputs>
  // CHECK: sched.launch @k(%{{.*}}, %{{.*}}, %[[B]]) tiles 2 over tokens wait {scratch = 256 : i64}
  sched.launch @k(%x, %w, %b) tiles 2 over tokens wait {scratch = 256 : i64} : !sched.buffer<128, tokens>, !sched.weight, !sched.buffer<64, outputs>
  // CHECK: %[[P:.*]] = sched.buffer per_thread : <64, tokens>
  %p = sched.buffer per_thread : !sched.buffer<64, tokens>
  // CHECK: sched.launch @n(%[[P]]) tiles 1 per_partition over tokens in small wait_large replicate {rows_per_tile = 4 : i64}
  sched.launch @n(%p) tiles 1 per_partition over tokens in small wait_large replicate {rows_per_tile = 4 : i64} : !sched.buffer<64, tokens>
  // CHECK: sched.launch @m(%{{.*}}, %{{.*}}) tiles 1 over outputs {cost = #sched.cost<bytes = 12, position_ops = 9, arithmetic = int8>} :
  sched.launch @m(%kv, %y) tiles 1 over outputs {cost = #sched.cost<bytes = 12, position_ops = 9, arithmetic = int8>} : !sched.state, !sched.buffer<128, tokens>
}

// TEXT: name: "layer"
// TEXT: row_bytes: 128
// TEXT: has_input: true
// TEXT: output: 1
// TEXT: weights: 1
// TEXT: kernel: "k"
// TEXT: tiles: 2
// TEXT: wait: true
// TEXT: scratch_bytes: 256
// TEXT: kernel: "n"
// TEXT: wait: true
// TEXT: wait_large_only: true
// TEXT: replicate: true
// TEXT: steps: SMALL
// TEXT: per_partition: true
// TEXT: rows_per_tile: 4
// TEXT: cost {
// TEXT: bytes: 12
// TEXT: ops_per_position: 9
// TEXT: arithmetic: INT8
