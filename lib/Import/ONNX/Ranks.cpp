//===- Ranks.cpp - ranks that ONNX's shape inference leaves open ----------===//
#include "Ranks.h"

#include <algorithm>
#include <map>
#include <onnx/onnx_pb.h>
#include <optional>
#include <set>
#include <string>
#include <vector>

using namespace isthmus::import;

namespace {
class RankInference {
public:
  RankInference(onnx::GraphProto &graph, const RankInference *outer)
      : graph(graph), outer(outer) {
    for (auto *list : {graph.mutable_input(), graph.mutable_value_info(),
                       graph.mutable_output()})
      for (auto &info : *list)
        note(info);
    for (const auto &tensor : graph.initializer())
      sizes[tensor.name()] = {tensor.dims().begin(), tensor.dims().end()};
  }

  bool run() {
    bool found = false;
    for (auto &node : *graph.mutable_node()) {
      for (auto &attribute : *node.mutable_attribute())
        if (attribute.has_g())
          found |= runBody(node, *attribute.mutable_g());
      if (node.op_type() == "If" && node.output_size() > 0)
        found |= joinBranches(node);
      if (node.op_type() == "Constant" && node.output_size() == 1)
        for (const auto &attribute : node.attribute())
          if (attribute.name() == "value")
            sizes.emplace(node.output(0), Sizes{attribute.t().dims().begin(),
                                                attribute.t().dims().end()});
      if (node.output_size() == 0)
        continue;
      if (auto rank = rankOf(node.output(0)))
        found |= passBack(node, *rank);
      else if (auto result = resultRank(node))
        for (int o = 0;
             o < (node.op_type() == "Split" ? node.output_size() : 1); ++o)
          found |= setRank(node.output(o), *result);
    }
    return found;
  }

private:
  using Sizes = std::vector<int64_t>;
  onnx::GraphProto &graph;
  const RankInference *outer;
  std::map<std::string, Sizes> sizes; ///< -1: unknown
  std::map<std::string, onnx::TypeProto *> types;
  /// Of an If, by its first result: of each result the ranks in the branches.
  std::map<std::string, std::map<int, std::vector<std::optional<size_t>>>>
      branches;

  void note(onnx::ValueInfoProto &info) {
    types.emplace(info.name(), info.mutable_type());
    if (!info.type().has_tensor_type() ||
        !info.type().tensor_type().has_shape())
      return;
    Sizes own;
    for (const auto &dim : info.type().tensor_type().shape().dim())
      own.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
    sizes.emplace(info.name(), std::move(own));
  }

  const Sizes *sizesOf(const std::string &name) const {
    if (auto found = sizes.find(name); found != sizes.end())
      return &found->second;
    return outer ? outer->sizesOf(name) : nullptr;
  }

  std::optional<size_t> rankOf(const std::string &name) const {
    const Sizes *found = sizesOf(name);
    return found ? std::optional(found->size()) : std::nullopt;
  }

  /// Elements of a vector, if its length is known.
  std::optional<size_t> lengthOf(const std::string &name) const {
    const Sizes *found = sizesOf(name);
    if (found && found->empty())
      return 1;
    return found && found->size() == 1 && (*found)[0] >= 0
               ? std::optional(size_t((*found)[0]))
               : std::nullopt;
  }

  std::optional<size_t> resultRank(const onnx::NodeProto &node) const {
    const std::string &op = node.op_type();
    auto input = [&](int index) {
      return index < node.input_size() ? node.input(index) : std::string();
    };
    auto integer = [&](const char *name, int64_t otherwise) {
      for (const auto &attribute : node.attribute())
        if (attribute.name() == name)
          return attribute.i();
      return otherwise;
    };
    const auto first = rankOf(input(0));
    if (op == "Reshape")
      return lengthOf(input(1));
    if (op == "ConstantOfShape")
      return lengthOf(input(0));
    if (op == "Expand") {
      auto length = lengthOf(input(1));
      return first && length ? std::optional(std::max(*first, *length))
                             : std::nullopt;
    }
    const auto axes = lengthOf(input(1));
    if (op == "Unsqueeze")
      return first && axes ? std::optional(*first + *axes) : std::nullopt;
    if (op == "Squeeze")
      return first && axes && *axes <= *first ? std::optional(*first - *axes)
                                              : std::nullopt;
    if (op.starts_with("Reduce")) {
      if (!first || integer("keepdims", 1))
        return first;
      return axes && *axes <= *first ? std::optional(*first - *axes)
                                     : std::nullopt;
    }
    if (isElementwise(op) || op == "Split" || op == "Transpose" ||
        op == "Concat" || op == "Compress")
      return first;
    if (op == "STFT")
      return 4;
    if (op == "DFT" || op == "NonZero")
      return op == "DFT" ? first : std::optional<size_t>(2);
    if (op == "Gather") {
      auto places = rankOf(input(1));
      return first && places && *first > 0 ? std::optional(*first - 1 + *places)
                                           : std::nullopt;
    }
    if (op == "GatherElements")
      return rankOf(input(1));
    if (op == "MatMul" || op == "Add" || op == "Sub" || op == "Mul" ||
        op == "Div" || op == "Pow" || op == "Mod" || op == "Min" ||
        op == "Max" || op == "Where" || op == "And" || op == "Or" ||
        op == "Equal" || op == "Less" || op == "Greater" ||
        op == "LessOrEqual" || op == "GreaterOrEqual") {
      // Broadcast together; of a product's vectors one dimension goes.
      std::optional<size_t> most = 0;
      for (const std::string &name : node.input()) {
        auto own = rankOf(name);
        most =
            own && most ? std::optional(std::max(*most, *own)) : std::nullopt;
      }
      if (op == "MatMul" && most && (first == 1 || rankOf(input(1)) == 1))
        return *most - 1;
      return most;
    }
    return std::nullopt;
  }

