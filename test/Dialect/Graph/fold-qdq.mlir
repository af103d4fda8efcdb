// RUN: isthmus-opt --graph-fold-qdq %s | FileCheck %s

// CHECK-LABEL: graph.program @main
// CHECK-SAME: inputs ["x", "v", "t", "p"]
// CHECK: %[[W:.*]] = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<8x4xi8>
// CHECK: %[[SUMS:.*]] = graph.node "MatMulInteger"(%arg0, %[[W]], %{{.*}}, %{{.*}}) "product" {} : (tensor<?x8xui8>, tensor<8x4xi8>, tensor<ui8>, tensor<4xi8>) -> tensor<?x4xi32>
// CHECK: %[[FLOATS:.*]] = graph.node "Cast"(%[[SUMS]]) "product" {to = 1 : i64}
// CHECK: %[[SCALE:.*]] = graph.node "Mul"(%{{.*}}, %{{.*}}) "product" {} : (tensor<f32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK: graph.node "Mul"(%[[FLOATS]], %[[SCALE]])
// So is one of two inputs.
// CHECK: graph.node "MatMulInteger"(%arg0, %arg1,
// Columns of their own in a stack of matrices: it stays, and what it takes.
// CHECK: graph.node "DequantizeLinear"(%arg2
// CHECK: graph.node "MatMul"
// A convolution; its scales and bias go along the channels.
// CHECK: graph.node "ConvInteger"(%arg3, %{{.*}}) {strides = array<i64: 2>}
// CHECK: graph.node "Reshape"(%{{.*}}, %{{.*}}) {} : (tensor<4xf32>, tensor<2xi64>) -> tensor<4x1xf32>
graph.program @main inputs ["x", "v", "t", "p"] outputs ["y", "z", "s", "q"] {
^bb0(%x: tensor<?x8xui8>, %v: tensor<8x4xi8>, %t: tensor<3x8x4xi8>, %p: tensor<1x2x?xui8>):
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
  %ft = graph.node "DequantizeLinear"(%t, %sw, %zw) {axis = 2 : i64} : (tensor<3x8x4xi8>, tensor<4xf32>, tensor<4xi8>) -> tensor<3x8x4xf32>
  %s = graph.node "MatMul"(%fx, %ft) {} : (tensor<?x8xf32>, tensor<3x8x4xf32>) -> tensor<3x?x4xf32>
  %k = graph.constant {file = "m.onnx", offset = 128 : i64} : tensor<4x2x3xi8>
  %fp = graph.node "DequantizeLinear"(%p, %sx, %zx) {} : (tensor<1x2x?xui8>, tensor<f32>, tensor<ui8>) -> tensor<1x2x?xf32>
  %fk = graph.node "DequantizeLinear"(%k, %sw) {axis = 0 : i64} : (tensor<4x2x3xi8>, tensor<4xf32>) -> tensor<4x2x3xf32>
  %q = graph.node "Conv"(%fp, %fk, %sw) {strides = array<i64: 2>} : (tensor<1x2x?xf32>, tensor<4x2x3xf32>, tensor<4xf32>) -> tensor<1x4x?xf32>
  graph.return %y, %z, %s, %q : tensor<?x4xf32>, tensor<?x4xf32>, tensor<3x?x4xf32>, tensor<1x4x?xf32>
}
