// RUN: isthmus-opt --graph-expand-powers %s | FileCheck %s

// CHECK-LABEL: graph.program @main
// CHECK: %[[SQUARE:.*]] = graph.node "Mul"(%arg0, %arg0) "square"
// CHECK: %[[OTHER:.*]] = graph.node "Mul"(%arg0, %arg0)
// CHECK: %[[CUBE:.*]] = graph.node "Mul"(%[[OTHER]], %arg0)
// What has more dimensions afterwards, another power, one that is not known: as they are.
// CHECK-COUNT-3: graph.node "Pow"
graph.program @main inputs ["x", "p"] outputs ["a", "b", "c", "d", "e"] {
^bb0(%x: tensor<?xf32>, %p: tensor<f32>):
  %two = graph.constant {value = dense<2.0> : tensor<f32>} : tensor<f32>
  %three = graph.constant {value = dense<3> : tensor<1xi64>} : tensor<1xi64>
  %wide = graph.constant {value = dense<2.0> : tensor<1x1xf32>} : tensor<1x1xf32>
  %half = graph.constant {value = dense<0.5> : tensor<f32>} : tensor<f32>
  %a = graph.node "Pow"(%x, %two) "square" {} : (tensor<?xf32>, tensor<f32>) -> tensor<?xf32>
  %b = graph.node "Pow"(%x, %three) {} : (tensor<?xf32>, tensor<1xi64>) -> tensor<?xf32>
  %c = graph.node "Pow"(%x, %wide) {} : (tensor<?xf32>, tensor<1x1xf32>) -> tensor<1x?xf32>
  %d = graph.node "Pow"(%x, %half) {} : (tensor<?xf32>, tensor<f32>) -> tensor<?xf32>
  %e = graph.node "Pow"(%x, %p) {} : (tensor<?xf32>, tensor<f32>) -> tensor<?xf32>
  graph.return %a, %b, %c, %d, %e : tensor<?xf32>, tensor<?xf32>, tensor<1x?xf32>, tensor<?xf32>, tensor<?xf32>
}
