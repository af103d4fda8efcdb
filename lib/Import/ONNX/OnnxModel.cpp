//===- OnnxModel.cpp - an ONNX file, checked and in one version -----------===//
#include "isthmus/Import/OnnxModel.h"

#include "OnnxFile.h"
#include "Ranks.h"
#include "Simplify.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/MappedFile.h"

#include <bit>
#include <charconv>
#include <cstring>
#include <fmt/ranges.h>
#include <onnx/checker.h>
#include <onnx/inliner/inliner.h>
#include <onnx/onnx_pb.h>
#include <onnx/shape_inference/implementation.h>
#include <onnx/version_converter/convert.h>
#include <optional>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

using namespace isthmus;
using namespace isthmus::import;
using rt::DataType;
using rt::Error;

/// Initializers of at least so many bytes stay in the file.
static constexpr uint64_t kLarge = 1024;

OnnxModel::OnnxModel() : proto(std::make_unique<onnx::ModelProto>()) {}
OnnxModel::~OnnxModel() = default;
OnnxModel::OnnxModel(OnnxModel &&) noexcept = default;

/// Bytes that a tensor's values take in a file.
static uint64_t packedBytes(const onnx::TensorProto &tensor) {
  uint64_t count = 1;
  for (int64_t size : tensor.dims()) {
    if (size < 0 || (size > 0 && count > (uint64_t(1) << 48) / uint64_t(size)))
      throw Error("tensor '{}': impossible sizes", tensor.name());
    count *= uint64_t(size);
  }
  return (count * rt::packedBits(DataType(tensor.data_type())) + 7) / 8;
}

/// Where the values of a tensor with external data are. The ONNX library
/// refuses paths and links that leave the folder.
static TensorPlace externalPlace(const std::filesystem::path &folder,
                                 const onnx::TensorProto &tensor) {
  TensorPlace place{{}, 0, packedBytes(tensor)};
  std::string location;
  std::optional<uint64_t> length;
  for (const auto &entry : tensor.external_data()) {
    uint64_t number = 0;
    const std::string &text = entry.value();
    auto parse = [&] {
      auto [end, error] =
          std::from_chars(text.data(), text.data() + text.size(), number);
      if (error != std::errc() || end != text.data() + text.size())
        throw Error("tensor '{}': {} of its external data is '{}'",
                    tensor.name(), entry.key(), text);
      return number;
    };
    if (entry.key() == "location")
      location = text;
    else if (entry.key() == "offset")
      place.offset = parse();
    else if (entry.key() == "length")
      length = parse();
  }
  const auto fd = onnx::checker::open_external_data(
      folder.string().empty() ? "." : folder.string(), location, tensor.name(),
      true);
  struct stat info{};
  const bool known = fstat(int(fd), &info) == 0;
  close(int(fd));
  if (!known || place.bytes > uint64_t(info.st_size) ||
      place.offset > uint64_t(info.st_size) - place.bytes ||
      (length && *length != place.bytes))
    throw Error("tensor '{}': its {} bytes at {} are not what '{}' holds",
                tensor.name(), place.bytes, place.offset, location);
  place.file = folder / location;
  return place;
}

static bool isExternal(const onnx::TensorProto &tensor) {
  return tensor.data_location() == onnx::TensorProto::EXTERNAL;
}

/// Makes an initializer whose values stay where they are an input of the graph:
/// the ONNX library then knows its type, and has nothing to copy.
static void addPlace(OnnxModel &model, const onnx::TensorProto &tensor,
                     TensorPlace place) {
  if (place.bytes != packedBytes(tensor))
    throw Error("tensor '{}': {} bytes for sizes that need {}", tensor.name(),
                place.bytes, packedBytes(tensor));
  model.places.emplace(tensor.name(), std::move(place));
  auto &inputs = *model.proto->mutable_graph()->mutable_input();
  for (const auto &input : inputs)
    if (input.name() == tensor.name())
      return;
  auto *input = inputs.Add();
  input->set_name(tensor.name());
  auto *type = input->mutable_type()->mutable_tensor_type();
  type->set_elem_type(tensor.data_type());
  type->mutable_shape();
  for (int64_t size : tensor.dims())
    type->mutable_shape()->add_dim()->set_dim_value(size);
}

