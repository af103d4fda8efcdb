//===- Graphs.cpp - graphs of tensors (ONNX) on the command line ----------===//
#include "Graphs.h"

#include "../Sizes.h"
#include "Npy.h"
#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <nlohmann/json.hpp>

using namespace isthmus;
using namespace isthmus::cli;
using nlohmann::json;
using rt::DataType;
using rt::Tensor;
using rt::Value;

bool cli::isGraph(const rt::Bundle &bundle) {
  return bundle.manifest().programs(0).has_graph();
}

std::string cli::typeText(const bundle::GraphValue &value) {
  std::string text(rt::nameOf(DataType(value.type())));
  if (value.type() == 0)
    return "a sequence or optional";
  if (!value.ranked())
    return text;
  std::vector<std::string> sizes;
  for (int64_t size : value.sizes())
    sizes.push_back(size < 0 ? "?" : std::to_string(size));
  return fmt::format("{} [{}]", text, fmt::join(sizes, ", "));
}

namespace {
/// An opened graph, its bytes checked.
struct OpenGraph {
  OpenGraph(rt::Bundle opened, const SessionOptions &options)
      : bundle(std::move(opened)), library(bundle),
        pool(options.threads ? options.threads
                             : rt::ThreadPool::availableProcessors()) {
    std::vector<rt::Bundle::Range> ranges;
    for (const auto &weight : bundle.manifest().weights())
      ranges.push_back({weight.blob(), weight.offset(), weight.size()});
    bundle.verify(ranges, pool.size());
    executor.emplace(bundle, bundle.manifest().programs(0), library, pool);
  }
  rt::Bundle bundle;
  rt::KernelLibrary library;
  rt::ThreadPool pool;
  std::optional<rt::GraphExecutor> executor;
};

template <typename To, typename From>
void fill(Tensor &tensor, const std::vector<From> &values) {
  for (size_t i = 0; i < values.size(); ++i)
    tensor.as<To>()[i] = To(values[i]);
}

/// The upper half of an f32, rounded to nearest even.
uint16_t toBF16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// An array as a tensor of the type that an input has.
Tensor toTensor(const NpyArray &array, DataType type,
                const std::string &where) {
  Tensor tensor = Tensor::allocate(
      type, std::vector<int64_t>(array.shape.begin(), array.shape.end()));
  const bool integers = !array.integers.empty();
  auto need = [&](bool condition) {
    if (!condition)
      throw rt::Error("{}: does not hold values for {}", where,
                      rt::nameOf(type));
  };
  switch (type) {
  case DataType::F32:
    fill<float>(tensor, array.floats);
    break;
  case DataType::F64:
    fill<double>(tensor, array.floats);
    break;
  case DataType::F16:
    fill<_Float16>(tensor, array.floats);
    break;
  case DataType::BF16:
    for (size_t i = 0; i < array.floats.size(); ++i)
      tensor.as<uint16_t>()[i] = toBF16(array.floats[i]);
    break;
  case DataType::I64:
  case DataType::U64:
    fill<int64_t>(tensor, array.integers);
    break;
  case DataType::I32:
  case DataType::U32:
    fill<int32_t>(tensor, array.integers);
    break;
  case DataType::I16:
  case DataType::U16:
    fill<int16_t>(tensor, array.integers);
    break;
  case DataType::I8:
  case DataType::U8:
    fill<int8_t>(tensor, array.integers);
    break;
  case DataType::Bool:
    for (size_t i = 0; i < array.integers.size(); ++i)
      tensor.as<uint8_t>()[i] = array.integers[i] != 0;
    break;
  default:
    need(false);
  }
  const bool isFloat = type == DataType::F32 || type == DataType::F64 ||
                       type == DataType::F16 || type == DataType::BF16;
  need(tensor.count() == 0 || isFloat != integers);
  return tensor;
}

/// An element as a number for people.
json numberAt(const Tensor &tensor, size_t i) {
  switch (tensor.type) {
  case DataType::F32:
    return tensor.as<float>()[i];
  case DataType::F64:
    return tensor.as<double>()[i];
  case DataType::F16:
    return float(tensor.as<_Float16>()[i]);
  case DataType::BF16:
    return std::bit_cast<float>(uint32_t(tensor.as<uint16_t>()[i]) << 16);
  case DataType::I64:
    return tensor.as<int64_t>()[i];
  case DataType::U64:
    return tensor.as<uint64_t>()[i];
  case DataType::I32:
    return tensor.as<int32_t>()[i];
  case DataType::U32:
    return tensor.as<uint32_t>()[i];
  case DataType::I16:
    return tensor.as<int16_t>()[i];
  case DataType::U16:
    return tensor.as<uint16_t>()[i];
  case DataType::I8:
  case DataType::I4:
  case DataType::I2:
    return tensor.as<int8_t>()[i];
  case DataType::Bool:
    return tensor.as<uint8_t>()[i] != 0;
  case DataType::String:
    return (*tensor.texts)[i];
  default:
    return tensor.as<uint8_t>()[i];
  }
}

json toJson(const Value &value) {
  if (value.empty())
    return nullptr;
  if (const Tensor *tensor = value.tensor()) {
    json values = json::array();
    for (size_t i = 0; i < size_t(tensor->count()); ++i)
      values.push_back(numberAt(*tensor, i));
    return {{"type", rt::nameOf(tensor->type)},
            {"shape", tensor->sizes},
            {"values", values}};
  }
  json items = json::array();
  for (const Value &item : value.needSequence())
    items.push_back(toJson(item));
  return items;
}

void print(const std::string &name, const Value &value) {
  const Tensor *tensor = value.tensor();
  if (!tensor) {
    fmt::print("{}: {}\n", name,
               value.empty()
                   ? "nothing"
                   : fmt::format("{} items", value.needSequence().size()));
    return;
  }
  constexpr size_t kShown = 8;
  std::string text;
  const auto count = size_t(tensor->count());
  for (size_t i = 0; i < std::min(count, kShown); ++i)
    text += (i ? ", " : "") + numberAt(*tensor, i).dump();
  fmt::print("{}: {} [{}] = {}{}\n", name, rt::nameOf(tensor->type),
             fmt::join(tensor->sizes, ", "), text,
             count > kShown ? ", ..." : "");
}

/// NumPy's code of a type; empty: it has none.
std::string numpyType(DataType type) {
  switch (type) {
  case DataType::F32:
    return "<f4";
  case DataType::F64:
    return "<f8";
  case DataType::F16:
    return "<f2";
  case DataType::I64:
    return "<i8";
  case DataType::I32:
    return "<i4";
  case DataType::I16:
    return "<i2";
  case DataType::I8:
  case DataType::I4:
  case DataType::I2:
    return "|i1";
  case DataType::U64:
    return "<u8";
  case DataType::U32:
    return "<u4";
  case DataType::U16:
    return "<u2";
  case DataType::U8:
  case DataType::U4:
  case DataType::U2:
    return "|u1";
  case DataType::Bool:
    return "|b1";
  default:
    return "";
  }
}

/// NAME=VALUE for one of the inputs; the name may be left out if there is one.
std::pair<size_t, std::string> split(const rt::GraphExecutor &graph,
                                     const std::string &text) {
  const size_t equals = text.find('=');
  std::string known;
  for (size_t i = 0; i < graph.inputs(); ++i) {
    known += " " + graph.input(i).name();
    if (equals != std::string::npos &&
        graph.input(i).name() == text.substr(0, equals))
      return {i, text.substr(equals + 1)};
  }
  if (equals == std::string::npos && graph.inputs() == 1)
    return {0, text};
  throw rt::Error(
      "'{}' is not NAME=... with the name of an input; those are:{}", text,
      known);
}
} // namespace

