//===- DataType.h - types of a tensor's elements ----------------*- C++ -*-===//
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace isthmus::rt {

/// Numbered as TensorProto.DataType of ONNX, of which they are all. Each
/// element takes whole bytes: those of less than eight bits take one,
/// sign-extended.
enum class DataType : int32_t {
  Undefined = 0,
  F32 = 1,
  U8 = 2,
  I8 = 3,
  U16 = 4,
  I16 = 5,
  I32 = 6,
  I64 = 7,
  String = 8,
  Bool = 9,
  F16 = 10,
  F64 = 11,
  U32 = 12,
  U64 = 13,
  C64 = 14,
  C128 = 15,
  BF16 = 16,
  F8E4M3FN = 17,
  F8E4M3FNUZ = 18,
  F8E5M2 = 19,
  F8E5M2FNUZ = 20,
  U4 = 21,
  I4 = 22,
  F4E2M1 = 23,
  F8E8M0 = 24,
  U2 = 25,
  I2 = 26,
};

/// Bytes of an element in memory; 0 for texts, which are objects.
constexpr size_t bytesOf(DataType type) {
  switch (type) {
  case DataType::F32:
  case DataType::I32:
  case DataType::U32:
    return 4;
  case DataType::U16:
  case DataType::I16:
  case DataType::F16:
  case DataType::BF16:
    return 2;
  case DataType::I64:
  case DataType::U64:
  case DataType::F64:
  case DataType::C64:
    return 8;
  case DataType::C128:
    return 16;
  case DataType::Undefined:
  case DataType::String:
    return 0;
  default:
    return 1;
  }
}

/// Bits of an element in a file, where those of less than eight stand together.
constexpr size_t packedBits(DataType type) {
  switch (type) {
  case DataType::U4:
  case DataType::I4:
  case DataType::F4E2M1:
    return 4;
  case DataType::U2:
  case DataType::I2:
    return 2;
  default:
    return bytesOf(type) * 8;
  }
}

/// The first `count` elements of less than eight bits that share bytes of a
/// file, the first lowest; in memory each has a byte, its sign extended.
std::vector<char> unpack(std::span<const std::byte> packed, DataType type,
                         size_t count);

/// As NumPy (and, beyond it, ml_dtypes) calls it: "float32", "uint4".
std::string_view nameOf(DataType type);

} // namespace isthmus::rt
