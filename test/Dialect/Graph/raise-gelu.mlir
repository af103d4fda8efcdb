// RUN: isthmus-opt --graph-raise-gelu %s | FileCheck %s

// CHECK-LABEL: graph.program @main
// CHECK: %[[Y:.*]] = graph.node "Gelu"(%arg0) "y"
// Another factor than a half is another function.
// CHECK: graph.node "Mul"
// CHECK: %[[Z:.*]] = graph.node "Mul"
// CHECK: graph.return %[[Y]], %[[Z]]
graph.program @main inputs ["x"] outputs ["y", "z"] {
^bb0(%x: tensor<?x8xf32>):
  %root = graph.constant {value = dense<1.41421354> : tensor<f32>} : tensor<f32>
  %one = graph.constant {value = dense<1.0> : tensor<f32>} : tensor<f32>
  %half = graph.constant {value = dense<0.5> : tensor<f32>} : tensor<f32>
  %two = graph.constant {value = dense<2.0> : tensor<f32>} : tensor<f32>
  %scaled = graph.node "Div"(%x, %root) {} : (tensor<?x8xf32>, tensor<f32>) -> tensor<?x8xf32>
  %erf = graph.node "Erf"(%scaled) {} : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %sum = graph.node "Add"(%one, %erf) {} : (tensor<f32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %product = graph.node "Mul"(%x, %sum) {} : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = graph.node "Mul"(%product, %half) "y" {} : (tensor<?x8xf32>, tensor<f32>) -> tensor<?x8xf32>
  %other = graph.node "Mul"(%x, %two) {} : (tensor<?x8xf32>, tensor<f32>) -> tensor<?x8xf32>
  %z = graph.node "Mul"(%other, %sum) {} : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  graph.return %y, %z : tensor<?x8xf32>, tensor<?x8xf32>
}
