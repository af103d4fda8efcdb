//===- KnownBranches.cpp - If nodes whose branch is known -----------------===//
//
// What is known: constants, sizes, and what exporters work out of them.
//
#include "Simplify.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <onnx/onnx_pb.h>
#include <optional>
#include <string>
#include <vector>

using namespace isthmus::import;

namespace {
/// Elements of a small tensor of integers or bools, as far as they are known.
/// The sizes count where there are several dimensions.
struct Known {
  std::vector<std::optional<int64_t>> elements;
  std::vector<int64_t> sizes;

  Known() = default;
  Known(std::vector<std::optional<int64_t>> values)
      : elements(std::move(values)), sizes{int64_t(elements.size())} {}
  static Known scalar(int64_t value) { return Known({value}); }

  /// The only element, if there is one and it is known.
  std::optional<int64_t> single() const {
    return elements.size() == 1 ? elements[0] : std::nullopt;
  }
  bool complete() const {
    return std::ranges::all_of(elements, [](auto &e) { return bool(e); });
  }
};
using Elements = std::vector<std::optional<int64_t>>;

class KnownValues {
public:
  /// \param outer of the graph around it, or null.
  KnownValues(const onnx::GraphProto &graph, const KnownValues *outer)
      : outer(outer) {
    for (const auto *list : {&graph.input(), &graph.value_info()})
      for (const auto &info : *list)
        noteSizes(info.name(), info.type());
    for (const auto &tensor : graph.initializer()) {
      sizes[tensor.name()] = {tensor.dims().begin(), tensor.dims().end()};
      noteTensor(tensor.name(), tensor);
    }
  }

  /// Looks at the next node.
  void add(const onnx::NodeProto &node) {
    if (node.output_size() == 1)
      if (auto result = evaluate(node))
        values[node.output(0)] = std::move(*result);
  }

  std::optional<bool> truth(const std::string &name) const {
    const Known *found = find(name);
    const auto value = found ? found->single() : std::nullopt;
    return value ? std::optional(*value != 0) : std::nullopt;
  }

  /// The elements of a vector of which all are known; null otherwise.
  const Known *vectorOf(const std::string &name) const {
    const Known *found = find(name);
    return found && found->sizes.size() == 1 && found->complete() ? found
                                                                  : nullptr;
  }

private:
  const KnownValues *outer;
  std::map<std::string, std::vector<int64_t>> sizes; ///< 0 or less: unknown
  std::map<std::string, Known> values;

  void noteSizes(const std::string &name, const onnx::TypeProto &type) {
    if (!type.has_tensor_type() || !type.tensor_type().has_shape())
      return;
    std::vector<int64_t> own;
    for (const auto &dim : type.tensor_type().shape().dim())
      own.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
    sizes.emplace(name, std::move(own));
  }

  void noteTensor(const std::string &name, const onnx::TensorProto &tensor) {
    constexpr int64_t kMost = 64;
    int64_t count = 1;
    for (int64_t size : tensor.dims())
      count *= std::clamp<int64_t>(size, 0, kMost + 1);
    if (tensor.data_type() != onnx::TensorProto::INT64 || count > kMost)
      return;
    Known known;
    const std::string &raw = tensor.raw_data();
    if (tensor.has_raw_data() && raw.size() == size_t(count) * 8)
      for (int64_t i = 0; i < count; ++i) {
        int64_t value = 0;
        std::memcpy(&value, raw.data() + i * 8, 8);
        known.elements.emplace_back(value);
      }
    else if (tensor.int64_data_size() == count)
      known.elements.assign(tensor.int64_data().begin(),
                            tensor.int64_data().end());
    else
      return;
    known.sizes.assign(tensor.dims().begin(), tensor.dims().end());
    values[name] = std::move(known);
  }

  const Known *find(const std::string &name) const {
    if (auto found = values.find(name); found != values.end())
      return &found->second;
    return outer ? outer->find(name) : nullptr;
  }

  const std::vector<int64_t> *findSizes(const std::string &name) const {
    if (auto found = sizes.find(name); found != sizes.end())
      return &found->second;
    return outer ? outer->findSizes(name) : nullptr;
  }

  static int64_t integer(const onnx::NodeProto &node, const char *name,
                         int64_t otherwise) {
    for (const auto &attribute : node.attribute())
      if (attribute.name() == name)
        return attribute.i();
    return otherwise;
  }

