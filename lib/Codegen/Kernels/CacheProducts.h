//===- CacheProducts.h - products with keys and values ----------*- C++ -*-===//
//
// Attention multiplies queries with keys and probabilities with values: here is
// how, by format of the cache. What is multiplied with the cache are factors:
// features of a query, or probabilities. Everything else in attention is the
// same for all formats.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

class CacheProducts {
public:
  using Values = KernelBuilder::Values;

  /// \param inTiles factors are for a matrix unit (CacheTiles.h).
  CacheProducts(KernelBuilder &k, const KVLayout &layout, bool inTiles = false)
      : k(k), layout(layout), inTiles(inTiles) {}

  /// Whether factors are rounded: to bf16, or to int16 with a scale. Then two
  /// are multiplied and summed at once.
  bool roundsFactors() const { return layout.valuesAtOnce() == 2; }
  /// What factors may reach where they have a scale.
  static constexpr double kLargestFactor = 32767;
  /// Bytes of a stored factor.
  int64_t factorBytes() const;
  /// Stores 16 factors, rounded; those with a scale are at most kLargestFactor.
  /// Returns what is stored.
  mlir::Value storeFactors(mlir::Value floats, mlir::Value to);
  /// Loads a factor, or a pair of them, into all lanes.
  Values loadFactor(mlir::Value at, int64_t offset);

  /// Loads keys or values for 16 sums, without their scales.
  mlir::Value loadCached(mlir::Value at, int64_t offset = 0);

  /// 16 sums: of f32, or of int32 where the cache is int8.
  mlir::Value zeroSum();
  /// sum + factor * cached
  mlir::Value multiplyAdd(const Values &factor, mlir::Value cached,
                          mlir::Value sum);
  mlir::Value toFloat(mlir::Value sum);

private:
  /// Whether bf16 factors stay f32: pairs are then multiplied one after the
  /// other, and would have to be taken apart.
  bool unpacksPairs() const;

  KernelBuilder &k;
  const KVLayout layout;
  const bool inTiles;
};

} // namespace isthmus
