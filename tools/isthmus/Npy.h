//===- Npy.h - arrays of NumPy in files -------------------------*- C++ -*-===//
//
// numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace isthmus::cli {

/// An array in C order: floats or integers, the other is empty.
struct NpyArray {
  std::vector<size_t> shape;
  std::vector<double> floats;
  std::vector<int64_t> integers;
};

/// Reads floats of 2 to 8 bytes, integers of 1 to 8 and bool, in little-endian
/// C order. Throws rt::Error.
NpyArray readNpy(const std::string &path);

/// Writes [rows][columns] of f32. Throws rt::Error.
void writeNpy(const std::string &path,
              std::span<const std::vector<float>> rows);

/// Writes values of any type, which NumPy calls `type` ("<f4"), as they stand
/// in memory. Throws rt::Error.
void writeNpy(const std::string &path, const std::string &type,
              std::span<const int64_t> shape,
              std::span<const std::byte> values);

} // namespace isthmus::cli
