// RUN: isthmus-opt --graph-fuse-elementwise %s | FileCheck %s

// One node of three, with what they take from outside; a value that is used twice is computed once.
// CHECK-LABEL: graph.program @main
// CHECK: %[[Y:.*]] = graph.node "isthmus.Fused"(%arg0, %arg1) "y" {{.*}} {
// CHECK: ^bb0(%[[X:.*]]: tensor<?x8xf32>, %[[V:.*]]: tensor<8xf32>):
// CHECK: %[[A:.*]] = graph.node "Add"(%[[X]], %[[V]])
// CHECK: %[[B:.*]] = graph.node "Sigmoid"(%[[A]])
// CHECK: %[[C:.*]] = graph.node "Mul"(%[[A]], %[[B]])
// CHECK: graph.return %[[C]]
// CHECK: }
// What another needs too stays a node; so does what would be computed again for each row.
// CHECK: %[[D:.*]] = graph.node "Exp"(%arg0)
// CHECK: %[[E:.*]] = graph.node "Neg"(%[[D]])
// CHECK: %[[F:.*]] = graph.node "Sqrt"(%arg1)
// CHECK: %[[G:.*]] = graph.node "Mul"(%[[D]], %[[F]])
// An input that is missing is missing inside. Constants run once, and stay outside.
// CHECK: %[[H:.*]] = graph.node "Neg"(%{{.*}})
// CHECK: graph.node "isthmus.Fused"(%[[H]], %arg0) {{.*}} {
// CHECK: graph.none
// CHECK: graph.node "Clip"
// CHECK: graph.node "Add"
graph.program @main inputs ["x", "v"] outputs ["y", "e", "g", "k"] {
^bb0(%x: tensor<?x8xf32>, %v: tensor<8xf32>):
  %a = graph.node "Add"(%x, %v) {} : (tensor<?x8xf32>, tensor<8xf32>) -> tensor<?x8xf32>
  %b = graph.node "Sigmoid"(%a) {} : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %y = graph.node "Mul"(%a, %b) "y" {} : (tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x8xf32>
  %d = graph.node "Exp"(%x) {} : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %e = graph.node "Neg"(%d) {} : (tensor<?x8xf32>) -> tensor<?x8xf32>
  %f = graph.node "Sqrt"(%v) {} : (tensor<8xf32>) -> tensor<8xf32>
  %g = graph.node "Mul"(%d, %f) {} : (tensor<?x8xf32>, tensor<8xf32>) -> tensor<?x8xf32>
  %c = graph.constant {value = dense<2.0> : tensor<1x8xf32>} : tensor<1x8xf32>
  %h = graph.node "Neg"(%c) {} : (tensor<1x8xf32>) -> tensor<1x8xf32>
  %none = graph.none
  %i = graph.node "Clip"(%x, %none, %h) {} : (tensor<?x8xf32>, none, tensor<1x8xf32>) -> tensor<?x8xf32>
  %k = graph.node "Add"(%i, %h) {} : (tensor<?x8xf32>, tensor<1x8xf32>) -> tensor<?x8xf32>
  graph.return %y, %e, %g, %k : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>
}
