//===- ContribOperators.cpp - onnxruntime's operators spelled out ---------===//
//
// github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
//
//===----------------------------------------------------------------------===//
#include "Simplify.h"
#include "isthmus/runtime/MappedFile.h"

#include <algorithm>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>
#include <string>
#include <vector>

using namespace isthmus;
using namespace isthmus::import;

namespace {
class Replacement {
public:
  Replacement(OnnxModel &model, onnx::GraphProto &graph)
      : model(model), graph(graph) {}

  void run() {
    google::protobuf::RepeatedPtrField<onnx::NodeProto> old;
    old.Swap(graph.mutable_node());
    for (auto &node : old) {
      for (auto &attribute : *node.mutable_attribute())
        if (attribute.has_g())
          Replacement(model, *attribute.mutable_g()).run();
      current = &node;
      if (node.domain() != "com.microsoft" || !replace(node))
        *graph.add_node() = std::move(node);
    }
  }

private:
  using Names = std::vector<std::string>;
  OnnxModel &model;
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
  static void set(onnx::NodeProto &node, const std::string &name, float value) {
    auto *attribute = node.add_attribute();
    attribute->set_name(name);
    attribute->set_type(onnx::AttributeProto::FLOAT);
    attribute->set_f(value);
  }
  static void set(onnx::NodeProto &node, const std::string &name,
                  const std::vector<int64_t> &values) {
    auto *attribute = node.add_attribute();
    attribute->set_name(name);
    attribute->set_type(onnx::AttributeProto::INTS);
    for (int64_t value : values)
      attribute->add_ints(value);
  }
  static void set(onnx::NodeProto &node, const std::string &name,
                  const std::string &value) {
    auto *attribute = node.add_attribute();
    attribute->set_name(name);
    attribute->set_type(onnx::AttributeProto::STRING);
    attribute->set_s(value);
  }

