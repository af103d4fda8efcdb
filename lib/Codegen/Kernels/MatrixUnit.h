//===- MatrixUnit.h - products in tiles of a matrix unit --------*- C++ -*-===//
//
// Rows of activations with panels of weights, of int8 or of parts of bf16. Sums
// come back through memory. (Queries with a cache: CacheTiles.h.)
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/KernelBuilder.h"
#include "isthmus/Weights/PackedLayout.h"

#include <functional>

namespace isthmus {

/// Whether long products of so many rows are made in tiles of a matrix unit,
/// from where sums come back through memory.
bool usesTiles(const TargetDescription &target, PackedFormat format,
               int64_t rows);

/// What is done beside a step of a long product: given its first input, and how
/// many it takes of a row.
using EachStep = std::function<void(mlir::Value at, int64_t count)>;

/// Other work that a matrix unit's steps leave the processor free for: pieces
/// 0, 1, ... in any order, at most kTileRows neighbours at once.
struct Meanwhile {
  int64_t pieces = 0;
  std::function<void(mlir::Value first, int64_t count)> emit;
};

/// Writes the sums of as many int8 rows as make tiles (usesTiles) to `to`:
/// int32 [panel][row][16]. Beside that as emitLongDot.
void emitLongTiles(KernelBuilder &k, int64_t inputs,
                   const KernelBuilder::Values &panels,
                   const KernelBuilder::Values &rows, mlir::Value to,
                   const EachStep &eachStep);

/// Rows of RowFormat::BF16x1, BF16x3 or Int8Row in tiles.
struct TileRows {
  mlir::Value first;
  int64_t parts;  ///< of bf16, that a value is; 0: int8
  int64_t stride; ///< bytes from one to the next
  int64_t count;  ///< kTileRows or twice as many,
  /// or so many, i16, of kTileRows at most. A function has no other tiles then:
  /// each register has one shape in all of it.
  mlir::Value fewer = {};
};

/// Panels of a weight in parts: [inputs / 32][parts][16][16][2], pairs of
/// inputs side by side, as tiles want them. With one part, bf16 panels as they
/// are.
constexpr int64_t tilePanelBytes(int64_t parts, int64_t inputs) {
  return inputs * PackedLayout::kPanel * parts * 2;
}
/// Writes the parts of `inputs` inputs of a panel of f32, [input][16] at
/// `from`, to where they are of a copy from `input` on: a multiple of `inputs`,
/// and those an even divisor of kPartsGroup.
void emitSplitInputs(KernelBuilder &k, mlir::Value from, mlir::Value input,
                     int64_t inputs, mlir::Value copy);

/// Adds the products of `inputs` inputs, a multiple of kPartsGroup, of rows
/// with panels of int8 or in parts, at most two, to the sums in memory, int32
/// or f32 [panel][rows.count][16]; or to zero. They are written when
/// `meanwhile` is whole.
void emitTiles(KernelBuilder &k, const TileRows &rows,
               const KernelBuilder::Values &panels, int64_t inputs,
               mlir::Value sums, bool fromZero, const EachStep &eachStep,
               const Meanwhile &meanwhile);

/// Repeats the products of a step of emitTiles, 32 rows with two panels, of
/// operands that it loads once from `data` and writes sums to.
constexpr int64_t repeatedTilesMultiplyAdds(int64_t parts) {
  return 32 * 2 * 16 * (parts ? 32 : 64);
}
constexpr int64_t kRepeatedTilesBytes = 32 * 2 * 16 * 4;
void emitRepeatedTiles(KernelBuilder &k, int64_t parts, mlir::Value data,
                       mlir::Value times);

} // namespace isthmus
