//===- BranchRanks.cpp - If nodes whose branches differ in rank -----------===//
//
// PyTorch's squeeze(d) becomes an If: Squeeze where the size is one, Identity
// otherwise. After it each value has two ranks, and a rank is what is compiled.
// So what follows goes on within the branches, once for each. Often only one of
// the two can go on: a recurrent layer takes three dimensions and no others.
//
//===----------------------------------------------------------------------===//
#include "Simplify.h"

#include <fmt/format.h>
#include <map>
#include <onnx/onnx_pb.h>
#include <optional>
#include <set>
#include <string>
#include <vector>

using namespace isthmus::import;

namespace {
using Names = std::map<std::string, std::string>;

/// What is known of the ranks in a graph and those around it.
class KnownRanks {
public:
  KnownRanks(const onnx::GraphProto &graph, const KnownRanks *outer)
      : outer(outer) {
    for (const auto *list :
         {&graph.input(), &graph.value_info(), &graph.output()})
      for (const auto &info : *list)
        if (info.type().has_tensor_type() &&
            info.type().tensor_type().has_shape())
          ranks.emplace(info.name(),
                        info.type().tensor_type().shape().dim_size());
    for (const auto &tensor : graph.initializer())
      ranks.emplace(tensor.name(), tensor.dims_size());
  }

  std::optional<int> of(const std::string &name) const {
    if (auto found = ranks.find(name); found != ranks.end())
      return found->second;
    return outer ? outer->of(name) : std::nullopt;
  }

private:
  const KnownRanks *outer;
  std::map<std::string, int> ranks;
};

onnx::GraphProto *bodyOf(onnx::NodeProto &node, const char *name) {
  for (auto &attribute : *node.mutable_attribute())
    if (attribute.name() == name && attribute.has_g())
      return attribute.mutable_g();
  return nullptr;
}

/// True if the node, or one in its bodies, reads one of `names`.
bool reads(const onnx::NodeProto &node, const std::set<std::string> &names) {
  for (const std::string &input : node.input())
    if (names.contains(input))
      return true;
  for (const auto &attribute : node.attribute()) {
    for (const auto &inner : attribute.g().node())
      if (reads(inner, names))
        return true;
    for (const auto &output : attribute.g().output())
      if (names.contains(output.name()))
        return true;
  }
  return false;
}

class BranchContinuer {
public:
  explicit BranchContinuer(int &count) : count(count) {}

  bool run(onnx::GraphProto &graph, const KnownRanks *outer) {
    KnownRanks known(graph, outer);
    for (int i = 0; i < graph.node_size(); ++i) {
      onnx::NodeProto &node = *graph.mutable_node(i);
      for (auto &attribute : *node.mutable_attribute())
        if (attribute.has_g() && run(*attribute.mutable_g(), &known))
          return true;
      if (node.op_type() != "If" || node.input_size() != 1)
        continue;
      if (endBranch(node, known) || continueIn(graph, i, known))
        return true;
    }
    return false;
  }

private:
  /// Why a node cannot run whatever its inputs hold; empty if it may.
  static std::string impossible(const onnx::NodeProto &node,
                                const KnownRanks &known) {
    const std::string &op = node.op_type();
    if (op != "LSTM" && op != "GRU" && op != "RNN")
      return {};
    auto rank = node.input_size() ? known.of(node.input(0)) : std::nullopt;
    if (!rank || *rank == 3)
      return {};
    return fmt::format(
        "the branch taken ends at node '{}' ({}), whose input has {} "
        "dimensions and needs three; give the model inputs of other sizes",
        node.name().empty() ? node.output(0) : node.name(), op, *rank);
  }

  /// Leaves of a branch that cannot be run to its end what says so.
  static bool endBranch(onnx::NodeProto &node, const KnownRanks &outer) {
    for (const char *name : {"then_branch", "else_branch"}) {
      onnx::GraphProto *body = bodyOf(node, name);
      if (!body)
        continue;
      const KnownRanks known(*body, &outer);
      for (const auto &inner : body->node()) {
        const std::string why = impossible(inner, known);
        if (why.empty())
          continue;
        onnx::NodeProto end;
        end.set_op_type(kImpossible);
        end.set_domain(kOwnDomain);
        end.set_name(inner.name());
        // Not a constant, that it is not run when the bundle is opened.
        end.add_input(node.input(0));
        for (const auto &output : body->output())
          end.add_output(output.name());
        auto *text = end.add_attribute();
        text->set_name("message");
        text->set_type(onnx::AttributeProto::STRING);
        text->set_s(why);
        body->clear_node();
        body->clear_value_info();
        *body->add_node() = std::move(end);
        return true;
      }
    }
    return false;
  }

