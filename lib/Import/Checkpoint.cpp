//===- Checkpoint.cpp - checks shared by all readers ----------------------===//
#include "isthmus/Import/Checkpoint.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <array>

using namespace isthmus;
using namespace isthmus::import;
using rt::Error;

namespace {
struct Format {
  DType dtype;
  std::string_view name;
  BlockSize block;
};
constexpr std::array<Format, 16> kFormats = {{
    {DType::F32, "f32", {1, 4}},
    {DType::F16, "f16", {1, 2}},
    {DType::BF16, "bf16", {1, 2}},
    {DType::Q8_0, "q8_0", {32, 34}},
    {DType::Q4_0, "q4_0", {32, 18}},
    {DType::Q4_1, "q4_1", {32, 20}},
    {DType::Q5_0, "q5_0", {32, 22}},
    {DType::Q5_1, "q5_1", {32, 24}},
    {DType::Q4_K, "q4_k", {256, 144}},
    {DType::Q5_K, "q5_k", {256, 176}},
    {DType::Q6_K, "q6_k", {256, 210}},
    {DType::U8, "u8", {1, 1}},
    {DType::I8, "i8", {1, 1}},
    {DType::U4, "u4", {2, 1}},
    {DType::I4, "i4", {2, 1}},
    {DType::I64, "i64", {1, 8}},
}};
const Format &formatOf(DType dtype) {
  return *std::find_if(kFormats.begin(), kFormats.end(),
                       [&](const Format &f) { return f.dtype == dtype; });
}
} // namespace

std::string_view import::nameOf(DType dtype) { return formatOf(dtype).name; }

std::optional<DType> import::parseDType(std::string_view name) {
  for (const Format &format : kFormats)
    if (format.name == name)
      return format.dtype;
  return std::nullopt;
}

BlockSize import::blockSizeOf(DType dtype) { return formatOf(dtype).block; }

uint64_t import::checkedBytes(const std::string &where,
                              const std::vector<int64_t> &shape, DType dtype) {
  uint64_t values = 1;
  for (int64_t dim : shape)
    if (dim <= 0 || __builtin_mul_overflow(values, uint64_t(dim), &values))
      throw Error("{}: impossible shape", where);
  BlockSize block = blockSizeOf(dtype);
  // Blocks run along the innermost dimension and never cross rows.
  const int64_t inner = shape.empty() ? 1 : shape.back();
  if (uint64_t(inner) % block.values != 0)
    throw Error("{}: {} values a row do not fill {} blocks of {}", where, inner,
                nameOf(dtype), block.values);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(values / block.values, block.bytes, &bytes))
    throw Error("{}: impossible shape", where);
  return bytes;
}

void import::rejectOverlaps(const std::string &file,
                            const std::map<std::string, Tensor> &tensors) {
  std::vector<std::pair<const Tensor *, const std::string *>> sorted;
  for (const auto &[name, tensor] : tensors)
    if (tensor.file == file)
      sorted.emplace_back(&tensor, &name);
  std::sort(sorted.begin(), sorted.end(), [](const auto &a, const auto &b) {
    return a.first->offset < b.first->offset;
  });
  for (size_t i = 1; i < sorted.size(); ++i) {
    const Tensor &before = *sorted[i - 1].first;
    if (before.offset + before.bytes > sorted[i].first->offset)
      throw Error("{}: tensors '{}' and '{}' overlap", file,
                  *sorted[i - 1].second, *sorted[i].second);
  }
}

Checkpoint import::openCheckpoint(const std::filesystem::path &path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error))
    return readHuggingFace(path);
  if (!std::filesystem::exists(path, error))
    throw Error("{}: no such file or folder; give a GGUF file or a Hugging "
                "Face folder",
                path.string());
  return readGGUF(path);
}