/// Reads the values of a small tensor with external data into it.
static void loadExternal(onnx::TensorProto &tensor, const TensorPlace &place) {
  rt::MappedFile file(place.file);
  auto bytes = file.slice(place.offset, place.bytes, tensor.name());
  tensor.set_raw_data(bytes.data(), bytes.size());
  tensor.clear_external_data();
  tensor.clear_data_location();
}

static void readInitializers(OnnxModel &model, const CutFile &file) {
  onnx::GraphProto &graph = *model.proto->mutable_graph();
  for (const CutFile::Cut &cut : file.cuts) {
    onnx::TensorProto tensor;
    if (!tensor.ParseFromString(cut.tensor))
      throw Error("an initializer cannot be parsed");
    if (std::endian::native == std::endian::little) {
      addPlace(model, tensor, {model.path, cut.offset, cut.bytes});
      continue;
    }
    loadExternal(tensor, {model.path, cut.offset, cut.bytes});
    *graph.add_initializer() = std::move(tensor);
  }
  google::protobuf::RepeatedPtrField<onnx::TensorProto> kept;
  for (onnx::TensorProto &tensor : *graph.mutable_initializer()) {
    if (isExternal(tensor)) {
      TensorPlace place = externalPlace(model.path.parent_path(), tensor);
      if (place.bytes >= kLarge) {
        addPlace(model, tensor, std::move(place));
        continue;
      }
      loadExternal(tensor, place);
    }
    *kept.Add() = std::move(tensor);
  }
  graph.mutable_initializer()->Swap(&kept);
}

/// Inputs of the caller: not what has a value in the file.
static std::set<std::string> initialized(const OnnxModel &model) {
  std::set<std::string> names;
  for (const auto &tensor : model.proto->graph().initializer())
    names.insert(tensor.name());
  for (const auto &[name, place] : model.places)
    names.insert(name);
  return names;
}

static void forgetSizes(onnx::TypeProto &type) {
  if (type.has_tensor_type() && type.tensor_type().has_shape())
    for (auto &dim :
         *type.mutable_tensor_type()->mutable_shape()->mutable_dim())
      dim.Clear();
  if (type.has_sequence_type())
    forgetSizes(*type.mutable_sequence_type()->mutable_elem_type());
  if (type.has_optional_type())
    forgetSizes(*type.mutable_optional_type()->mutable_elem_type());
}

static void forgetSizes(OnnxModel &model) {
  onnx::GraphProto &graph = *model.proto->mutable_graph();
  const auto fixed = initialized(model);
  for (auto &input : *graph.mutable_input())
    if (!fixed.contains(input.name()))
      forgetSizes(*input.mutable_type());
  for (auto &output : *graph.mutable_output())
    forgetSizes(*output.mutable_type());
  graph.clear_value_info();
}

/// Fixes the sizes of an input. Throws Error if the model says other ones.
static void setSizes(onnx::GraphProto &graph, const std::string &name,
                     const std::vector<int64_t> &sizes) {
  std::string known;
  for (auto &input : *graph.mutable_input()) {
    known += " " + input.name();
    if (input.name() != name)
      continue;
    auto &type = *input.mutable_type()->mutable_tensor_type();
    const bool ranked = type.has_shape();
    auto fits = [&] {
      if (!ranked)
        return true;
      if (size_t(type.shape().dim_size()) != sizes.size())
        return false;
      for (size_t d = 0; d < sizes.size(); ++d)
        if (const auto &dim = type.shape().dim(int(d));
            dim.has_dim_value() && dim.dim_value() != sizes[d])
          return false;
      return true;
    };
    if (!input.type().has_tensor_type() || !fits())
      throw Error("input '{}' cannot have the sizes {}", name,
                  fmt::join(sizes, " x "));
    type.mutable_shape()->clear_dim();
    for (int64_t size : sizes)
      type.mutable_shape()->add_dim()->set_dim_value(size);
    return;
  }
  throw Error("there is no input '{}'; those are:{}", name, known);
}