  std::optional<Known> evaluate(const onnx::NodeProto &node) {
    const std::string &op = node.op_type();
    auto input = [&](int i) -> const Known * {
      return i < node.input_size() ? find(node.input(i)) : nullptr;
    };
    if (op == "Constant")
      return constant(node);
    if (op == "Shape")
      return shape(node);
    const Known *a = input(0), *b = input(1);
    if (op == "Size")
      return a ? std::optional(Known::scalar(int64_t(a->elements.size())))
               : std::nullopt;
    if (op == "Identity" || op == "Cast")
      return a ? std::optional(*a) : std::nullopt;
    if (op == "Squeeze" || op == "Unsqueeze")
      // Of vectors and scalars alone: their elements stay in order.
      return a && a->sizes.size() < 2 ? std::optional(Known(a->elements))
                                      : std::nullopt;
    if (op == "Concat") {
      Elements all;
      for (int i = 0; i < node.input_size(); ++i) {
        const Known *part = input(i);
        if (!part || part->sizes.size() > 1)
          return std::nullopt;
        all.insert(all.end(), part->elements.begin(), part->elements.end());
      }
      return Known(all);
    }
    if (op == "Not" && a && a->single())
      return Known::scalar(*a->single() == 0);
    if (op == "ConstantOfShape" && a && a->complete())
      return filled(node, *a);
    if (op == "Transpose" && a && a->sizes.size() == 2)
      return transposed(*a);
    if (!a || !b || !b->complete())
      return std::nullopt;
    if (op == "Reshape")
      return reshaped(*a, *b);
    if (op == "Gather")
      return gathered(*a, *b);
    if (op == "Slice" && node.input_size() == 5)
      return reversed(*a, *b, input(3), input(4));
    if (!a->single() || !b->single())
      return std::nullopt;
    const int64_t x = *a->single(), y = *b->single();
    if (op == "Equal")
      return Known::scalar(x == y);
    if (op == "Less")
      return Known::scalar(x < y);
    if (op == "Greater")
      return Known::scalar(x > y);
    if (op == "And")
      return Known::scalar(x && y);
    if (op == "Or")
      return Known::scalar(x || y);
    return std::nullopt;
  }

  static std::optional<Known> gathered(const Known &from, const Known &places) {
    if (from.sizes.size() > 1)
      return std::nullopt;
    Elements picked;
    for (const auto &index : places.elements) {
      const auto size = int64_t(from.elements.size());
      const int64_t at = *index < 0 ? *index + size : *index;
      if (at < 0 || at >= size)
        return std::nullopt;
      picked.push_back(from.elements[size_t(at)]);
    }
    return Known(picked);
  }

  static std::optional<Known> filled(const onnx::NodeProto &node,
                                     const Known &sizes) {
    constexpr int64_t kMost = 64;
    for (const auto &attribute : node.attribute())
      if (attribute.name() == "value") {
        const auto &value = attribute.t();
        const bool zero =
            value.has_raw_data() &&
            value.raw_data().find_first_not_of('\0') == std::string::npos;
        const bool listed = value.int64_data_size() == 1;
        if (value.data_type() != onnx::TensorProto::INT64 ||
            sizes.elements.size() != 1 || *sizes.elements[0] < 0 ||
            *sizes.elements[0] > kMost || (!zero && !listed))
          return std::nullopt;
        return Known(Elements(size_t(*sizes.elements[0]),
                              listed ? value.int64_data(0) : 0));
      }
    return std::nullopt;
  }

  static std::optional<Known> reshaped(const Known &from, const Known &target) {
    Known result = from;
    result.sizes.clear();
    int64_t product = 1;
    for (const auto &size : target.elements) {
      if (*size < -1 || *size == 0 || *size > 64)
        return std::nullopt;
      result.sizes.push_back(*size);
      product *= *size < 0 ? 1 : *size;
    }
    const auto count = int64_t(from.elements.size());
    for (int64_t &size : result.sizes)
      if (size < 0)
        size = count / product;
    product = 1;
    for (int64_t size : result.sizes)
      product *= size;
    return product == count ? std::optional(result) : std::nullopt;
  }

  static Known transposed(const Known &from) {
    const int64_t rows = from.sizes[0], columns = from.sizes[1];
    Known result = from;
    result.sizes = {columns, rows};
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c)
        result.elements[size_t(c * rows + r)] =
            from.elements[size_t(r * columns + c)];
    return result;
  }

  /// [::-1] along the first dimension, as PyTorch's padding is exported.
  static std::optional<Known> reversed(const Known &from, const Known &start,
                                       const Known *axes, const Known *steps) {
    if (!axes || !steps || from.sizes.empty() || axes->single() != 0 ||
        steps->single() != -1 || start.single() != -1)
      return std::nullopt;
    const int64_t rows = from.sizes[0];
    const auto row = rows ? int64_t(from.elements.size()) / rows : 0;
    Known result = from;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < row; ++i)
        result.elements[size_t(r * row + i)] =
            from.elements[size_t((rows - 1 - r) * row + i)];
    return result;
  }

  std::optional<Known> constant(const onnx::NodeProto &node) {
    for (const auto &attribute : node.attribute()) {
      if (attribute.name() == "value_int")
        return Known::scalar(attribute.i());
      if (attribute.name() == "value_ints")
        return Known(
            Elements(attribute.ints().begin(), attribute.ints().end()));
      if (attribute.name() == "value") {
        noteTensor(node.output(0), attribute.t());
        const Known *found = find(node.output(0));
        return found ? std::optional(*found) : std::nullopt;
      }
    }
    return std::nullopt;
  }

  std::optional<Known> shape(const onnx::NodeProto &node) {
    const std::vector<int64_t> *found = findSizes(node.input(0));
    if (!found)
      return std::nullopt;
    const auto rank = int64_t(found->size());
    auto place = [&](const char *name, int64_t otherwise) {
      const int64_t at = integer(node, name, otherwise);
      return std::clamp(at < 0 ? at + rank : at, int64_t(0), rank);
    };
    Elements known;
    for (int64_t d = place("start", 0); d < place("end", rank); ++d) {
      const int64_t size = (*found)[size_t(d)];
      known.push_back(size > 0 ? std::optional(size) : std::nullopt);
    }
    return Known(known);
  }
};

