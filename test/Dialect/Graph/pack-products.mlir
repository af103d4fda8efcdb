// RUN: isthmus-opt --graph-pack-products %s | FileCheck %s

// CHECK-LABEL: graph.program @main
// Products that share a matrix share what is packed.
// CHECK: %[[PACKED:.*]] = graph.node "isthmus.PackIntegers"(%{{.*}}) {} : (tensor<6x20xui8>) -> tensor<2x2x16x4xi8>
// CHECK: %[[SUMS:.*]] = graph.node "isthmus.PackedSums"(%[[PACKED]]) {columns = 20 : i64}
// CHECK-NOT: isthmus.PackIntegers
// Scale and bias are the product's.
// CHECK: graph.node "isthmus.PackedMatMulInteger"(%arg0, %[[PACKED]], %[[SUMS]], %{{.*}}, %{{.*}}, %arg2, %{{.*}}) {columns = 20 : i64, rows = 6 : i64, unsigned = 1 : i64} : (tensor<?x6xi8>, {{.*}}) -> tensor<?x20xf32>
// A matrix is added as before.
// CHECK: graph.node "isthmus.PackedMatMulInteger"(%arg0, %[[PACKED]], %[[SUMS]]
// CHECK-SAME: -> tensor<?x20xf32>
// CHECK: graph.node "Add"
// Sums that somebody reads stay sums.
// CHECK: graph.node "isthmus.PackedMatMulInteger"
// CHECK-SAME: -> tensor<?x20xi32>
// CHECK: graph.node "Cast"
// CHECK: graph.node "MatMulInteger"(%arg0, %arg3)
graph.program @main inputs ["x", "m", "s", "v"] outputs ["a", "b", "c", "d", "e"] {
^bb0(%x: tensor<?x6xi8>, %m: tensor<?x20xf32>, %s: tensor<1xf32>, %v: tensor<6x20xui8>):
  %w = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<6x20xui8>
  %bias = graph.constant {file = "m.onnx", offset = 640 : i64} : tensor<20xf32>
  %0 = graph.node "MatMulInteger"(%x, %w) {} : (tensor<?x6xi8>, tensor<6x20xui8>) -> tensor<?x20xi32>
  %1 = graph.node "Cast"(%0) {to = 1 : i64} : (tensor<?x20xi32>) -> tensor<?x20xf32>
  %2 = graph.node "Mul"(%1, %s) {} : (tensor<?x20xf32>, tensor<1xf32>) -> tensor<?x20xf32>
  %a = graph.node "Add"(%bias, %2) {} : (tensor<20xf32>, tensor<?x20xf32>) -> tensor<?x20xf32>
  %3 = graph.node "MatMulInteger"(%x, %w) {} : (tensor<?x6xi8>, tensor<6x20xui8>) -> tensor<?x20xi32>
  %4 = graph.node "Cast"(%3) {to = 1 : i64} : (tensor<?x20xi32>) -> tensor<?x20xf32>
  %5 = graph.node "Mul"(%4, %s) {} : (tensor<?x20xf32>, tensor<1xf32>) -> tensor<?x20xf32>
  %b = graph.node "Add"(%5, %m) {} : (tensor<?x20xf32>, tensor<?x20xf32>) -> tensor<?x20xf32>
  %c = graph.node "MatMulInteger"(%x, %w) {} : (tensor<?x6xi8>, tensor<6x20xui8>) -> tensor<?x20xi32>
  %d = graph.node "Cast"(%c) {to = 1 : i64} : (tensor<?x20xi32>) -> tensor<?x20xf32>
  %e = graph.node "MatMulInteger"(%x, %v) {} : (tensor<?x6xi8>, tensor<6x20xui8>) -> tensor<?x20xi32>
  graph.return %a, %b, %c, %d, %e : tensor<?x20xf32>, tensor<?x20xf32>, tensor<?x20xi32>, tensor<?x20xf32>, tensor<?x20xi32>
}

// CHECK-LABEL: graph.program @convolutions
// CHECK: %[[FILTERS:.*]] = graph.node "isthmus.PackFilters"(%{{.*}}, %{{.*}}) {} : (tensor<4x3x5xi8>, none) -> tensor<4x10xi32>
// CHECK-NOT: PackFilters
// The addend and the scale are the convolution's, not what has places of its own.
// CHECK: graph.node "isthmus.PackedConvInteger"(%arg0, %[[FILTERS]], %{{.*}}, %arg2, %arg3, %{{.*}}) {inputs = 3 : i64, kernel_shape = array<i64: 5>, pads = array<i64: 2, 2>} : {{.*}} -> tensor<1x4x?xf32>
// CHECK: graph.node "Add"
// CHECK: graph.node "isthmus.PackedConvInteger"
// CHECK-SAME: -> tensor<1x4x?xi32>
// A constant for each channel is a bias.
// CHECK: graph.node "Conv"(%arg1, %{{.*}}, %{{.*}}) {} : (tensor<1x2x?xf32>, tensor<4x2x1xf32>, tensor<4xf32>)
// CHECK-NOT: graph.node
graph.program @convolutions inputs ["x", "f", "a", "s", "r"] outputs ["y", "z", "q"] {
^bb0(%x: tensor<1x3x?xui8>, %f: tensor<1x2x?xf32>, %a: tensor<1x4x1xi32>, %s: tensor<f32>, %r: tensor<1x4x?xf32>):
  %w = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<4x3x5xi8>
  %0 = graph.node "ConvInteger"(%x, %w) {pads = array<i64: 2, 2>} : (tensor<1x3x?xui8>, tensor<4x3x5xi8>) -> tensor<1x4x?xi32>
  %1 = graph.node "Add"(%0, %a) {} : (tensor<1x4x?xi32>, tensor<1x4x1xi32>) -> tensor<1x4x?xi32>
  %2 = graph.node "Cast"(%1) {to = 1 : i64} : (tensor<1x4x?xi32>) -> tensor<1x4x?xf32>
  %3 = graph.node "Mul"(%2, %s) {} : (tensor<1x4x?xf32>, tensor<f32>) -> tensor<1x4x?xf32>
  %y = graph.node "Add"(%3, %r) {} : (tensor<1x4x?xf32>, tensor<1x4x?xf32>) -> tensor<1x4x?xf32>
  %z = graph.node "ConvInteger"(%x, %w) {} : (tensor<1x3x?xui8>, tensor<4x3x5xi8>) -> tensor<1x4x?xi32>
  %k = graph.constant {file = "m.onnx", offset = 128 : i64} : tensor<4x2x1xf32>
  %b = graph.constant {file = "m.onnx", offset = 192 : i64} : tensor<4x1xf32>
  %c = graph.node "Conv"(%f, %k) {} : (tensor<1x2x?xf32>, tensor<4x2x1xf32>) -> tensor<1x4x?xf32>
  %q = graph.node "Add"(%c, %b) {} : (tensor<1x4x?xf32>, tensor<4x1xf32>) -> tensor<1x4x?xf32>
  graph.return %y, %z, %q : tensor<1x4x?xf32>, tensor<1x4x?xi32>, tensor<1x4x?xf32>
}
