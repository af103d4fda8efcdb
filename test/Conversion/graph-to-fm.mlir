// RUN: isthmus-translate --raise-graph %s | FileCheck %s

// A layer as exporters spell it: norm, products, attention, an activation.
// Parameters are found behind what is done to them.
// CHECK: fm.param @table : !fm.weight<[64, 32], f32>
// CHECK-NEXT: fm.source "m.onnx" at 64 as "f32"
// CHECK: fm.param @norm : !fm.weight<[32], f32>
// CHECK-NEXT: fm.source "m.onnx" at 9000 as "f32"
// The second third of a fused projection.
// CHECK: fm.param @qkv.32 : !fm.weight<[32, 32], f32>
// CHECK-NEXT: %[[STORED:.*]] = fm.source "m.onnx" at 10000 as "f16" : <[32, 96], f32>
// CHECK-NEXT: %[[TURNED:.*]] = fm.transpose %[[STORED]]
// CHECK-NEXT: fm.slice_rows %[[TURNED]] from 32
// Four bits in blocks.
// CHECK: fm.param @q : !fm.weight<[32, 32], f32>
// CHECK-NEXT: %[[Q:.*]] = fm.source "m.onnx" at 20000 as "u4" : <[32, 32], f32>
// CHECK-NEXT: %[[CENTERED:.*]] = fm.add_constant %[[Q]] -8.0
// CHECK-NEXT: %[[SCALES:.*]] = fm.source "m.onnx" at 30000 as "f32" : <[32, 2], f32>
// CHECK-NEXT: fm.dequantize %[[CENTERED]] by %[[SCALES]]

