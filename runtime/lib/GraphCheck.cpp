//===- GraphCheck.cpp - checks the graph of a manifest --------------------===//
#include "GraphCheck.h"

#include "isthmus/runtime/DataType.h"

#include <vector>

using namespace isthmus;
using namespace isthmus::rt;

namespace {
class GraphChecker {
public:
  GraphChecker(const bundle::Manifest &manifest, const bundle::Graph &graph)
      : manifest(manifest), graph(graph) {}

  const char *run() {
    for (const bundle::GraphValue &value : graph.values())
      if (const char *error = checkValue(value))
        return error;
    for (const bundle::GraphConstant &constant : graph.constants())
      if (const char *error = checkConstant(constant))
        return error;
    return checkBody(graph.body(), 0);
  }

private:
  const bundle::Manifest &manifest;
  const bundle::Graph &graph;

  bool isValue(int64_t number) const {
    return number >= 0 && number < graph.values_size();
  }

  static const char *checkValue(const bundle::GraphValue &value) {
    if (value.type() > uint32_t(DataType::I2))
      return "graph value's type";
    constexpr int kMostDimensions = 64;
    if (value.sizes_size() > kMostDimensions)
      return "graph value's rank";
    int64_t count = 1;
    for (int64_t size : value.sizes()) {
      if (size < -1 || (size > 0 && count > (int64_t(1) << 48) / size))
        return "graph value's size";
      count *= size > 0 ? size : 1;
    }
    return nullptr;
  }

  const char *checkConstant(const bundle::GraphConstant &constant) const {
    if (!isValue(constant.value()))
      return "graph constant's value";
    const bundle::GraphValue &value = graph.values(int(constant.value()));
    uint64_t count = 1;
    for (int64_t size : value.sizes()) {
      if (size < 0)
        return "graph constant's size";
      count *= uint64_t(size);
    }
    const auto type = DataType(value.type());
    if (type == DataType::String)
      return uint64_t(constant.texts_size()) == count
                 ? nullptr
                 : "graph constant's texts";
    if (constant.weight() >= uint32_t(manifest.weights_size()) ||
        manifest.weights(int(constant.weight())).size() !=
            count * bytesOf(type))
      return "graph constant's weight";
    return nullptr;
  }

  const char *checkBody(const bundle::GraphBody &body, int depth) const {
    constexpr int kDeepest = 32;
    if (depth > kDeepest)
      return "depth of graph bodies";
    for (const auto *list : {&body.inputs(), &body.outputs()})
      for (uint32_t number : *list)
        if (!isValue(number))
          return "graph body's input or output";
    for (const bundle::GraphNode &node : body.nodes()) {
      for (const auto *list : {&node.inputs(), &node.outputs()})
        for (int64_t number : *list)
          if (number != -1 && !isValue(number))
            return "graph node's operand";
      for (uint32_t number : node.last_uses())
        if (!isValue(number))
          return "graph node's last use";
      if (node.shape_function().empty() && !node.kernel().empty())
        return "graph node's shape function";
      // A result that is its input with other sizes.
      if (!node.shape_function().empty() && node.kernel().empty() &&
          (node.inputs_size() == 0 || node.inputs(0) < 0))
        return "graph node's first input";
      for (const bundle::GraphBody &inner : node.bodies())
        if (const char *error = checkBody(inner, depth + 1))
          return error;
    }
    return nullptr;
  }
};
} // namespace

const char *isthmus::rt::findGraphError(const bundle::Manifest &manifest,
                                        const bundle::Graph &graph) {
  return GraphChecker(manifest, graph).run();
}