  /// The result of a node whose name nobody else needs.
  std::string value(const std::string &op, const Names &inputs) {
    const std::string result = fresh();
    add(op, inputs, result);
    return result;
  }
  std::string constant(const std::vector<int64_t> &values) {
    const std::string result = fresh();
    set(add("Constant", {}, result), "value_ints", values);
    return result;
  }
  std::string number(int64_t value) {
    const std::string result = fresh();
    set(add("Constant", {}, result), "value_int", value);
    return result;
  }
  std::string cast(const std::string &input, int64_t type) {
    const std::string result = fresh();
    set(add("Cast", {input}, result), "to", type);
    return result;
  }
  void copyAttribute(const char *name, onnx::NodeProto &to) const {
    if (const auto *found = attribute(name))
      *to.add_attribute() = *found;
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
    if (op == "SimplifiedLayerNormalization")
      return simplifiedLayerNorm();
    if (op == "SkipSimplifiedLayerNormalization")
      return skipSimplifiedLayerNorm();
    if (op == "RotaryEmbedding")
      return rotaryEmbedding();
    if (op == "GroupQueryAttention")
      return groupQueryAttention();
    if (op == "MatMulNBits")
      return matMulNBits();
    if (op == "GatherBlockQuantized")
      return gatherBlockQuantized();
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

  /// input + skip, and the input `bias` if there is one: the fourth result.
  std::string skipSum(int bias) {
    std::string sum =
        input(bias).empty() && !output(3).empty() ? output(3) : fresh();
    add("Add", {input(0), input(1)}, sum);
    if (input(bias).empty())
      return sum;
    const std::string all = output(3).empty() ? fresh() : output(3);
    add("Add", {sum, input(bias)}, all);
    return all;
  }

  /// input, skip, gamma, beta, bias.
  bool skipLayerNorm() {
    if (!output(1).empty() || !output(2).empty())
      return false; // statistics, for training
    const std::string sum = skipSum(4);
    Names inputs = {sum, input(2)};
    if (!input(3).empty())
      inputs.push_back(input(3));
    auto &norm = add("LayerNormalization", inputs, output(0));
    set(norm, "axis", int64_t(-1));
    if (const auto *epsilon = attribute("epsilon"))
      *norm.add_attribute() = *epsilon;
    return true;
  }

  bool simplifiedLayerNorm() {
    if (!output(1).empty())
      return false; // for training
    auto &norm = add("RMSNormalization", {input(0), input(1)}, output(0));
    copyAttribute("axis", norm);
    copyAttribute("epsilon", norm);
    return true;
  }

  /// input, skip, gamma, bias.
  bool skipSimplifiedLayerNorm() {
    if (!output(1).empty() || !output(2).empty())
      return false;
    const std::string sum = skipSum(3);
    copyAttribute("epsilon",
                  add("RMSNormalization", {sum, input(2)}, output(0)));
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

  //===--------------------------------------------------------------------===//
  // Decoders
  //===--------------------------------------------------------------------===//

  /// The sizes of an initializer or an input of the graph; none if they are
  /// unknown.
  std::vector<int64_t> sizesOf(const std::string &name) const {
    for (const auto &tensor : graph.initializer())
      if (tensor.name() == name)
        return {tensor.dims().begin(), tensor.dims().end()};
    std::vector<int64_t> sizes;
    for (const auto &info : graph.input())
      if (info.name() == name)
        for (const auto &dim : info.type().tensor_type().shape().dim())
          sizes.push_back(dim.has_dim_value() ? dim.dim_value() : -1);
    return sizes;
  }

  std::string rotate(const std::string &x, const std::string &positions,
                     int cosines, int64_t heads, const char *interleaved) {
    const std::string result = fresh();
    auto &node =
        add("RotaryEmbedding",
            {x, input(cosines), input(cosines + 1), positions}, result);
    set(node, "num_heads", heads);
    set(node, "interleaved", integer(interleaved));
    return result;
  }

  /// input, position_ids, cos_cache, sin_cache.
  bool rotaryEmbedding() {
    const auto *factor = attribute("scale");
    if (sizesOf(input(1)).size() == 1 || integer("is_packed_batching") ||
        (factor && factor->f() != 1))
      return false;
    auto &node = add("RotaryEmbedding",
                     {input(0), input(2), input(3), input(1)}, output(0));
    for (const char *name :
         {"num_heads", "interleaved", "rotary_embedding_dim"})
      copyAttribute(name, node);
    return true;
  }

  /// query, key, value, past_key, past_value, seqlens_k,
  /// total_sequence_length, cos_cache, sin_cache, position_ids; query may hold
  /// key and value too. The cache is not written in place: present is past and
  /// what is new.
  bool groupQueryAttention() {
    for (int unsupported : {10, 11, 12, 13}) // biases, sinks, scales of caches
      if (!input(unsupported).empty())
        return false;
    if (integer("smooth_softmax") == 1 || integer("qk_output") ||
        !output(3).empty())
      return false;
    const int64_t heads = integer("num_heads"),
                  kvHeads = integer("kv_num_heads");
    const bool rotary = integer("do_rotary") != 0;
    // The size of a head: two values for each of an angle.
    int64_t size = -1;
    if (const auto angles = sizesOf(input(7)); rotary && angles.size() == 2)
      size = 2 * angles[1];
    else if (const auto past = sizesOf(input(3)); past.size() == 4)
      size = past[3];
    constexpr int64_t kMost = 1 << 16;
    if (size <= 0 || heads <= 0 || kvHeads <= 0 || size > kMost ||
        heads > kMost || kvHeads > kMost)
      return false;
    for (int past : {3, 4})
      fixSize(input(past), 3, size);
    std::string q = input(0), k = input(1), v = input(2);
    if (k.empty()) {
      Names parts = {fresh(), fresh(), fresh()};
      auto &split =
          add("Split",
              {q, constant({heads * size, kvHeads * size, kvHeads * size})},
              parts[0]);
      split.add_output(parts[1]);
      split.add_output(parts[2]);
      set(split, "axis", int64_t(-1));
      q = parts[0], k = parts[1], v = parts[2];
    }
    const std::string length = lengthOf(input(0), 1);
    const std::string one = number(1), zero = number(0);
    if (rotary) {
      std::string positions = input(9);
      if (positions.empty()) {
        const std::string last = cast(input(5), onnx::TensorProto::INT64);
        const std::string first = value(
            "Max", {value("Sub", {value("Add", {last, one}), length}), zero});
        positions = value("Add", {value("Unsqueeze", {first, constant({1})}),
                                  value("Range", {zero, length, one})});
      }
      q = rotate(q, positions, 7, heads, "rotary_interleaved");
      k = rotate(k, positions, 7, kvHeads, "rotary_interleaved");
    }
    std::string mask;
    if (const int64_t window = integer("local_window_size"); window > 0) {
      const std::string total =
          value("Squeeze", {cast(input(6), onnx::TensorProto::INT64)});
      const std::string rows =
          value("Range", {value("Sub", {total, length}), total, one});
      const std::string least = value(
          "Sub", {value("Unsqueeze", {rows, constant({1})}), number(window)});
      mask = value("Greater", {value("Range", {zero, total, one}), least});
    }
    auto &node =
        add("Attention", {q, k, v, mask, input(3), input(4)}, output(0));
    node.add_output(output(1));
    node.add_output(output(2));
    set(node, "q_num_heads", heads);
    set(node, "kv_num_heads", kvHeads);
    set(node, "is_causal", int64_t(1));
    if (const auto *scale = attribute("scale"); scale && scale->f() != 0)
      set(node, "scale", scale->f());
    copyAttribute("softcap", node);
    return true;
  }

  /// A dimension as a number.
  std::string lengthOf(const std::string &name, int64_t dimension) {
    const std::string sizes = fresh();
    auto &shape = add("Shape", {name}, sizes);
    set(shape, "start", dimension);
    set(shape, "end", dimension + 1);
    return value("Squeeze", {sizes});
  }

  /// Says a size of an input of the graph, if the file leaves it open.
  void fixSize(const std::string &name, int dimension, int64_t size) {
    for (auto &info : *graph.mutable_input()) {
      auto &type = *info.mutable_type()->mutable_tensor_type();
      if (info.name() == name && dimension < type.shape().dim_size() &&
          !type.shape().dim(dimension).has_dim_value())
        type.mutable_shape()->mutable_dim(dimension)->set_dim_value(size);
    }
  }

  /// The bytes of an initializer as elements of another type and other sizes;
  /// an empty name if it is none, or has other bytes.
  std::string reinterpret(std::string name, int32_t type,
                          const std::vector<int64_t> &sizes) {
    // Exporters give what two nodes share another shape.
    for (const auto &node : graph.node())
      if (node.op_type() == "Reshape" && node.output(0) == name)
        name = node.input(0);
    uint64_t bytes = uint64_t(rt::packedBits(rt::DataType(type)));
    for (int64_t size : sizes)
      bytes *= uint64_t(size);
    bytes /= 8;
    const std::string result =
        fmt::format("{}/{}[{}]", name, type, fmt::join(sizes, ","));
    if (auto place = model.places.find(name); place != model.places.end()) {
      if (place->second.bytes != bytes)
        return {};
      if (!model.places.try_emplace(result, place->second).second)
        return result;
      auto *info = graph.add_input();
      info->set_name(result);
      auto *tensor = info->mutable_type()->mutable_tensor_type();
      tensor->set_elem_type(type);
      for (int64_t size : sizes)
        tensor->mutable_shape()->add_dim()->set_dim_value(size);
      return result;
    }
    for (const auto &tensor : graph.initializer())
      if (tensor.name() == result)
        return result;
    for (const auto &tensor : graph.initializer()) {
      if (tensor.name() != name)
        continue;
      if (tensor.raw_data().size() != bytes)
        return {};
      onnx::TensorProto other = tensor;
      other.set_name(result);
      other.set_data_type(type);
      other.clear_dims();
      for (int64_t size : sizes)
        other.add_dims(size);
      *graph.add_initializer() = std::move(other);
      return result;
    }
    return {};
  }

  /// Four-bit values whose rows end on whole bytes, of an odd number in each,
  /// as an initializer in which one follows on the other.
  std::string withoutPadding(const std::string &name,
                             const std::vector<int64_t> &sizes) {
    const auto rows = size_t(sizes[0]), columns = size_t(sizes[1]),
               stride = (columns + 1) / 2;
    std::string bytes;
    if (auto place = model.places.find(name); place != model.places.end()) {
      const rt::MappedFile file(place->second.file);
      const auto part =
          file.slice(place->second.offset, place->second.bytes, name);
      bytes.assign(reinterpret_cast<const char *>(part.data()), part.size());
    }
    for (const auto &tensor : graph.initializer())
      if (tensor.name() == name)
        bytes = tensor.raw_data();
    if (bytes.size() != rows * stride)
      return {};
    std::string together((rows * columns + 1) / 2, 0);
    for (size_t i = 0; i < rows * columns; ++i) {
      const size_t row = i / columns, column = i % columns;
      const int value =
          bytes[row * stride + column / 2] >> (column % 2 * 4) & 15;
      together[i / 2] = char(together[i / 2] | value << (i % 2 * 4));
    }
    auto &tensor = *graph.add_initializer();
    tensor.set_name(fresh());
    tensor.set_data_type(onnx::TensorProto::UINT4);
    for (int64_t size : sizes)
      tensor.add_dims(size);
    tensor.set_raw_data(together);
    return tensor.name();
  }

  /// Values of 4 or 8 bits in blocks along `columns`, as floats.
  std::string dequantize(int values, int scales, int zeros, int64_t rows,
                         int64_t columns, int64_t block) {
    const int64_t bits = attribute("bits") ? integer("bits") : 4;
    constexpr int64_t kMost = 1 << 28; // products of two and bits fit 64
    if ((bits != 4 && bits != 8) || block <= 0 || columns <= 0 || rows <= 0 ||
        rows > kMost || columns > kMost || columns % block != 0)
      return {};
    const int32_t type =
        bits == 4 ? onnx::TensorProto::UINT4 : onnx::TensorProto::UINT8;
    const std::vector<int64_t> blocks = {rows, columns / block};
    const std::string q = reinterpret(input(values), type, {rows, columns});
    if (q.empty())
      return {};
    std::string zero;
    if (input(zeros).empty()) {
      // The middle.
      zero = cast(
          value("Expand", {number(int64_t(1) << (bits - 1)), constant(blocks)}),
          type);
    } else if (blocks[1] * bits % 8 == 0) {
      zero = reinterpret(input(zeros), type, blocks);
    } else {
      zero = withoutPadding(input(zeros), blocks);
    }
    if (zero.empty())
      return {};
    const std::string scale =
        value("Reshape", {input(scales), constant(blocks)});
    const std::string result = fresh();
    auto &node = add("DequantizeLinear", {q, scale, zero}, result);
    set(node, "axis", int64_t(1));
    set(node, "block_size", block);
    return result;
  }

  /// A, B, scales, zero_points, g_idx, bias.
  bool matMulNBits() {
    if (!input(4).empty())
      return false;
    const std::string weight =
        dequantize(1, 2, 3, integer("N"), integer("K"), integer("block_size"));
    if (weight.empty())
      return false;
    const std::string turned = fresh();
    set(add("Transpose", {weight}, turned), "perm", std::vector<int64_t>{1, 0});
    const std::string product = input(5).empty() ? output(0) : fresh();
    add("MatMul", {input(0), turned}, product);
    if (!input(5).empty())
      add("Add", {product, input(5)}, output(0));
    return true;
  }

  /// data, indices, scales, zero_points.
  bool gatherBlockQuantized() {
    const auto stored = sizesOf(input(2));
    const int64_t block = attribute("block_size") ? integer("block_size") : 128;
    const int64_t axis =
        attribute("quantize_axis") ? integer("quantize_axis") : 1;
    if (stored.size() != 2 || integer("gather_axis") != 0 ||
        (axis != 1 && axis != -1))
      return false;
    const std::string table = dequantize(
        0, 2, 3, stored[0],
        stored[1] < (1 << 28) && block < (1 << 28) ? stored[1] * block : 0,
        block);
    if (table.empty())
      return false;
    set(add("Gather", {table, input(1)}, output(0)), "axis", int64_t(0));
    return true;
  }
};
} // namespace

void isthmus::import::nameContribOperators(onnx::GraphProto &graph) {
  for (auto &node : *graph.mutable_node())
    if (node.op_type() == "SimplifiedLayerNormalization" &&
        node.domain().empty())
      node.set_domain("com.microsoft");
}

void isthmus::import::replaceContribOperators(OnnxModel &model) {
  Replacement(model, *model.proto->mutable_graph()).run();
}
