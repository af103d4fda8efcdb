//===- Checkpoint.h - what a model file says, checked -----------*- C++ -*-===//
//
// Readers of model files, free of MLIR: they map files, believe nothing in
// them, and give names, shapes and places of tensors. All throw rt::Error.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Import/Settings.h"
#include "isthmus/runtime/MappedFile.h"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::import {

/// Format in which a tensor's values are stored. Those of U8 to I4 are what an
/// ONNX file's DequantizeLinear takes. I64 are no weights: tables of positions
/// that some checkpoints carry along.
enum class DType {
  F32,
  F16,
  BF16,
  Q8_0,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q4_K,
  Q5_K,
  Q6_K,
  U8,
  I8,
  U4,
  I4,
  I64
};

/// Lower-case name, as `fm.source` writes it.
std::string_view nameOf(DType dtype);
std::optional<DType> parseDType(std::string_view name);
/// Values in one block of the format (1 for plain ones) and its bytes.
struct BlockSize {
  uint64_t values, bytes;
};
BlockSize blockSizeOf(DType dtype);

struct Tensor {
  std::string file; ///< path of the file that holds the values
  uint64_t offset;  ///< bytes from the start of the file
  uint64_t bytes;
  DType dtype;
  std::vector<int64_t> shape; ///< outermost first: outputs, inputs
};

struct TokenizerFiles {
  std::string json;        ///< tokenizer.json; empty if the checkpoint has none
  std::string unsupported; ///< why there is none, if there should be
  std::string chatTemplate;
  int32_t bos = -1;
  std::vector<uint32_t> eos;
  std::vector<uint32_t> prefix, suffix; ///< ids around every text
};

struct Checkpoint {
  std::string name, architecture; ///< the latter as the file calls it
  Settings settings;
  TokenizerFiles tokenizer;
  /// By the file's own names.
  std::map<std::string, Tensor> tensors;
  bool isGGUF = false;
};

/// Opens a GGUF file or a Hugging Face folder.
Checkpoint openCheckpoint(const std::filesystem::path &path);

Checkpoint readGGUF(const std::filesystem::path &path);
Checkpoint readHuggingFace(const std::filesystem::path &folder);

/// Tokenizer, chat template and ids that end texts, as they lie beside an ONNX
/// file: tokenizer.json, tokenizer_config.json, generation_config.json,
/// chat_template.jinja, and config.json or genai_config.json.
TokenizerFiles tokenizerBeside(const std::filesystem::path &onnxFile,
                               int64_t vocabulary);
/// Positions of the longest sequence as the latter two say; 0 if they do not.
int64_t contextLengthBeside(const std::filesystem::path &onnxFile);

/// Reads the header of one safetensors file and adds its tensors.
void readSafetensors(const std::filesystem::path &path,
                     std::map<std::string, Tensor> &tensors);

/// Checks that a tensor's place holds exactly its shape; returns the bytes.
uint64_t checkedBytes(const std::string &where,
                      const std::vector<int64_t> &shape, DType dtype);

/// Throws if the byte ranges of tensors of one file overlap.
void rejectOverlaps(const std::string &file,
                    const std::map<std::string, Tensor> &tensors);

} // namespace isthmus::import
