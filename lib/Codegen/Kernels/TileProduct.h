//===- TileProduct.h - products in a matrix unit ---------------*- C++ -*-===//
//
// A matrix unit multiplies int8 and bf16. Integers with one scale (takesTiles)
// leave it once, as whole sums; nibbles become bytes first, for a run of rows.
// An f32 value is the sum of three of bf16: six products for one, in less time
// than one takes (bf16x6, docs/numerics.md). Rows come in parts
// (RowFormat::BF16x3); panels of f32 weights are split for a run of them when
// they are needed. (Beside the products of the panels before it takes longer.)
// However many rows there are, each gets the same sums.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "MatrixUnit.h"
#include "Product.h"

namespace isthmus {

class TileProduct {
public:
  using Values = KernelBuilder::Values;

  /// \param ahead   panels from those of a pair to those of the next.
  /// \param fewRows the step has fewer than kTileRows rows; else it has as many
  ///                or more. Each takes a function of its own. Not of integers.
  TileProduct(KernelBuilder &k, const PackedLayout &weight, int64_t ahead,
              bool fewRows);

  /// As Product::forEachChunk.
  void forEachChunk(int64_t outputTiles,
                    const std::function<void(const Product::Chunk &)> &body);

  /// Pointers to the two panels of a pair.
  using PairOf = std::function<Values(mlir::Value pair)>;
  /// Takes a row of the step and its sums with the panels of a pair. A row may
  /// come again, the last time with its sums.
  using Finish = std::function<void(mlir::Value pair, mlir::Value row,
                                    const Values &sums)>;

  /// Multiplies the rows of a chunk, of which `x` is the step's first, with
  /// pairs [0, pairs) of panels.
  void multiply(const Product::Chunk &chunk, mlir::Value x, mlir::Value pairs,
                const PairOf &pairOf, const Finish &finish);

private:
  /// Rows that are multiplied at once.
  struct Block {
    mlir::Value firstRow;
    int64_t rows;
    mlir::Value slot;  ///< of the first of them, among the rows of all blocks
    mlir::Value index; ///< of the block
  };
  /// What `body` leaves of a block is given to it with the next one.
  using BlockBody = std::function<Values(const Block &, mlir::ValueRange)>;
  Values forEachBlock(const Product::Chunk &chunk, Values state,
                      const BlockBody &body);

  /// A share of the inputs of two panels, and where copies of it are to stand.
  struct Weights {
    Values panels;
    mlir::Value firstInput, copies;
  };
  /// The shares as tiles want them.
  Values inParts(const Weights &weights, int64_t count);
  void split(const Weights &weights, int64_t count);
  /// Of the copy of a panel; 0: tiles take panels as they are.
  int64_t copyBytes() const;
  mlir::Value copiesBuffer();
  Values copiesOf(mlir::Value copies);
  /// As many panels on as to the next pair, of one row's weights.
  void prefetchNext(const Values &panels, mlir::Value input);
  void prefetchShare(const Weights &weights, int64_t count, mlir::Value input,
                     int64_t inputs, const Block &block);
  mlir::Value firstRowOf(const Product::Chunk &chunk);

  /// Calls `body` for each share of the inputs, which begins at `begin`.
  void forEachShare(const std::function<void(mlir::Value begin, int64_t count,
                                             bool isFirst, bool isLast)> &body);

  struct Group;
  struct Summed;
  void multiplyFew(mlir::Value x, mlir::Value pairs, const PairOf &pairOf,
                   const Finish &finish);
  /// A group's products with `count` inputs from `begin` on.
  void multiplyShare(const Group &group, mlir::Value begin, int64_t count,
                     bool isFirst, bool isLast);
  /// Gives `finish` the rows of a block, one at a time or all.
  Meanwhile finishing(const Summed &block, const PairOf &pairOf,
                      const Finish &finish);
  void finishAll(const Summed &block, const PairOf &pairOf,
                 const Finish &finish);
  mlir::Value sumsOf(const Group &group, mlir::Value pair, mlir::Value slot);

  bool inShares() const { return inputsAtOnce < layout.inputs; }
  bool splits() const { return parts > 1; }
  bool unpacks() const { return layout.format == PackedFormat::Int4; }
  /// Of an input in a row.
  int64_t valueBytes() const { return parts ? 2 * parts : 1; }
  /// Of an input in a panel as it is stored.
  int64_t inputBytes() const {
    return (layout.panelBytes() - valuesOffset()) / layout.inputs;
  }
  int64_t valuesOffset() const { return parts ? 0 : layout.valuesOffset(); }

  KernelBuilder &k;
  const PackedLayout layout;
  Product product;
  const int64_t parts; ///< of bf16, that a value is; 0: int8
  const int64_t aheadBytes, rowBytes, inputsAtOnce;
  mlir::Value few; ///< i16: how many rows the step has, if few
};

} // namespace isthmus