// CHECK-LABEL: fm.block @embed
// CHECK: fm.embedding
// CHECK-LABEL: fm.block @layer
// CHECK: %[[NORMED:.*]] = fm.rms_norm %arg0, %{{.*}} {epsilon = 9.99{{.*}}E-6 : f64}
// CHECK: fm.linear %[[NORMED]]
// CHECK: %[[ATTENDED:.*]] = fm.attention %{{.*}} {heads = 2 : i64, kv_heads = 2 : i64, scale = 2.500000e-01 : f64}
// CHECK: %[[OUT:.*]] = fm.linear %[[ATTENDED]]
// CHECK: %[[ACTIVE:.*]] = fm.activate gelu_erf %[[OUT]]
// CHECK: fm.add %arg0, %[[ACTIVE]]
// CHECK-LABEL: fm.block @head
// CHECK: fm.select_rows
// CHECK: fm.linear
// CHECK-LABEL: fm.program @main
// CHECK-SAME: fm.context_length = 4096 : i64, fm.vocab_size = 64 : i64
// CHECK: fm.call @layer({{.*}}) state 0 params [@norm, @qkv.0, @qkv.32, @qkv.64, @q]
graph.program @main inputs ["input_ids"] outputs ["logits"] {
^bb0(%ids: tensor<1x?xi64>):
  %table = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<64x32xf32> loc("table")
  %x = graph.node "Gather"(%table, %ids) {axis = 0 : i64} : (tensor<64x32xf32>, tensor<1x?xi64>) -> tensor<1x?x32xf32>

  // x / sqrt(mean(x * x) + 1e-5) * weight
  %last = graph.constant {value = dense<-1> : tensor<1xi64>} : tensor<1xi64>
  %epsilon = graph.constant {value = dense<1.0e-5> : tensor<f32>} : tensor<f32>
  %norm = graph.constant {file = "m.onnx", offset = 9000 : i64} : tensor<32xf32> loc("norm")
  %square = graph.node "Mul"(%x, %x) {} : (tensor<1x?x32xf32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>
  %mean = graph.node "ReduceMean"(%square, %last) {} : (tensor<1x?x32xf32>, tensor<1xi64>) -> tensor<1x?x1xf32>
  %sum = graph.node "Add"(%mean, %epsilon) {} : (tensor<1x?x1xf32>, tensor<f32>) -> tensor<1x?x1xf32>
  %root = graph.node "Sqrt"(%sum) {} : (tensor<1x?x1xf32>) -> tensor<1x?x1xf32>
  %scaled = graph.node "Div"(%x, %root) {} : (tensor<1x?x32xf32>, tensor<1x?x1xf32>) -> tensor<1x?x32xf32>
  %normed = graph.node "Mul"(%scaled, %norm) {} : (tensor<1x?x32xf32>, tensor<32xf32>) -> tensor<1x?x32xf32>

  %qkv = graph.constant {file = "m.onnx", offset = 10000 : i64} : tensor<32x96xf16> loc("qkv")
  %wide = graph.node "Cast"(%qkv) {to = 1 : i64} : (tensor<32x96xf16>) -> tensor<32x96xf32>
  %all = graph.node "MatMul"(%normed, %wide) {} : (tensor<1x?x32xf32>, tensor<32x96xf32>) -> tensor<1x?x96xf32>
  %parts:3 = graph.node "Split"(%all) {axis = -1 : i64, num_outputs = 3 : i64} : (tensor<1x?x96xf32>) -> (tensor<1x?x32xf32>, tensor<1x?x32xf32>, tensor<1x?x32xf32>)
  %attended = graph.node "Attention"(%parts#0, %parts#1, %parts#2) {is_causal = 1 : i64, q_num_heads = 2 : i64, kv_num_heads = 2 : i64} : (tensor<1x?x32xf32>, tensor<1x?x32xf32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>

  %q = graph.constant {file = "m.onnx", offset = 20000 : i64} : tensor<32x32xui4> loc("q")
  %scales = graph.constant {file = "m.onnx", offset = 30000 : i64} : tensor<32x2xf32>
  %eight = graph.constant {value = dense<8> : tensor<32x2xui4>} : tensor<32x2xui4>
  %values = graph.node "DequantizeLinear"(%q, %scales, %eight) {axis = 1 : i64, block_size = 16 : i64} : (tensor<32x32xui4>, tensor<32x2xf32>, tensor<32x2xui4>) -> tensor<32x32xf32>
  %turned = graph.node "Transpose"(%values) {perm = array<i64: 1, 0>} : (tensor<32x32xf32>) -> tensor<32x32xf32>
  %out = graph.node "MatMul"(%attended, %turned) {} : (tensor<1x?x32xf32>, tensor<32x32xf32>) -> tensor<1x?x32xf32>

  // y / 2 * (1 + erf(y / sqrt(2)))
  %two = graph.constant {value = dense<2.0> : tensor<f32>} : tensor<f32>
  %one = graph.constant {value = dense<1.0> : tensor<f32>} : tensor<f32>
  %rooted = graph.node "Sqrt"(%two) {} : (tensor<f32>) -> tensor<f32>
  %over = graph.node "Div"(%out, %rooted) {} : (tensor<1x?x32xf32>, tensor<f32>) -> tensor<1x?x32xf32>
  %erf = graph.node "Erf"(%over) {} : (tensor<1x?x32xf32>) -> tensor<1x?x32xf32>
  %more = graph.node "Add"(%one, %erf) {} : (tensor<f32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>
  %half = graph.node "Div"(%out, %two) {} : (tensor<1x?x32xf32>, tensor<f32>) -> tensor<1x?x32xf32>
  %gelu = graph.node "Mul"(%half, %more) {} : (tensor<1x?x32xf32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>
  %y = graph.node "Add"(%x, %gelu) {} : (tensor<1x?x32xf32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>

  %back = graph.node "Transpose"(%table) {perm = array<i64: 1, 0>} : (tensor<64x32xf32>) -> tensor<32x64xf32>
  %logits = graph.node "MatMul"(%y, %back) {} : (tensor<1x?x32xf32>, tensor<32x64xf32>) -> tensor<1x?x64xf32>
  graph.return %logits : tensor<1x?x64xf32>
}
