//===- Safetensors.cpp - reads safetensors headers ------------------------===//
//
// Specification: huggingface.co/docs/safetensors: u64 header size, a JSON
// object of {name: {dtype, shape, data_offsets}}, then the values.
//
//===----------------------------------------------------------------------===//
#include "isthmus/Import/Checkpoint.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Json.h"

#include <cstring>
#include <nlohmann/json.hpp>

using namespace isthmus;
using namespace isthmus::import;
using nlohmann::json;
using rt::Error;

static DType dtypeOf(const std::string &place, const std::string &name) {
  if (name == "F32")
    return DType::F32;
  if (name == "F16")
    return DType::F16;
  if (name == "BF16")
    return DType::BF16;
  if (name == "I64")
    return DType::I64;
  throw Error("{} has dtype {}; F32, F16 and BF16 are supported", place, name);
}

void import::readSafetensors(const std::filesystem::path &path,
                             std::map<std::string, Tensor> &tensors) {
  rt::MappedFile file(path);
  const std::string where = path.string();
  uint64_t headerBytes = 0;
  std::memcpy(&headerBytes, file.slice(0, 8, "header size").data(), 8);
  auto header = file.slice(8, headerBytes, "header");
  const uint64_t data = 8 + headerBytes;
  json entries;
  try {
    entries = json::parse(header.begin(), header.end());
  } catch (const json::exception &error) {
    throw Error("{}: header is not JSON: {}", where, error.what());
  }
  if (!entries.is_object())
    throw Error("{}: header is not a JSON object", where);
  std::map<std::string, Tensor> own;
  for (const auto &[name, entry] : entries.items()) {
    if (name == "__metadata__")
      continue;
    std::string place = where + ": tensor '" + name + "'";
    try {
      DType dtype = dtypeOf(place, entry.at("dtype").get<std::string>());
      std::vector<int64_t> shape;
      for (const json &dim : entry.at("shape"))
        shape.push_back(rt::jsonInteger(dim, place + ": a dimension"));
      const json &offsets = entry.at("data_offsets");
      if (!offsets.is_array() || offsets.size() != 2 ||
          !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
        throw Error("{}: data_offsets are not two byte positions", place);
      auto first = offsets[0].get<uint64_t>(),
           last = offsets[1].get<uint64_t>();
      uint64_t bytes = checkedBytes(place, shape, dtype);
      if (first > last || last - first != bytes)
        throw Error("{}: data_offsets [{}, {}] do not hold the {} bytes of its "
                    "shape",
                    place, first, last, bytes);
      uint64_t offset = 0;
      if (__builtin_add_overflow(data, first, &offset))
        throw Error("{}: impossible offset", place);
      (void)file.slice(offset, bytes, "tensor '" + name + "'");
      own.emplace(name, Tensor{where, offset, bytes, dtype, std::move(shape)});
    } catch (const json::exception &error) {
      throw Error("{}: {}", place, error.what());
    }
  }
  rejectOverlaps(where, own);
  for (auto &[name, tensor] : own)
    if (!tensors.emplace(name, std::move(tensor)).second)
      throw Error("{}: tensor '{}' is already in another shard", where, name);
}
