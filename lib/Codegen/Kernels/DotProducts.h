//===- DotProducts.h - the instruction-set part of products -----*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/KernelBuilder.h"
#include "isthmus/Weights/PackedLayout.h"

#include <functional>

namespace isthmus {

/// Adds to `sums` the exact int32 dot products of a part of a block of each of
/// some panels of a packed int8 or int4 weight (16 outputs, `PackedLayout.h`)
/// with the same inputs of each row. int4 counts nibbles as 0..15; what they
/// stand for is the caller's business.
///
/// \param weight the layout of the weight.
/// \param inputs how many: of int4 a whole block, of int8 a multiple of 4.
/// \param blocks for each panel, a pointer to the first of them in its block.
/// \param rows   for each row, a pointer to the first of its int8 values; all
///               as far apart as the first two.
/// \param sums   vector<16xi32>, [panel * rows + row]; those of a block start
///               from emitDotStart.
KernelBuilder::Values emitGroupDot(KernelBuilder &k, const PackedLayout &weight,
                                   int64_t inputs,
                                   const KernelBuilder::Values &blocks,
                                   const KernelBuilder::Values &rows,
                                   const KernelBuilder::Values &sums);

/// Whether long products of so many rows are made in tiles of a matrix unit,
/// from where sums come back through memory.
bool usesTiles(const TargetDescription &target, PackedFormat format,
               int64_t rows);

/// Which int8 values occur in weights and rows.
enum class ByteRange { Symmetric /**< not -128 */, All };

/// What is done beside a step of a long product: given its first input, and how
/// many it takes of a row.
using EachStep = std::function<void(mlir::Value at, int64_t count)>;

/// As emitGroupDot, for the whole length of panels and rows of int8.
///
/// \param inputs of a panel, a multiple of 4.
KernelBuilder::Values emitLongDot(KernelBuilder &k, const PackedLayout &weight,
                                  int64_t inputs, ByteRange range,
                                  const KernelBuilder::Values &panels,
                                  const KernelBuilder::Values &rows,
                                  const KernelBuilder::Values &sums,
                                  const EachStep &eachStep);

/// Other work that a matrix unit's steps leave the processor free for: pieces
/// 0, 1, ... in any order.
struct Meanwhile {
  int64_t pieces = 0;
  std::function<void(mlir::Value piece)> emit;
};

/// Writes the sums of as many rows as make tiles (usesTiles) to `to`: int32
/// [panel][row][16], whole when `meanwhile` is. Beside that as emitLongDot.
void emitLongTiles(KernelBuilder &k, int64_t inputs,
                   const KernelBuilder::Values &panels,
                   const KernelBuilder::Values &rows, mlir::Value to,
                   const EachStep &eachStep, const Meanwhile &meanwhile);

/// Rows of RowFormat::BF16x1 or BF16x3 in tiles.
struct TileRows {
  mlir::Value first;
  int64_t parts;  ///< of a value
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
/// with panels in parts, at most two, to the sums in memory, f32
/// [panel][rows.count][16]; or to zero.
void emitFloatTiles(KernelBuilder &k, const TileRows &rows,
                    const KernelBuilder::Values &panels, mlir::Value inputs,
                    mlir::Value sums, bool fromZero, const EachStep &eachStep);

/// Repeats the products of a step of emitLongTiles (no parts) or
/// emitFloatTiles, 32 rows with two panels, of operands that it loads once from
/// `data` and writes sums to.
constexpr int64_t repeatedTilesMultiplyAdds(int64_t parts) {
  return 32 * 2 * 16 * (parts ? 32 : 64);
}
constexpr int64_t kRepeatedTilesBytes = 32 * 2 * 16 * 4;
void emitRepeatedTiles(KernelBuilder &k, int64_t parts, mlir::Value data,
                       mlir::Value times);

/// Writes the nibbles of a block of an int4 weight as bytes: as a block of
/// int8. With one scale the bytes are the values in units of it, of the block's
/// `factors`.
void emitUnpack(KernelBuilder &k, const PackedLayout &weight, mlir::Value block,
                mlir::Value factors, mlir::Value to);

/// Of a block of an int4 weight with one scale: its steps and offsets, read
/// from `factors`, vector<16xi32> of int16 pairs.
mlir::Value emitSteppedFactors(KernelBuilder &k, mlir::Value factors);
/// What its dot products start from, that nibbles count from -8 and sums fit
/// int16; `sums`, of the block's inputs, is vector<16xi32> of that int16 twice.
mlir::Value emitSteppedStart(KernelBuilder &k, mlir::Value sums);
/// Lane by lane: total + step * dot + offset * sum, exact in int32.
mlir::Value emitSteppedSum(KernelBuilder &k, mlir::Value dot, mlir::Value sums,
                           mlir::Value factors, mlir::Value total);

/// What the dot products of a block with so many rows start from:
/// `correction()`, i32 -128 * the sum of the row's values, for instructions
/// that take int8 weights with 128 added, or nothing.
mlir::Value emitDotStart(KernelBuilder &k, const PackedLayout &weight,
                         size_t rows,
                         llvm::function_ref<mlir::Value()> correction);

/// Lane by lane: sum + x.second * y.second, and to that x.first * y.first, each
/// fused (the order of x86's VDPBF16PS, which also takes denormals for zero).
///
/// \param x, y vector<16xi32> of bf16 pairs.
/// \param sum  vector<16xf32>.
mlir::Value emitPairDot(KernelBuilder &k, mlir::Value x, mlir::Value y,
                        mlir::Value sum);

/// The same with two fused multiply-adds, and the halves of x as
/// vector<16xf32>.
mlir::Value emitPairDot(KernelBuilder &k, mlir::Value first, mlir::Value second,
                        mlir::Value y, mlir::Value sum);

/// Lane by lane: sum + x.first * y.first + x.second * y.second, exact unless
/// the sum leaves int32.
///
/// \param x, y vector<16xi32> of int16 pairs.
/// \param sum  vector<16xi32>.
mlir::Value emitWordDot(KernelBuilder &k, mlir::Value x, mlir::Value y,
                        mlir::Value sum);

} // namespace isthmus