static void refuseOwnOperators(const onnx::GraphProto &graph) {
  for (const auto &node : graph.node()) {
    if (node.domain() == kOwnDomain)
      throw Error("node '{}' ({}): the domain '{}' is the compiler's own",
                  node.name().empty() && node.output_size() ? node.output(0)
                                                            : node.name(),
                  node.op_type(), kOwnDomain);
    for (const auto &attribute : node.attribute())
      if (attribute.has_g())
        refuseOwnOperators(attribute.g());
  }
}

static void inferTypes(onnx::ModelProto &model) {
  // Ranks that the library leaves open are filled in, and may tell it more; so
  // does a branch that is known, or where each branch goes on for itself.
  int continued = 0;
  for (int round = 0; round < 32; ++round) {
    // Not strict: its Resize, for one, is wrong about sizes that are unknown.
    onnx::shape_inference::InferShapes(
        model, onnx::OpSchemaRegistry::Instance(),
        onnx::ShapeInferenceOptions(/*check_type=*/true, /*strict_mode=*/0,
                                    /*data_prop=*/true));
    if (takeKnownBranches(*model.mutable_graph()))
      continue;
    if (!inferRanks(*model.mutable_graph()) &&
        !continueInBranches(*model.mutable_graph(), continued))
      return;
  }
}

OnnxModel isthmus::import::readOnnx(const std::filesystem::path &path,
                                    const OnnxOptions &options) {
  OnnxModel model;
  model.path = path;
  const char *step = "reading";
  try {
    {
      rt::MappedFile file(path);
      CutFile cut = cutInitializers(path.string(), file.bytes(), kLarge);
      if (!model.proto->ParseFromString(cut.model) || !model.proto->has_graph())
        throw Error("not an ONNX model");
      readInitializers(model, cut);
    }
    nameContribOperators(*model.proto->mutable_graph());
    step = "checking";
    onnx::checker::check_model(*model.proto);
    if (options.dynamicSizes)
      forgetSizes(model);
    for (const auto &[name, sizes] : options.sizes)
      setSizes(*model.proto->mutable_graph(), name, sizes);
    step = "inlining functions";
    onnx::inliner::InlineLocalFunctions(*model.proto, true);
    step = "converting operators";
    int64_t version = 0;
    for (const auto &opset : model.proto->opset_import())
      if (opset.domain().empty() || opset.domain() == "ai.onnx")
        version = opset.version();
    if (version != 0 && version < kOpset)
      *model.proto =
          onnx::version_conversion::ConvertVersion(*model.proto, kOpset);
    refuseOwnOperators(model.proto->graph());
    replaceContribOperators(model);
    step = "inferring types";
    inferTypes(*model.proto);
  } catch (const Error &error) {
    throw Error("{}: {}", path.string(), error.what());
  } catch (const std::exception &error) {
    throw Error("{}: {}: {}", path.string(), step, error.what());
  }
  return model;
}

