// RUN: isthmus-opt %s --split-input-file --verify-diagnostics

// expected-error @below {{has 1 inputs and 2 names for them}}
graph.program @main inputs ["x", "c"] outputs ["y"] {
^bb0(%x: tensor<?xf32>):
  graph.return %x : tensor<?xf32>
}

// -----

graph.program @main inputs [] outputs ["y"] {
  // expected-error @below {{has either a value or a place in a file}}
  %0 = graph.constant : tensor<2xf32>
  graph.return %0 : tensor<2xf32>
}

// -----

graph.program @main inputs [] outputs ["y"] {
  // expected-error @below {{needs the offset of its bytes in the file}}
  %0 = graph.constant {file = "m.onnx"} : tensor<2xf32>
  graph.return %0 : tensor<2xf32>
}