  /// Moves what follows node `at`, an If, into its branches, if the ranks of
  /// its results are those of a branch.
  bool continueIn(onnx::GraphProto &graph, int at, const KnownRanks &outer) {
    constexpr int kMost = 16; // each time the nodes that follow double
    onnx::NodeProto &node = *graph.mutable_node(at);
    onnx::GraphProto *bodies[] = {bodyOf(node, "then_branch"),
                                  bodyOf(node, "else_branch")};
    if (!bodies[0] || !bodies[1] || count >= kMost)
      return false;
    const int results = node.output_size();
    if (bodies[0]->output_size() != results ||
        bodies[1]->output_size() != results)
      return false;
    const KnownRanks known[] = {{*bodies[0], &outer}, {*bodies[1], &outer}};
    bool differ = false;
    for (int o = 0; o < results; ++o) {
      auto first = known[0].of(bodies[0]->output(o).name()),
           second = known[1].of(bodies[1]->output(o).name());
      if (!first || !second)
        return false;
      differ |= *first != *second;
    }
    if (!differ)
      return false;
    ++count;

    // What hangs on the results goes on within, what does not stays before.
    std::set<std::string> following(node.output().begin(), node.output().end());
    std::vector<onnx::NodeProto> before, after;
    for (int i = at + 1; i < graph.node_size(); ++i) {
      onnx::NodeProto &next = *graph.mutable_node(i);
      const bool hangs = reads(next, following);
      if (hangs)
        following.insert(next.output().begin(), next.output().end());
      (hangs ? after : before).push_back(std::move(next));
    }
    following.erase("");
    std::vector<onnx::ValueInfoProto> made;
    for (const auto &output : graph.output())
      if (following.contains(output.name()))
        made.push_back(output);

    for (int side = 0; side < 2; ++side) {
      onnx::GraphProto &body = *bodies[side];
      Names names;
      for (const std::string &name : following)
        names.emplace(name,
                      fmt::format("continued_{}_{}/{}", count, side, name));
      for (int o = 0; o < results; ++o)
        if (!node.output(o).empty())
          names[node.output(o)] = body.output(o).name();
      for (onnx::NodeProto copy : after) {
        renameValues(copy, names);
        *body.add_node() = std::move(copy);
      }
      body.clear_output();
      for (const auto &output : made) {
        auto *own = body.add_output();
        *own = output;
        renameValue(*own->mutable_name(), names);
      }
    }
    onnx::NodeProto last = std::move(node);
    last.clear_output();
    for (const auto &output : made)
      last.add_output(output.name());
    graph.mutable_node()->DeleteSubrange(at, graph.node_size() - at);
    for (onnx::NodeProto &one : before)
      *graph.add_node() = std::move(one);
    *graph.add_node() = std::move(last);
    return true;
  }

  int &count; ///< of what was continued so far, in all graphs
};
} // namespace

void isthmus::import::renameValue(std::string &name, const Names &names) {
  if (auto found = names.find(name); found != names.end())
    name = found->second;
}

void isthmus::import::renameValues(onnx::NodeProto &node, const Names &names) {
  for (std::string &input : *node.mutable_input())
    renameValue(input, names);
  for (std::string &output : *node.mutable_output())
    renameValue(output, names);
  for (auto &attribute : *node.mutable_attribute())
    if (attribute.has_g()) {
      for (auto &inner : *attribute.mutable_g()->mutable_node())
        renameValues(inner, names);
      for (auto &output : *attribute.mutable_g()->mutable_output())
        renameValue(*output.mutable_name(), names);
    }
}

bool isthmus::import::continueInBranches(onnx::GraphProto &graph, int &count) {
  return BranchContinuer(count).run(graph, nullptr);
}