class BranchTaker {
public:
  explicit BranchTaker(int &count) : count(count) {}

  bool run(onnx::GraphProto &graph, const KnownValues *outer) {
    KnownValues known(graph, outer);
    google::protobuf::RepeatedPtrField<onnx::NodeProto> nodes;
    bool taken = false;
    for (auto &node : *graph.mutable_node()) {
      auto condition = node.op_type() == "If" && node.input_size() == 1
                           ? known.truth(node.input(0))
                           : std::nullopt;
      if (!condition) {
        for (auto &attribute : *node.mutable_attribute())
          if (attribute.has_g())
            taken |= run(*attribute.mutable_g(), &known);
        known.add(node);
        taken |= writeOut(node, known, nodes);
        *nodes.Add() = std::move(node);
        continue;
      }
      for (auto &attribute : *node.mutable_attribute())
        if (attribute.name() == (*condition ? "then_branch" : "else_branch"))
          inlineBranch(graph, node, *attribute.mutable_g(), nodes);
      taken = true;
    }
    graph.mutable_node()->Swap(&nodes);
    return taken;
  }

private:
  /// What says how far to pad is written out, for the library's inference to
  /// see.
  static bool
  writeOut(onnx::NodeProto &node, const KnownValues &known,
           google::protobuf::RepeatedPtrField<onnx::NodeProto> &nodes) {
    if (node.op_type() != "Pad" || node.input_size() < 2 ||
        node.input(1).ends_with("/known"))
      return false;
    const Known *pads = known.vectorOf(node.input(1));
    if (!pads)
      return false;
    auto *constant = nodes.Add();
    constant->set_op_type("Constant");
    constant->add_output(node.output(0) + "/known");
    auto *value = constant->add_attribute();
    value->set_name("value_ints");
    value->set_type(onnx::AttributeProto::INTS);
    for (const auto &element : pads->elements)
      value->add_ints(*element);
    node.set_input(1, constant->output(0));
    return true;
  }

  int &count; ///< branches taken so far, in all graphs

  void
  inlineBranch(onnx::GraphProto &graph, const onnx::NodeProto &node,
               onnx::GraphProto &branch,
               google::protobuf::RepeatedPtrField<onnx::NodeProto> &nodes) {
    const int results = std::min(node.output_size(), branch.output_size());
    // Branches may call different values by one name; here they come together.
    const std::string prefix = "branch_" + std::to_string(count++) + "/";
    std::map<std::string, std::string> names;
    auto define = [&](const std::string &name) {
      if (!name.empty())
        names.emplace(name, prefix + name);
    };
    for (const auto &tensor : branch.initializer())
      define(tensor.name());
    for (const auto &inner : branch.node())
      for (const std::string &output : inner.output())
        define(output);
    std::map<std::string, bool> named;
    for (int o = 0; o < results; ++o)
      if (auto own = names.find(branch.output(o).name());
          own != names.end() && !named[own->first]) {
        own->second = node.output(o);
        named[own->first] = true;
      }
    for (auto &tensor : *branch.mutable_initializer()) {
      renameValue(*tensor.mutable_name(), names);
      *graph.add_initializer() = std::move(tensor);
    }
    for (auto &info : *branch.mutable_value_info()) {
      renameValue(*info.mutable_name(), names);
      *graph.add_value_info() = std::move(info);
    }
    for (auto &inner : *branch.mutable_node()) {
      renameValues(inner, names);
      *nodes.Add() = std::move(inner);
    }
    // Results that come from outside, or twice.
    for (int o = 0; o < results; ++o) {
      std::string source = branch.output(o).name();
      renameValue(source, names);
      if (source == node.output(o))
        continue;
      auto *copy = nodes.Add();
      copy->set_op_type("Identity");
      copy->add_input(source);
      copy->add_output(node.output(o));
    }
  }
};
} // namespace

bool isthmus::import::takeKnownBranches(onnx::GraphProto &graph) {
  int count = 0;
  return BranchTaker(count).run(graph, nullptr);
}
