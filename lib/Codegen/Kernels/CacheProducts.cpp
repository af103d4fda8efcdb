//===- CacheProducts.cpp - products with keys and values ------------------===//
#include "CacheProducts.h"

#include "DotProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

bool CacheProducts::unpacksPairs() const {
  return layout.format == PackedFormat::BF16 && !inTiles &&
         k.target.pairDot == PairDot::TwoFmas;
}

int64_t CacheProducts::factorBytes() const {
  return roundsFactors() && !unpacksPairs() ? 2 : 4;
}

Value CacheProducts::storeFactors(Value floats, Value to) {
  if (!roundsFactors()) {
    k.store(floats, to);
    return floats;
  }
  const bool bf16 = layout.format == PackedFormat::BF16;
  Value bits = bf16 ? k.toBF16(floats) : k.roundedBits(floats);
  Value stored = bf16 ? k.fromBF16(bits) : floats;
  k.store(unpacksPairs() ? stored
                         : arith::TruncIOp::create(
                               k.b, k.loc, k.vec(kLanes, k.i16()), bits),
          to);
  return stored;
}

CacheProducts::Values CacheProducts::loadFactor(Value at, int64_t offset) {
  if (factorBytes() == 2)
    return {k.splat(k.load(k.i32(), at, offset), kLanes)};
  Values factor;
  for (int64_t i = 0; i < layout.valuesAtOnce(); ++i)
    factor.push_back(k.splat(k.load(k.f32(), at, offset + 4 * i), kLanes));
  return factor;
}

Value CacheProducts::loadCached(Value at, int64_t offset) {
  VectorType floats = k.vec(kLanes, k.f32()), ints = k.vec(kLanes, k.i32());
  switch (layout.format) {
  case PackedFormat::F16: {
    Value half = k.load(k.vec(kLanes, k.f16()), at, offset);
    return arith::ExtFOp::create(k.b, k.loc, floats, half);
  }
  case PackedFormat::BF16:
    return k.load(ints, at, offset);
  case PackedFormat::Int8: {
    Value bytes = k.load(k.vec(2 * kLanes, k.i8()), at, offset);
    return k.bitcast(ints, arith::ExtSIOp::create(
                               k.b, k.loc, k.vec(2 * kLanes, k.i16()), bytes));
  }
  default:
    return k.load(floats, at, offset);
  }
}

Value CacheProducts::zeroSum() {
  return layout.hasScales() ? k.cst(k.vec(kLanes, k.i32()), 0)
                            : k.zeros(kLanes);
}

Value CacheProducts::multiplyAdd(const Values &factor, Value cached,
                                 Value sum) {
  if (layout.hasScales())
    return emitWordDot(k, factor[0], cached, sum);
  if (!roundsFactors())
    return k.fma(factor[0], cached, sum);
  return unpacksPairs() ? emitPairDot(k, factor[0], factor[1], cached, sum)
                        : emitPairDot(k, factor[0], cached, sum);
}

Value CacheProducts::toFloat(Value sum) {
  if (!layout.hasScales())
    return sum;
  return arith::SIToFPOp::create(k.b, k.loc, k.vec(kLanes, k.f32()), sum);
}
