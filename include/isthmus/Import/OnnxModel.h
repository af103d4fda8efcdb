//===- OnnxModel.h - an ONNX file, checked and in one version ---*- C++ -*-===//
//
// Free of MLIR. What the ONNX library does not copy well, weights, is kept out
// of its way: large initializers are cut out of the file before it is parsed,
// and stay where they are.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/runtime/DataType.h"

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace onnx {
class ModelProto;
class TypeProto;
} // namespace onnx

namespace isthmus::import {

/// Version of the standard operators that models are converted to.
inline constexpr int kOpset = 28;

/// Where the values of a large initializer are: as they stand in memory, those
/// of less than eight bits several to a byte, the first lowest.
struct TensorPlace {
  std::filesystem::path file;
  uint64_t offset, bytes;
};

struct OnnxModel {
  std::filesystem::path path;
  /// Functions are inlined, types inferred; what is in `places` is an input
  /// here.
  std::unique_ptr<onnx::ModelProto> proto;
  std::map<std::string, TensorPlace> places;

  OnnxModel();
  ~OnnxModel();
  OnnxModel(OnnxModel &&) noexcept;
};

struct OnnxOptions {
  /// Sizes of inputs count as unknown, whatever the file says.
  bool dynamicSizes = false;
  /// Sizes that inputs will have, by name: kernels are made for them alone.
  std::map<std::string, std::vector<int64_t>> sizes;
};

/// Reads an ONNX file: parses, checks, inlines functions, converts to kOpset,
/// infers types. External data must lie in the file's folder. Throws rt::Error.
OnnxModel readOnnx(const std::filesystem::path &path,
                   const OnnxOptions &options = {});

/// Replaces the operators that `wanted` names by the bodies that the standard
/// gives them, where there are some, and infers types again. True if there were
/// any.
bool inlineOperators(OnnxModel &model,
                     const std::function<bool(const std::string &op)> &wanted);

/// The bytes of a tensor that stands in the model itself, as they stand in
/// memory; not of texts. Throws rt::Error if they do not fit its sizes.
std::vector<char> tensorBytes(const void *tensorProto);

} // namespace isthmus::import