  /// True if the result has the rank of the first input.
  static bool isElementwise(const std::string &op) {
    static const std::set<std::string> kSame = {"Abs",
                                                "Cast",
                                                "CastLike",
                                                "CenterCropPad",
                                                "Clip",
                                                "Conv",
                                                "Cos",
                                                "CumProd",
                                                "CumSum",
                                                "DequantizeLinear",
                                                "Dropout",
                                                "Erf",
                                                "Exp",
                                                "Floor",
                                                "Identity",
                                                "Log",
                                                "LogSoftmax",
                                                "Neg",
                                                "Not",
                                                "Pad",
                                                "QuantizeLinear",
                                                "Reciprocal",
                                                "Relu",
                                                "Resize",
                                                "ReverseSequence",
                                                "ScatterElements",
                                                "ScatterND",
                                                "Sigmoid",
                                                "Sign",
                                                "Sin",
                                                "Slice",
                                                "Softmax",
                                                "Softplus",
                                                "Sqrt",
                                                "Tanh",
                                                "TensorScatter",
                                                "Tile",
                                                "Trilu",
                                                "Upsample"};
    return kSame.contains(op);
  }

  /// What is known of a result may tell of the input.
  bool passBack(const onnx::NodeProto &node, size_t rank) {
    return isElementwise(node.op_type()) && node.input_size() > 0 &&
           !rankOf(node.input(0)) && setRank(node.input(0), rank);
  }

  /// What a loop carries keeps its rank (the runtime checks it); results of a
  /// body have the ranks that they have in it.
  bool runBody(onnx::NodeProto &node, onnx::GraphProto &body) {
    bool found = false;
    RankInference inner(body, this);
    const bool isLoop = node.op_type() == "Loop";
    if (node.op_type() == "Scan")
      return runScan(node, body, inner);
    if (isLoop)
      for (int i = 0; i < body.input_size(); ++i) {
        const std::string &name = body.input(i).name();
        if (inner.sizes.contains(name))
          continue;
        if (i < 2)
          found |= inner.setRank(name, 0);
        else if (auto rank = i < node.input_size() ? rankOf(node.input(i))
                                                   : std::nullopt)
          found |= inner.setRank(name, *rank);
      }
    found |= inner.run();
    if (node.op_type() == "If" && node.output_size() > 0)
      for (int o = 0; o < body.output_size(); ++o)
        branches[node.output(0)][o].push_back(
            inner.rankOf(body.output(o).name()));
    for (int o = 0; isLoop && o < node.output_size(); ++o) {
      if (o + 1 >= body.output_size() || rankOf(node.output(o)))
        continue;
      const size_t stacked = o >= node.input_size() - 2 ? 1 : 0;
      if (auto rank = inner.rankOf(body.output(o + 1).name()))
        found |= setRank(node.output(o), *rank + stacked);
    }
    return found;
  }

  /// A result of If has the rank that it has in both branches.
  bool joinBranches(const onnx::NodeProto &node) {
    bool found = false;
    for (const auto &[o, ranks] : branches[node.output(0)])
      if (ranks.size() == 2 && ranks[0] && ranks[0] == ranks[1] &&
          o < node.output_size() && !rankOf(node.output(o)))
        found |= setRank(node.output(o), *ranks[0]);
    return found;
  }

  bool runScan(onnx::NodeProto &node, onnx::GraphProto &body,
               RankInference &inner) {
    int64_t scans = 0;
    for (const auto &attribute : node.attribute())
      if (attribute.name() == "num_scan_inputs")
        scans = attribute.i();
    const int64_t states = node.input_size() - scans;
    bool found = false;
    for (int i = 0; i < std::min(body.input_size(), node.input_size()); ++i)
      if (auto rank = rankOf(node.input(i));
          rank && !inner.sizes.contains(body.input(i).name()) &&
          (i < states || *rank > 0))
        found |=
            inner.setRank(body.input(i).name(), i < states ? *rank : *rank - 1);
    found |= inner.run();
    for (int o = 0; o < std::min(node.output_size(), body.output_size()); ++o)
      if (auto rank = inner.rankOf(body.output(o).name());
          rank && !rankOf(node.output(o)))
        found |= setRank(node.output(o), *rank + (o < states ? 0 : 1));
    return found;
  }

  bool setRank(const std::string &name, size_t rank) {
    auto found = types.find(name);
    if (found == types.end() || !found->second->has_tensor_type())
      return false;
    auto *shape = found->second->mutable_tensor_type()->mutable_shape();
    for (size_t d = 0; d < rank; ++d)
      shape->add_dim();
    sizes.emplace(name, Sizes(rank, -1));
    return true;
  }
};
} // namespace

bool isthmus::import::inferRanks(onnx::GraphProto &graph) {
  return RankInference(graph, nullptr).run();
}
