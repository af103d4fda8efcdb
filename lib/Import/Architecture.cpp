//===- Architecture.cpp - the model families that can be read -------------===//
#include "isthmus/Import/Architecture.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <array>

using namespace mlir;
using namespace isthmus;
using namespace isthmus::import;
using rt::Error;

std::span<const Architecture> import::architectures() {
  static const std::array all = {llama(), gpt2(), gemma3(),
                                 bert(),  vit(),  clip()};
  return all;
}

static const Architecture &find(const Checkpoint &checkpoint) {
  std::vector<std::string_view> known;
  for (const Architecture &candidate : architectures()) {
    if (std::ranges::find(candidate.names, checkpoint.architecture) !=
        candidate.names.end())
      return candidate;
    known.insert(known.end(), candidate.names.begin(), candidate.names.end());
  }
  throw Error("{}: architecture '{}' is not supported; known: {}",
              checkpoint.settings.file(), checkpoint.architecture,
              fmt::join(known, ", "));
}

/// The checkpoint's name of a tensor in a GGUF file.
static std::string translate(const Architecture &architecture,
                             const std::string &where,
                             const std::string &name) {
  const size_t dot = name.rfind('.');
  std::string stem = name.substr(0, dot), layer;
  if (stem.starts_with("blk.")) {
    const size_t end = stem.find('.', 4);
    layer = stem.substr(4, end == stem.npos ? end : end - 4);
    stem.replace(4, layer.size(), "#");
  }
  for (auto [gguf, own] : architecture.ggufNames) {
    if (stem != gguf || dot == name.npos)
      continue;
    std::string result(own);
    if (size_t at = result.find('#'); at != result.npos)
      result.replace(at, 1, layer);
    return result + name.substr(dot);
  }
  throw Error("{}: tensor '{}' is not part of a {} model", where, name,
              architecture.names.front());
}

OwningOpRef<ModuleOp> import::buildModel(MLIRContext &context,
                                         const Checkpoint &checkpoint) {
  const Architecture &architecture = find(checkpoint);
  Checkpoint named = checkpoint;
  if (checkpoint.isGGUF) {
    named.tensors.clear();
    for (const auto &[name, tensor] : checkpoint.tensors)
      named.tensors[translate(architecture, tensor.file, name)] = tensor;
  }
  ModelBuilder model(context, named);
  return architecture.build(model);
}
