//===- TileProduct.h - products of floats in a matrix unit -----*- C++ -*-===//
//
// A matrix unit multiplies bf16. An f32 value is the sum of three of bf16: six
// products for one, in less time than one takes (bf16x6, docs/numerics.md).
// Rows come in parts (RowFormat::BF16x3); panels of f32 weights are split for a
// run of them when they are needed. (Beside the products of the panels before
// it takes longer.) However many rows there are, each gets the same sums.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "Product.h"

namespace isthmus {

class TileProduct {
public:
  using Values = KernelBuilder::Values;

  /// \param ahead   panels from those of a pair to those of the next.
  /// \param fewRows the step has fewer than kTileRows rows; else it has as many
  ///                or more. Each takes a function of its own.
  TileProduct(KernelBuilder &k, const PackedLayout &weight, int64_t ahead,
              bool fewRows);

  /// As Product::forEachChunk.
  void forEachChunk(int64_t outputTiles,
                    const std::function<void(const Product::Chunk &)> &body);

  /// Pointers to the two panels of a pair.
  using PairOf = std::function<Values(mlir::Value pair)>;
  /// Takes a row of the step and its sums with the panels of a pair. A row may
  /// come again, with the same sums.
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
  void forEachBlock(const Product::Chunk &chunk,
                    const std::function<void(const Block &)> &body);

  /// A share of the inputs of two panels, and where it is to stand split.
  struct Weights {
    Values panels;
    mlir::Value firstInput, copies;
  };
  /// The shares as tiles want them.
  Values inParts(const Weights &weights, mlir::Value count);
  void split(const Weights &weights, mlir::Value count);
  mlir::Value copiesBuffer();
  /// As many panels on as to the next pair, of one row's weights.
  void prefetchNext(const Values &panels, mlir::Value input);
  void prefetchShare(const Weights &weights, mlir::Value count,
                     mlir::Value input, const Block &block);
  Values copiesOf(mlir::Value copies);

  struct Group;
  void multiplyFew(mlir::Value x, mlir::Value pairs, const PairOf &pairOf,
                   const Finish &finish);
  void multiplyGroup(const Group &group);
  /// The inputs from `begin` on, at most inputsAtOnce.
  void multiplyInputs(const Group &group, mlir::Value begin, bool isFirst,
                      bool isLast);
  void finishRows(mlir::Value pair, mlir::Value firstRow, mlir::Value count,
                  int64_t blockRows, mlir::Value sums, const Finish &finish);

  bool inShares() const { return inputsAtOnce < layout.inputs; }
  bool splits() const { return parts > 1; }
  /// Of an input in a panel as it is stored.
  int64_t inputBytes() const { return layout.panelBytes() / layout.inputs; }

  KernelBuilder &k;
  const PackedLayout layout;
  const int64_t parts; ///< of a value
  const int64_t aheadBytes, rowBytes, inputsAtOnce;
  mlir::Value few; ///< i16: how many rows the step has, if few
};

} // namespace isthmus
