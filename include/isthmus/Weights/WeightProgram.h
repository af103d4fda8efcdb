//===- WeightProgram.h - executes the region of an fm.param -----*- C++ -*-===//
#pragma once

#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Import/Checkpoint.h"
#include "isthmus/Weights/PackedLayout.h"

#include <functional>
#include <map>
#include <span>

namespace isthmus::weights {

/// Mapped source files, shared by all programs of a compilation.
class Sources {
public:
  const rt::MappedFile &open(const std::string &path);

private:
  std::map<std::string, rt::MappedFile> files;
};

/// The program of one parameter, ready to run row by row. Source pages are
/// released behind the stream, so that resident memory follows a block.
class WeightProgram {
public:
  /// A value of the region, row by row (of a vector, row 0).
  struct Stage {
    std::function<void(int64_t row, std::span<float>)> read;
    /// Rows that will not be read again.
    std::function<void(int64_t first, int64_t count)> release;
    /// The bytes of a row in a file; null if it is computed.
    std::function<const std::byte *(int64_t row)> stored;
  };

  /// Reads the region. Fails with a diagnostic on operators it does not know.
  static mlir::FailureOr<WeightProgram> build(fm::ParamOp param,
                                              Sources &sources);

  const PackedLayout &layout() const { return packed; }
  /// Whether what is read has four bits (quantizeInt4).
  bool isOnGrid() const { return onGrid; }

  /// Runs the whole program on `threads` threads and hands the packed bytes to
  /// `write` in order.
  void run(unsigned threads,
           const std::function<void(std::span<const std::byte>)> &write) const;

  /// Computes the f32 values of one row (one output) before packing.
  void computeRow(int64_t row, std::span<float> out) const;

private:
  PackedLayout packed;
  int64_t rows = 0, width = 0; ///< of the source; vectors have one row
  Stage result;
  bool onGrid = false;
};

} // namespace isthmus::weights
