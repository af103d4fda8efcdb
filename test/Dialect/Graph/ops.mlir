// RUN: isthmus-opt %s | isthmus-opt | FileCheck %s

// CHECK-LABEL: graph.program @main inputs ["x", "c"] outputs ["y"]
graph.program @main inputs ["x", "c"] outputs ["y"] {
^bb0(%x: tensor<?x2xf32>, %c: tensor<i1>):
  // CHECK: graph.constant {value = dense<[0, -1]> : tensor<2xi64>} : tensor<2xi64>
  %0 = graph.constant {value = dense<[0, -1]> : tensor<2xi64>} : tensor<2xi64>
  // CHECK: graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<2x2xf32>
  %1 = graph.constant {file = "m.onnx", offset = 64 : i64} : tensor<2x2xf32>
  %2 = graph.none
  // CHECK: graph.node "Clip"(%{{.*}}, %{{.*}}) "clip" {} : (tensor<?x2xf32>, none) -> tensor<?x2xf32>
  %3 = graph.node "Clip"(%x, %2) "clip" {} : (tensor<?x2xf32>, none) -> tensor<?x2xf32>
  // CHECK: graph.node "If"
  %4 = graph.node "If"(%c) {} : (tensor<i1>) -> tensor<?x2xf32> {
    graph.return %x : tensor<?x2xf32>
  }, {
    graph.return %3 : tensor<?x2xf32>
  }
  graph.return %4 : tensor<?x2xf32>
}
