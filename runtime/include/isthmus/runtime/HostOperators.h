//===- HostOperators.h - operators that the runtime runs itself -*- C++ -*-===//
//
// Generated code makes no sense for control flow, sequences, optionals and
// texts.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/runtime/Tensor.h"

#include <functional>
#include <span>
#include <string_view>

namespace isthmus::rt {

/// One run of a node.
struct HostCall {
  const bundle::GraphNode &node;
  std::vector<Value> inputs; ///< empty where the node has none
  std::vector<Value> outputs;
  std::vector<DataType> outputTypes; ///< Undefined: not a tensor
  /// Runs body `index` of the node.
  std::function<std::vector<Value>(size_t index, std::span<const Value> inputs)>
      runBody;

  bool has(size_t input) const {
    return input < inputs.size() && !inputs[input].empty();
  }
  const Tensor &tensor(size_t input) const;
  int64_t integer(std::string_view name, int64_t otherwise) const;
  std::string text(std::string_view name, std::string otherwise) const;
  const bundle::GraphAttribute *attribute(std::string_view name) const;
};

/// Throws Error if the inputs do not suit it.
using HostOperator = void (*)(HostCall &call);

/// The operator that ONNX calls `op`, or null if there is none.
HostOperator findHostOperator(std::string_view op);

} // namespace isthmus::rt
