//===- OnnxFile.h - cuts large initializers out of an ONNX file -*- C++ -*-===//
#pragma once

#include "isthmus/Import/OnnxModel.h"

#include <span>

namespace isthmus::import {

/// A model file without the values of its large initializers.
struct CutFile {
  std::string model; ///< a ModelProto, serialised
  struct Cut {
    std::string tensor;     ///< a TensorProto without its values, serialised
    uint64_t offset, bytes; ///< of the values, in the file
  };
  std::vector<Cut> cuts;
};

/// Walks the wire format of a ModelProto; values of at least `least` bytes in
/// raw_data of the main graph's initializers are left out, and with them their
/// initializers. Throws rt::Error that names the byte where the file is
/// malformed.
CutFile cutInitializers(const std::string &where,
                        std::span<const std::byte> file, uint64_t least);

} // namespace isthmus::import
