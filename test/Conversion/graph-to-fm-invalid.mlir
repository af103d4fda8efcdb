// RUN: sed 's/HEADS/3/g; s/FACTOR/2.0/' %s | not isthmus-translate --raise-graph 2>&1 | FileCheck %s --check-prefix=HEADS
// RUN: sed 's/HEADS/2/g; s/FACTOR/2.0/' %s | not isthmus-translate --raise-graph 2>&1 | FileCheck %s --check-prefix=FUNCTION
// RUN: sed 's/HEADS/2/g; s/FACTOR/0.0/' %s | isthmus-translate --raise-graph | FileCheck %s

// The first node that stands in the way is named.
// HEADS: error: node 'attend' (Attention): features are not whole heads
// FUNCTION: error: node 'head' (MatMul): a function of single elements is none of the activations that there are

// x^0 * x is x.
// CHECK: fm.block @layer
// CHECK-NOT: fm.activate
// CHECK: fm.return
graph.program @main inputs ["input_ids"] outputs ["logits"] {
^bb0(%ids: tensor<1x?xi64>):
  %table = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<64x32xf32> loc("table")
  %x = graph.node "Gather"(%table, %ids) "embed" {axis = 0 : i64} : (tensor<64x32xf32>, tensor<1x?xi64>) -> tensor<1x?x32xf32>
  %attended = graph.node "Attention"(%x, %x, %x) "attend" {is_causal = 1 : i64, q_num_heads = HEADS : i64, kv_num_heads = HEADS : i64} : (tensor<1x?x32xf32>, tensor<1x?x32xf32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>
  %power = graph.constant {value = dense<FACTOR> : tensor<f32>} : tensor<f32>
  %square = graph.node "Pow"(%attended, %power) "square" {} : (tensor<1x?x32xf32>, tensor<f32>) -> tensor<1x?x32xf32>
  %y = graph.node "Mul"(%square, %attended) "cube" {} : (tensor<1x?x32xf32>, tensor<1x?x32xf32>) -> tensor<1x?x32xf32>
  %back = graph.node "Transpose"(%table) "turn" {perm = array<i64: 1, 0>} : (tensor<64x32xf32>) -> tensor<32x64xf32>
  %logits = graph.node "MatMul"(%y, %back) "head" {} : (tensor<1x?x32xf32>, tensor<32x64xf32>) -> tensor<1x?x64xf32>
  graph.return %logits : tensor<1x?x64xf32>
}