void cli::runGraph(rt::Bundle bundle, const SessionOptions &session,
                   const GraphOptions &options) {
  OpenGraph graph(std::move(bundle), session);
  rt::GraphExecutor &executor = *graph.executor;
  std::vector<Value> inputs(executor.inputs());
  for (const std::string &text : options.inputs) {
    auto [index, path] = split(executor, text);
    inputs[index] =
        toTensor(readNpy(path), DataType(executor.input(index).type()), path);
  }
  std::string missing;
  for (size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].empty())
      missing +=
          fmt::format("\n  --input {}=FILE.npy  ({})", executor.input(i).name(),
                      typeText(executor.input(i)));
  if (!missing.empty())
    throw rt::Error("{}: inputs are missing:{}", graph.bundle.path().string(),
                    missing);
  std::vector<Value> results = executor.run(inputs);
  if (!options.output.empty())
    std::filesystem::create_directories(options.output);
  json out = json::object();
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string &name = executor.output(i).name();
    const Tensor *tensor = results[i].tensor();
    if (!options.output.empty()) {
      const std::string type = tensor ? numpyType(tensor->type) : "";
      if (type.empty())
        throw rt::Error("output '{}' has no form in .npy; print it with --json",
                        name);
      // Names come from the model: none may leave the folder.
      std::string file = name;
      std::ranges::replace(file, '/', '_');
      writeNpy(
          (std::filesystem::path(options.output) / (file + ".npy")).string(),
          type, tensor->sizes, {tensor->data.get(), tensor->bytes()});
    }
    if (options.json)
      out[name] = toJson(results[i]);
    else
      print(name, results[i]);
  }
  if (options.json)
    fmt::print("{}\n",
               out.dump(-1, ' ', false, json::error_handler_t::replace));
}

