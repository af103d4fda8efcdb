//===- DataType.cpp - types of a tensor's elements ------------------------===//
#include "isthmus/runtime/DataType.h"

#include <array>

std::string_view isthmus::rt::nameOf(DataType type) {
  static constexpr std::array<std::string_view, 27> kNames = {"undefined",
                                                              "float32",
                                                              "uint8",
                                                              "int8",
                                                              "uint16",
                                                              "int16",
                                                              "int32",
                                                              "int64",
                                                              "string",
                                                              "bool",
                                                              "float16",
                                                              "float64",
                                                              "uint32",
                                                              "uint64",
                                                              "complex64",
                                                              "complex128",
                                                              "bfloat16",
                                                              "float8_e4m3fn",
                                                              "float8_e4m3fnuz",
                                                              "float8_e5m2",
                                                              "float8_e5m2fnuz",
                                                              "uint4",
                                                              "int4",
                                                              "float4_e2m1fn",
                                                              "float8_e8m0fnu",
                                                              "uint2",
                                                              "int2"};
  const auto index = size_t(type);
  return index < kNames.size() ? kNames[index] : "unknown";
}

std::vector<char> isthmus::rt::unpack(std::span<const std::byte> packed,
                                      DataType type, size_t count) {
  const auto bits = unsigned(packedBits(type)), perByte = 8 / bits;
  const bool isSigned = type == DataType::I4 || type == DataType::I2;
  std::vector<char> result(count);
  for (size_t i = 0; i < count; ++i) {
    unsigned value = unsigned(packed[i / perByte]) >> (i % perByte * bits) &
                     ((1u << bits) - 1);
    if (isSigned && value >> (bits - 1))
      value |= 0xffu << bits;
    result[i] = char(value);
  }
  return result;
}
