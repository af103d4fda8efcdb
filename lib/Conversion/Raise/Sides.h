//===- Sides.h - what hangs on sizes and positions alone --------*- C++ -*-===//
//
// Masks, positions, angles and sizes are worked out in as many ways as there
// are exporters. They do not depend on tokens: their part of the graph is
// compiled and run for a few lengths, and what comes out is looked at.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "Layout.h"
#include "isthmus/Conversion/GraphToFM.h"

#include "llvm/ADT/DenseMap.h"
#include <map>

namespace isthmus::raise {

/// Why a graph is none of fm's models.
struct Unraisable {
  std::string reason;
};

/// A tensor of numbers.
struct Array {
  std::vector<int64_t> sizes;
  std::vector<double> values;
};

class Sides {
public:
  /// What a value depends on.
  enum class Level {
    Constant, ///< nothing but constants
    Side,     ///< sizes, positions, masks
    Data      ///< tokens or the cache
  };

  /// `sizesOf` gives the sizes of values that depend on data. It and what else
  /// works anything out throw Unraisable.
  Sides(
      graph::ProgramOp program, const GraphCompiler &compile,
      std::function<std::vector<int64_t>(mlir::Value, const Sample &)> sizesOf);

  Level level(mlir::Value value) const { return levels.at(value); }
  bool isData(mlir::Value value) const { return level(value) == Level::Data; }

  /// The value for a sample.
  Array evaluate(mlir::Value value, const Sample &sample);
  /// The same for any sample: throws unless it is.
  Array constant(mlir::Value value);
  /// The only element of a constant that has one, or whose elements are equal
  /// and not written out; none otherwise.
  std::optional<double> number(mlir::Value value);

  /// Lengths that are no multiple or divisor of what models have heads of.
  static constexpr Sample kSample{11, 18};

private:
  /// What an input that does not depend on tokens holds.
  enum class Input {
    Mask,     ///< ones, of all positions
    Position, ///< of the step's tokens
    Past,     ///< how many positions are in the cache before the step
    Total     ///< and with it
  };
  static std::optional<Input> inputOf(mlir::Value argument,
                                      llvm::StringRef name);
  rt::Value supply(mlir::Value value, const Sample &sample);

  graph::ProgramOp program;
  llvm::DenseMap<mlir::Value, Input> inputs;
  const GraphCompiler &compile;
  std::function<std::vector<int64_t>(mlir::Value, const Sample &)> sizesOf;
  llvm::DenseMap<mlir::Value, Level> levels;
  std::map<std::string, GraphFunction> compiled; ///< by the text of the graph
  std::map<std::string, Array> results;
};

} // namespace isthmus::raise
