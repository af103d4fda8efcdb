//===- CacheTiles.h - products with keys and values in tiles ----*- C++ -*-===//
//
// What CacheProducts.h does for a few queries, in a matrix unit for many: with
// factors and a cache of bf16, whose pairs stand as tiles want them.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

class CacheTiles {
public:
  using Values = KernelBuilder::Values;

  /// Features of a query, or positions, that are multiplied and summed at once.
  static constexpr int64_t kFactors = 32;

  /// \param queries of one key/value head: at most kTileRows, or a multiple of
  ///                them.
  CacheTiles(KernelBuilder &k, const KVLayout &layout, int64_t queries);

  /// Queries with the keys of a page.
  ///
  /// \param queries   bf16 [query][headDim].
  /// \param scores    f32 [page positions], those of a query `stride` bytes
  ///                  after those of the one before.
  /// \param eachShare what is done beside share 0, 1, ... of `count` that the
  ///                  products come in.
  void emitScores(
      mlir::Value keys, mlir::Value queries, mlir::Value scores, int64_t stride,
      const std::function<void(int64_t share, int64_t count)> &eachShare);

  /// Factors with the values of some pages, positions ascending.
  ///
  /// \param factors  bf16 [position], strided as scores are.
  /// \param valuesOf gives the values of a page.
  /// \param eachShare as for emitScores, beside the products with `page`.
  /// \param use      takes a query and 16 of its sums, from a feature on.
  void emitOutputs(mlir::Value pages, mlir::Value factors, int64_t stride,
                   const std::function<mlir::Value(mlir::Value)> &valuesOf,
                   const std::function<void(mlir::Value page, int64_t share,
                                            int64_t count)> &eachShare,
                   const std::function<void(mlir::Value query, int64_t feature,
                                            mlir::Value sums)> &use);

  /// Copies the values of a page whose first `count` positions are written,
  /// and zeros for the others: whatever stands there is no number perhaps.
  void copyValues(mlir::Value values, mlir::Value count, mlir::Value to);

private:
  KernelBuilder &k;
  const KVLayout layout;
  const int64_t queriesOfTile, tiles;
  mlir::Type type;

  int64_t keyPairsBytes() const { return rt::kPagePositions * 4; }
  int64_t valuePairsBytes() const { return layout.headDim * 4; }

  // Tiles of 64 bytes a line; lines are `stride` bytes apart.
  mlir::Value lines(int64_t count) { return k.cst(k.i16(), count); }
  mlir::Value zeros();
  mlir::Value loadFactors(mlir::Value first, int64_t stride);
  /// 16 pairs of 16 keys (features) or features (values).
  mlir::Value loadCached(mlir::Value first, int64_t stride);
  mlir::Value multiplyAdd(mlir::Value sums, mlir::Value factors,
                          mlir::Value cached);
  void store(mlir::Value sums, mlir::Value first, int64_t stride);
};

} // namespace isthmus
