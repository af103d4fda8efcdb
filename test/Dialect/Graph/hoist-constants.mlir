// RUN: isthmus-opt --graph-hoist-constants %s | FileCheck %s

// Constants, and what only moves their elements, leave the branch; what computes, or takes more than
// constants, stays.
// CHECK-LABEL: graph.program @main
// CHECK: %[[W:.*]] = graph.constant
// CHECK: %[[T:.*]] = graph.node "Transpose"(%[[W]])
// CHECK: graph.node "If"(%arg0)
// CHECK: %[[E:.*]] = graph.node "Exp"(%[[T]])
// CHECK: %[[X:.*]] = graph.node "Transpose"(%arg1)
// CHECK: %[[S:.*]] = graph.node "Add"(%[[E]], %[[X]])
// CHECK: graph.return %[[S]]
graph.program @main inputs ["c", "x"] outputs ["y"] {
^bb0(%c: tensor<i1>, %x: tensor<2x3xf32>):
  %y = graph.node "If"(%c) {} : (tensor<i1>) -> tensor<3x2xf32> {
    %w = graph.constant {value = dense<2.0> : tensor<2x3xf32>} : tensor<2x3xf32>
    %t = graph.node "Transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %e = graph.node "Exp"(%t) {} : (tensor<3x2xf32>) -> tensor<3x2xf32>
    %u = graph.node "Transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
    %s = graph.node "Add"(%e, %u) {} : (tensor<3x2xf32>, tensor<3x2xf32>) -> tensor<3x2xf32>
    graph.return %s : tensor<3x2xf32>
  }, {
    %z = graph.node "Transpose"(%x) {perm = array<i64: 1, 0>} : (tensor<2x3xf32>) -> tensor<3x2xf32>
    graph.return %z : tensor<3x2xf32>
  }
  graph.return %y : tensor<3x2xf32>
}