//===----------------------------------------------------------------------===//
// bench
//===----------------------------------------------------------------------===//

void cli::benchGraph(rt::Bundle bundle, const SessionOptions &session,
                     const GraphBenchOptions &options) {
  OpenGraph graph(std::move(bundle), session);
  rt::GraphExecutor &executor = *graph.executor;
  std::map<size_t, std::vector<int64_t>> shapes;
  for (const std::string &text : options.shapes) {
    auto [index, sizes] = split(executor, text);
    shapes[index] = parseSizes(sizes);
  }
  std::vector<Value> inputs(executor.inputs());
  for (const std::string &text : options.inputs) {
    auto [index, path] = split(executor, text);
    inputs[index] =
        toTensor(readNpy(path), DataType(executor.input(index).type()), path);
  }
  for (size_t i = 0; i < executor.inputs(); ++i) {
    if (!inputs[i].empty())
      continue;
    const bundle::GraphValue &input = executor.input(i);
    std::vector<int64_t> sizes(input.sizes().begin(), input.sizes().end());
    if (auto given = shapes.find(i); given != shapes.end())
      sizes = given->second;
    for (int64_t &size : sizes)
      if (size < 0)
        throw rt::Error("input '{}' is {}: say its sizes with --shape {}=...",
                        input.name(), typeText(input), input.name());
    Tensor tensor = Tensor::allocate(DataType(input.type()), sizes);
    if (tensor.data)
      std::memset(tensor.data.get(), 0, tensor.bytes());
    // Ones are ids, masks and lengths that most models can make something of.
    if (tensor.type == DataType::I64)
      std::fill_n(tensor.as<int64_t>(), tensor.count(), 1);
    if (tensor.type == DataType::F32)
      for (int64_t j = 0; j < tensor.count(); ++j)
        tensor.as<float>()[j] = float(j % 251) / 251 - 0.5f;
    inputs[i] = std::move(tensor);
  }
  std::map<std::string, std::pair<double, int>> byOperator;
  std::vector<double> seconds;
  for (uint64_t r = 0; r <= options.repetitions; ++r) { // the first warms up
    if (r == options.repetitions && options.profile)
      executor.onNode = [&](const bundle::GraphNode &node, double taken) {
        auto &[sum, count] = byOperator[node.op()];
        sum += taken;
        ++count;
      };
    auto start = std::chrono::steady_clock::now();
    executor.run(inputs);
    if (r > 0)
      seconds.push_back(std::chrono::duration<double>(
                            std::chrono::steady_clock::now() - start)
                            .count());
  }
  std::ranges::sort(seconds);
  const double median = seconds[seconds.size() / 2];
  std::vector<std::pair<std::string, std::pair<double, int>>> profile(
      byOperator.begin(), byOperator.end());
  std::ranges::sort(profile, std::greater(),
                    [](const auto &entry) { return entry.second.first; });
  json out = {{"target", graph.library.target()},
              {"seconds", median},
              {"repetitions", options.repetitions}};
  for (const auto &[op, entry] : profile)
    out["profile"].push_back(
        {{"operator", op}, {"seconds", entry.first}, {"nodes", entry.second}});
  if (options.json)
    return fmt::print("{}\n", out.dump());
  fmt::print("one run: {:.3f} ms (median of {})\n", median * 1e3,
             seconds.size());
  for (const auto &[op, entry] : profile)
    fmt::print("  {:<24} {:5} nodes {:10.3f} ms\n", op, entry.second,
               entry.first * 1e3);
}
