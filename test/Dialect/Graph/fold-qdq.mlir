// RUN: isthmus-opt --graph-fold-qdq %s | FileCheck %s

// CHECK-LABEL: graph.program @main
// CHECK-SAME: inputs ["x", "v"]
// CHECK: %[[W:.*]] = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<8x4xi8>
// CHECK: %[[SUMS:.*]] = graph.node "MatMulInteger"(%arg0, %[[W]], %{{.*}}, %{{.*}}) "product" {} : (tensor<?x8xui8>, tensor<8x4xi8>, tensor<ui8>, tensor<4xi8>) -> tensor<?x4xi32>
// CHECK: %[[FLOATS:.*]] = graph.node "Cast"(%[[SUMS]]) "product" {to = 1 : i64}
// CHECK: %[[SCALE:.*]] = graph.node "Mul"(%{{.*}}, %{{.*}}) "product" {} : (tensor<f32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK: graph.node "Mul"(%[[FLOATS]], %[[SCALE]])
// A product of what is no constant stays, and what it takes.
// CHECK: graph.node "DequantizeLinear"(%arg1
// CHECK: graph.node "MatMul"
graph.program @main inputs ["x", "v"] outputs ["y", "z"] {
^bb0(%x: tensor<?x8xui8>, %v: tensor<8x4xi8>):
  %w = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<8x4xi8>
  %sx = graph.constant {value = dense<0.5> : tensor<f32>} : tensor<f32>
  %zx = graph.constant {value = dense<7> : tensor<ui8>} : tensor<ui8>
  %sw = graph.constant {value = dense<[0.1, 0.2, 0.3, 0.4]> : tensor<4xf32>} : tensor<4xf32>
  %zw = graph.constant {value = dense<[1, 2, 3, 4]> : tensor<4xi8>} : tensor<4xi8>
  %fx = graph.node "DequantizeLinear"(%x, %sx, %zx) {} : (tensor<?x8xui8>, tensor<f32>, tensor<ui8>) -> tensor<?x8xf32>
  %fw = graph.node "DequantizeLinear"(%w, %sw, %zw) {axis = 1 : i64} : (tensor<8x4xi8>, tensor<4xf32>, tensor<4xi8>) -> tensor<8x4xf32>
  %y = graph.node "MatMul"(%fx, %fw) "product" {} : (tensor<?x8xf32>, tensor<8x4xf32>) -> tensor<?x4xf32>
  %fv = graph.node "DequantizeLinear"(%v, %sw, %zw) {axis = 1 : i64} : (tensor<8x4xi8>, tensor<4xf32>, tensor<4xi8>) -> tensor<8x4xf32>
  %z = graph.node "MatMul"(%fx, %fv) {} : (tensor<?x8xf32>, tensor<8x4xf32>) -> tensor<?x4xf32>
  graph.return %y, %z : tensor<?x4xf32>, tensor<?x4xf32>
}
