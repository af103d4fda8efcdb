//===- ContribOperators.cpp - onnxruntime's operators spelled out ---------===//
//
// github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
//
//===----------------------------------------------------------------------===//
#include "Simplify.h"

#include <onnx/onnx_pb.h>
#include <string>
#include <vector>

using namespace isthmus::import;

namespace {
class Replacement {
public:
  explicit Replacement(onnx::GraphProto &graph) : graph(graph) {}

  void run() {
    google::protobuf::RepeatedPtrField<onnx::NodeProto> old;
    old.Swap(graph.mutable_node());
    for (auto &node : old) {
      for (auto &attribute : *node.mutable_attribute())
        if (attribute.has_g())
          Replacement(*attribute.mutable_g()).run();
      current = &node;
      if (node.domain() != "com.microsoft" || !replace(node))
        *graph.add_node() = std::move(node);
    }
  }

private:
  using Names = std::vector<std::string>;
  onnx::GraphProto &graph;
  const onnx::NodeProto *current = nullptr;
  int made = 0;

  std::string input(int index) const {
    return index < current->input_size() ? current->input(index)
                                         : std::string();
  }
  std::string output(int index) const {
    return index < current->output_size() ? current->output(index)
                                          : std::string();
  }
  const onnx::AttributeProto *attribute(const std::string &name) const {
    for (const auto &attribute : current->attribute())
      if (attribute.name() == name)
        return &attribute;
    return nullptr;
  }
  int64_t integer(const std::string &name) const {
    const auto *found = attribute(name);
    return found ? found->i() : 0;
  }

  /// A value between the nodes that replace one.
  std::string fresh() {
    return current->output(0) + "/part_" + std::to_string(made++);
  }

  /// Adds a node; the name of its result is `result`, or a new one.
  onnx::NodeProto &add(const std::string &op, const Names &inputs,
                       const std::string &result) {
    onnx::NodeProto &node = *graph.add_node();
    node.set_op_type(op);
    node.set_name(current->name());
    for (const std::string &name : inputs)
      node.add_input(name);
    node.add_output(result);
    return node;
  }
  static void set(onnx::NodeProto &node, const std::string &name,
                  int64_t value) {
    auto *attribute = node.add_attribute();
    attribute->set_name(name);
    attribute->set_type(onnx::AttributeProto::INT);
    attribute->set_i(value);
  }
  static void set(onnx::NodeProto &node, const std::string &name,
                  const std::string &value) {
    auto *attribute = node.add_attribute();
    attribute->set_name(name);
    attribute->set_type(onnx::AttributeProto::STRING);
    attribute->set_s(value);
  }

  bool replace(const onnx::NodeProto &node) {
    const std::string &op = node.op_type();
    if (op == "FastGelu")
      return fastGelu();
    if (op == "SkipLayerNormalization")
      return skipLayerNorm();
    if (op == "FusedMatMul")
      return fusedMatMul();
    if (op == "DynamicQuantizeLSTM")
      return dynamicQuantizeLstm();
    return false;
  }

  bool fastGelu() {
    std::string x = input(0);
    if (!input(1).empty()) {
      const std::string sum = fresh();
      add("Add", {x, input(1)}, sum);
      x = sum;
    }
    set(add("Gelu", {x}, output(0)), "approximate", std::string("tanh"));
    return true;
  }

  /// input, skip, gamma, beta, bias; the sum is the fourth result.
  bool skipLayerNorm() {
    if (!output(1).empty() || !output(2).empty())
      return false; // statistics, for training
    std::string sum =
        input(4).empty() && !output(3).empty() ? output(3) : fresh();
    add("Add", {input(0), input(1)}, sum);
    if (!input(4).empty()) {
      const std::string all = output(3).empty() ? fresh() : output(3);
      add("Add", {sum, input(4)}, all);
      sum = all;
    }
    Names inputs = {sum, input(2)};
    if (!input(3).empty())
      inputs.push_back(input(3));
    auto &norm = add("LayerNormalization", inputs, output(0));
    set(norm, "axis", -1);
    if (const auto *epsilon = attribute("epsilon"))
      *norm.add_attribute() = *epsilon;
    return true;
  }

  bool fusedMatMul() {
    if (integer("transBatchA") || integer("transBatchB"))
      return false;
    auto operand = [&](int index, const char *transposed) {
      if (!integer(transposed))
        return input(index);
      const std::string result = fresh();
      // The last two dimensions of any number of them.
      set(add("Einsum", {input(index)}, result), "equation",
          std::string("...ij->...ji"));
      return result;
    };
    const std::string a = operand(0, "transA"), b = operand(1, "transB");
    const auto *alpha = attribute("alpha");
    const bool scaled = alpha && alpha->f() != 1;
    const std::string product = scaled ? fresh() : output(0);
    add("MatMul", {a, b}, product);
    if (!scaled)
      return true;
    const std::string factor = fresh(), typed = fresh();
    auto *value = add("Constant", {}, factor).add_attribute();
    value->set_name("value_float");
    value->set_type(onnx::AttributeProto::FLOAT);
    value->set_f(alpha->f());
    add("CastLike", {factor, product}, typed);
    add("Mul", {product, typed}, output(0));
    return true;
  }

  /// As LSTM, but W and R stand [directions, inputs, 4 hidden] and are
  /// quantised, with a scale each direction.
  bool dynamicQuantizeLstm() {
    auto weight = [&](int index, int scale) {
      const std::string plain = fresh(), turned = fresh();
      set(add("DequantizeLinear",
              {input(index), input(scale), input(scale + 1)}, plain),
          "axis", int64_t(0));
      auto *order = add("Transpose", {plain}, turned).add_attribute();
      order->set_name("perm");
      order->set_type(onnx::AttributeProto::INTS);
      for (int64_t d : {0, 2, 1})
        order->add_ints(d);
      return turned;
    };
    const std::string w = weight(1, 8), r = weight(2, 10);
    onnx::NodeProto lstm = *current;
    lstm.clear_domain();
    lstm.set_op_type("LSTM");
    lstm.clear_input();
    for (const std::string &name :
         {input(0), w, r, input(3), input(4), input(5), input(6), input(7)})
      lstm.add_input(name);
    *graph.add_node() = std::move(lstm);
    return true;
  }
};
} // namespace

void isthmus::import::replaceContribOperators(onnx::GraphProto &graph) {
  Replacement(graph).run();
}
