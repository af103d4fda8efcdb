//===- Graphs.h - graphs of tensors (ONNX) on the command line --*- C++ -*-===//
#pragma once

#include "Session.h"

#include "isthmus/runtime/GraphExecutor.h"

namespace isthmus::cli {

/// True if the bundle is a graph of tensors.
bool isGraph(const rt::Bundle &bundle);

/// What a graph's input or output is: "float32 [1, ?, 768]".
std::string typeText(const bundle::GraphValue &value);

/// What 'isthmus run' is given for a graph.
struct GraphOptions {
  std::vector<std::string>
      inputs;         ///< NAME=FILE.npy, or FILE.npy if there is one
  std::string output; ///< folder for the results; "": print them
  bool json = false;
};
void runGraph(rt::Bundle bundle, const SessionOptions &session,
              const GraphOptions &options);

/// What 'isthmus bench' is given for a graph.
struct GraphBenchOptions {
  std::vector<std::string> shapes; ///< NAME=1,3,224,224
  std::vector<std::string>
      inputs; ///< NAME=FILE.npy, for those that have no shape
  uint64_t repetitions = 5;
  bool profile = false, json = false;
};
void benchGraph(rt::Bundle bundle, const SessionOptions &session,
                const GraphBenchOptions &options);

} // namespace isthmus::cli
