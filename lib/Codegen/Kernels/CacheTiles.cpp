//===- CacheTiles.cpp - products with keys and values in tiles ------------===//
#include "CacheTiles.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace isthmus;

static constexpr int64_t kLine = 64; ///< bytes of a line of a tile
static constexpr int64_t kPage = rt::kPagePositions;
/// Tiles of sums at once: as many again hold factors and what is cached.
static constexpr int64_t kMostSums = 4;

CacheTiles::CacheTiles(KernelBuilder &k, const KVLayout &layout,
                       int64_t queries)
    : k(k), layout(layout), queriesOfTile(std::min(queries, kTileRows)),
      tiles(queries / queriesOfTile),
      type(LLVM::LLVMX86AMXType::get(k.b.getContext())) {}

void CacheTiles::emitScores(
    Value keys, Value queries, Value scores, int64_t stride,
    const std::function<void(int64_t, int64_t)> &eachShare) {
  const int64_t queryBytes = layout.headDim * 2;
  const int64_t shares = kPage / kLanes * (layout.headDim / kFactors);
  int64_t share = 0;
  for (int64_t first = 0; first < tiles; first += kMostSums) {
    const int64_t count = std::min(kMostSums, tiles - first);
    for (int64_t position = 0; position < kPage; position += kLanes) {
      Values sums;
      for (int64_t t = 0; t < count; ++t)
        sums.push_back(zeros());
      for (int64_t d = 0; d < layout.headDim; d += kFactors) {
        Value cached =
            loadCached(k.ptr(keys, d / 2 * keyPairsBytes() + position * 4),
                       keyPairsBytes());
        for (int64_t t = 0; t < count; ++t) {
          const int64_t query = (first + t) * queriesOfTile;
          Value factors = loadFactors(
              k.ptr(queries, query * queryBytes + d * 2), queryBytes);
          sums[size_t(t)] = multiplyAdd(sums[size_t(t)], factors, cached);
        }
        if (first == 0)
          eachShare(share++, shares);
      }
      for (int64_t t = 0; t < count; ++t)
        store(
            sums[size_t(t)],
            k.ptr(scores, (first + t) * queriesOfTile * stride + position * 4),
            stride);
    }
  }
}

void CacheTiles::emitOutputs(
    Value pages, Value factors, int64_t stride,
    const std::function<Value(Value)> &valuesOf,
    const std::function<void(Value, int64_t, int64_t)> &eachShare,
    const std::function<void(Value, int64_t, Value)> &use) {
  const int64_t sumBytes = queriesOfTile * kLine;
  Value stored = k.stackBuffer(kMostSums * sumBytes);
  for (int64_t first = 0; first < tiles; first += 2) {
    const int64_t count = std::min<int64_t>(2, tiles - first);
    const int64_t most = kMostSums / count;
    for (int64_t d = 0; d < layout.headDim; d += most * kLanes) {
      const int64_t width = std::min(most, (layout.headDim - d) / kLanes);
      Values sums;
      for (int64_t i = 0; i < count * width; ++i)
        sums.push_back(zeros());
      sums = k.loop(k.cst(0), pages, 1, sums, [&](Value p, ValueRange state) {
        Values next(state), own;
        Value values = valuesOf(p);
        Value inPage = k.mul(p, kPage * 2);
        for (int64_t t = 0; t < count; ++t)
          own.push_back(loadFactors(k.ptr(k.ptr(factors, inPage),
                                          (first + t) * queriesOfTile * stride),
                                    stride));
        for (int64_t i = 0; i < width; ++i) {
          Value cached = loadCached(k.ptr(values, (d + i * kLanes) * 4),
                                    valuePairsBytes());
          for (int64_t t = 0; t < count; ++t) {
            Value &sum = next[size_t(t * width + i)];
            sum = multiplyAdd(sum, own[size_t(t)], cached);
          }
          if (first == 0)
            eachShare(p, d / kLanes + i, layout.headDim / kLanes);
        }
        return next;
      });
      for (int64_t i = 0; i < count * width; ++i)
        store(sums[size_t(i)], k.ptr(stored, i * sumBytes), kLine);
      VectorType lanes = k.vec(kLanes, k.f32());
      k.loop(k.cst(0), k.cst(queriesOfTile), 1, [&](Value query) {
        for (int64_t t = 0; t < count; ++t)
          for (int64_t i = 0; i < width; ++i)
            use(k.add(query, (first + t) * queriesOfTile), d + i * kLanes,
                k.load(lanes, k.ptr(stored, k.mul(query, kLine)),
                       (t * width + i) * sumBytes));
      });
    }
  }
}

void CacheTiles::copyValues(Value values, Value count, Value to) {
  VectorType ints = k.vec(kLanes, k.i32());
  k.loop(k.cst(0), k.cst(kPage), 2, [&](Value position) {
    auto keepIf = [&](Value isWritten, int64_t bits) {
      return Value(arith::SelectOp::create(
          k.b, k.loc, isWritten, k.cst(k.i32(), bits), k.cst(k.i32(), 0)));
    };
    Value kept = arith::OrIOp::create(
        k.b, k.loc, keepIf(k.lessThan(position, count), 0xFFFF),
        keepIf(k.lessThan(k.add(position, 1), count), -65536));
    Value mask = k.splat(kept, kLanes);
    Value line = k.mul(position, valuePairsBytes() / 2);
    for (int64_t offset = 0; offset < valuePairsBytes(); offset += kLine)
      k.store(arith::AndIOp::create(
                  k.b, k.loc, k.load(ints, k.ptr(values, line), offset), mask),
              k.ptr(to, line), offset);
  });
}

Value CacheTiles::zeros() {
  return k.intrinsic("llvm.x86.tilezero.internal", type,
                     {lines(queriesOfTile), lines(kLine)});
}

Value CacheTiles::loadFactors(Value first, int64_t stride) {
  return k.intrinsic(
      "llvm.x86.tileloadd64.internal", type,
      {lines(queriesOfTile), lines(kLine), first, k.cst(stride)});
}

Value CacheTiles::loadCached(Value first, int64_t stride) {
  return k.intrinsic("llvm.x86.tileloadd64.internal", type,
                     {lines(kFactors / 2), lines(kLine), first, k.cst(stride)});
}

Value CacheTiles::multiplyAdd(Value sums, Value factors, Value cached) {
  return k.intrinsic("llvm.x86.tdpbf16ps.internal", type,
                     {lines(queriesOfTile), lines(kLine), lines(kLine), sums,
                      factors, cached});
}

void CacheTiles::store(Value sums, Value first, int64_t stride) {
  k.intrinsic("llvm.x86.tilestored64.internal",
              {lines(queriesOfTile), lines(kLine), first, k.cst(stride), sums});
}