bool isthmus::import::inlineOperators(
    OnnxModel &model,
    const std::function<bool(const std::string &op)> &wanted) {
  struct Wanted : onnx::inliner::FunctionIdSet {
    const std::function<bool(const std::string &)> &wanted;
    explicit Wanted(const std::function<bool(const std::string &)> &wanted)
        : wanted(wanted) {}
    bool Contains(const std::string &, const std::string &name) const override {
      return wanted(name);
    }
  };
  const int before = model.proto->graph().node_size();
  std::string first = model.proto->graph().SerializeAsString();
  try {
    // The inliner asks for the type of every input of a call, and takes those
    // that are missing for values without a name.
    auto *missing = model.proto->mutable_graph()->add_value_info();
    missing->mutable_type()->mutable_tensor_type()->set_elem_type(
        onnx::TensorProto::FLOAT);
    auto &graph = *model.proto->mutable_graph();
    for (const auto &tensor : graph.initializer()) {
      auto *info = graph.add_value_info();
      info->set_name(tensor.name());
      auto *type = info->mutable_type()->mutable_tensor_type();
      type->set_elem_type(tensor.data_type());
      for (int64_t size : tensor.dims())
        type->mutable_shape()->add_dim()->set_dim_value(size);
    }
    onnx::inliner::InlineSelectedFunctions(*model.proto, Wanted(wanted),
                                           nullptr);
    auto &infos = *model.proto->mutable_graph()->mutable_value_info();
    for (int i = infos.size(); i-- > 0;)
      if (infos.Get(i).name().empty())
        infos.DeleteSubrange(i, 1);
    inferTypes(*model.proto);
  } catch (const std::exception &error) {
    throw Error("{}: replacing operators by their definitions: {}",
                model.path.string(), error.what());
  }
  return model.proto->graph().node_size() != before ||
         model.proto->graph().SerializeAsString() != first;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

template <typename To, typename From>
static std::vector<char> copyAs(const From &values) {
  std::vector<char> result(size_t(values.size()) * sizeof(To));
  for (int i = 0; i < values.size(); ++i) {
    const To value = To(values.Get(i));
    std::memcpy(result.data() + size_t(i) * sizeof(To), &value, sizeof(To));
  }
  return result;
}

std::vector<char> isthmus::import::tensorBytes(const void *tensorProto) {
  const auto &tensor = *static_cast<const onnx::TensorProto *>(tensorProto);
  const auto type = DataType(tensor.data_type());
  uint64_t count = 1;
  for (int64_t size : tensor.dims())
    count *= uint64_t(size);
  const uint64_t packed = packedBytes(tensor);
  std::vector<char> result;
  if (isExternal(tensor))
    throw Error("tensor '{}': external data of an attribute is not supported",
                tensor.name());
  if (tensor.has_raw_data()) {
    const std::string &raw = tensor.raw_data();
    if (raw.size() == packed)
      result = rt::packedBits(type) < 8
                   ? rt::unpack(std::as_bytes(std::span(raw)), type, count)
                   : std::vector<char>(raw.begin(), raw.end());
  } else {
    switch (type) {
    case DataType::F32:
    case DataType::C64:
      result = copyAs<float>(tensor.float_data());
      break;
    case DataType::F64:
    case DataType::C128:
      result = copyAs<double>(tensor.double_data());
      break;
    case DataType::I64:
      result = copyAs<int64_t>(tensor.int64_data());
      break;
    case DataType::U64:
      result = copyAs<uint64_t>(tensor.uint64_data());
      break;
    case DataType::U32:
      result = copyAs<uint32_t>(tensor.uint64_data());
      break;
    case DataType::I32:
      result = copyAs<int32_t>(tensor.int32_data());
      break;
    default:
      if (rt::packedBits(type) < 8) {
        std::vector<char> bytes = copyAs<uint8_t>(tensor.int32_data());
        if (bytes.size() == packed)
          result = rt::unpack(std::as_bytes(std::span(bytes)), type, count);
      } else if (rt::bytesOf(type) == 1) {
        result = copyAs<uint8_t>(tensor.int32_data());
      } else if (rt::bytesOf(type) == 2) {
        result = copyAs<uint16_t>(tensor.int32_data());
      }
    }
  }
  if (result.size() != count * rt::bytesOf(type))
    throw Error("tensor '{}': its values do not fit its sizes", tensor.name());
  return result;
}
