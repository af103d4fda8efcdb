//===- GraphExecutor.h - runs a graph of tensors ----------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/HostOperators.h"
#include "isthmus/runtime/KernelLibrary.h"
#include "isthmus/runtime/Tensor.h"
#include "isthmus/runtime/ThreadPool.h"

#include <functional>
#include <span>

namespace isthmus::rt {

class TileTeam;

/// A program of kind graph (docs/onnx.md), bound to its kernels. Nodes run one
/// after another: a shape function gives the sizes of its results, then all
/// threads share the tiles of its kernel. What depends on constants alone has
/// been computed when the constructor returns. One thread at a time may call
/// `run`.
class GraphExecutor {
public:
  /// Refers to all its arguments; `program` is one of the bundle's. Throws
  /// Error.
  GraphExecutor(const Bundle &bundle, const bundle::Program &program,
                const KernelLibrary &kernels, ThreadPool &pool);
  ~GraphExecutor();

  /// Inputs and results in the order of the program's. Throws Error if an input
  /// does not have the type and the sizes that the program says, or a node
  /// cannot be run with them.
  std::vector<Value> run(std::span<const Value> inputs);

  const bundle::GraphValue &input(size_t index) const;
  const bundle::GraphValue &output(size_t index) const;
  size_t inputs() const { return size_t(graph.body().inputs_size()); }
  size_t outputs() const { return size_t(graph.body().outputs_size()); }

  /// Called after each node with the time it took, in seconds; for profiles.
  std::function<void(const bundle::GraphNode &node, double seconds)> onNode;

private:
  struct Node {
    const bundle::GraphNode *description;
    GraphKernel shape = nullptr, kernel = nullptr;
    HostOperator host = nullptr;
    std::vector<std::vector<Node>> bodies;
  };

  std::vector<Node> bind(const bundle::GraphBody &body,
                         const KernelLibrary &kernels);
  void runNodes(std::span<Node> nodes, bool constants);
  void runNode(Node &node);
  void runKernel(Node &node);
  void runHost(Node &node);
  void checkType(const bundle::GraphValue &expected, const Value &value) const;
  /// Runs `job` on this thread while the others wait for tiles.
  void lead(const std::function<void()> &job);

  const Bundle &bundle;
  const bundle::Graph &graph;
  std::vector<Node> nodes;
  std::vector<Value> values;  ///< by number
  std::vector<bool> constant; ///< by number: never freed
  TensorMemory memory;
  std::unique_ptr<TileTeam> team;
};

} // namespace isthmus::rt
