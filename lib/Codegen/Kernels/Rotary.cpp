//===- Rotary.cpp - rotary position embedding -----------------------------===//
#include "isthmus/Codegen/Kernels.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;

/// Sine and cosine of f32 angles. Computed in f64: positions reach 10^5
/// radians, where the reduction in f32 would cost the digits that matter. Odd
/// and even Taylor polynomials on [-pi/4, pi/4], error below 1e-9 (far below
/// f32).
static std::pair<Value, Value> sinCos(KernelBuilder &k, Value angle) {
  VectorType wide = k.vec(kLanes, k.f64()), ints = k.vec(kLanes, k.i32());
  auto c = [&](double value) { return k.fcst(wide, value); };
  Value a = arith::ExtFOp::create(k.b, k.loc, wide, angle);
  Value turns = math::RoundEvenOp::create(k.b, k.loc, k.fmul(a, c(2.0 / M_PI)));
  Value r = k.fma(turns, c(-M_PI_2), a);
  Value r2 = k.fmul(r, r);
  Value sine = c(-1.0 / 39916800);
  for (double term : {1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6, 1.0})
    sine = k.fma(sine, r2, c(term));
  sine = k.fmul(sine, r);
  Value cosine = c(1.0 / 479001600);
  for (double term :
       {-1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5, 1.0})
    cosine = k.fma(cosine, r2, c(term));

  Value quadrant = arith::FPToSIOp::create(k.b, k.loc, ints, turns);
  auto bitSet = [&](Value v, int64_t bit) {
    Value masked = arith::AndIOp::create(k.b, k.loc, v, k.cst(ints, bit));
    return arith::CmpIOp::create(k.b, k.loc, arith::CmpIPredicate::ne, masked,
                                 k.cst(ints, 0));
  };
  auto choose = [&](Value condition, Value yes, Value no) -> Value {
    return arith::SelectOp::create(k.b, k.loc, condition, yes, no);
  };
  auto negateIf = [&](Value condition, Value v) {
    return choose(condition, arith::NegFOp::create(k.b, k.loc, v), v);
  };
  Value odd = bitSet(quadrant, 1);
  Value sin = negateIf(bitSet(quadrant, 2), choose(odd, cosine, sine));
  Value cosNegative = bitSet(k.add(quadrant, k.cst(ints, 1)), 2);
  Value cos = negateIf(cosNegative, choose(odd, sine, cosine));
  VectorType narrow = k.vec(kLanes, k.f32());
  return {arith::TruncFOp::create(k.b, k.loc, narrow, sin),
          arith::TruncFOp::create(k.b, k.loc, narrow, cos)};
}

void isthmus::emitRotary(KernelBuilder &k, const RotarySpec &spec) {
  Value x = k.operand(0), y = k.operand(1);
  Value positions = k.stepField(rt::kStepPositions, /*isPointer=*/true);
  VectorType lanes = k.vec(kLanes, k.f32());
  int64_t half = spec.headDim / 2, heads = spec.features / spec.headDim;
  k.loop(k.begin, k.end, 1, [&](Value row) {
    Value rowOffset = k.mul(row, floatRowBytes(spec.features));
    Value position = arith::SIToFPOp::create(
        k.b, k.loc, k.f32(), k.load(k.i32(), k.ptr(positions, k.mul(row, 4))));
    for (int64_t i = 0; i < half; i += kLanes) {
      Value frequency = arith::ConstantOp::create(
          k.b, k.loc,
          DenseElementsAttr::get(
              lanes, ArrayRef(spec.frequencies).slice(size_t(i), kLanes)));
      auto [sin, cos] = sinCos(k, k.fmul(k.splat(position, kLanes), frequency));
      k.loop(k.cst(0), k.cst(heads), 1, [&](Value head) {
        Value offset = k.add(rowOffset, k.mul(head, spec.headDim * 4));
        Value in = k.ptr(x, offset), out = k.ptr(y, offset);
        Value a = k.load(lanes, in, i * 4);
        Value b = k.load(lanes, in, (i + half) * 4);
        k.store(k.fsub(k.fmul(a, cos), k.fmul(b, sin)), out, i * 4);
        k.store(k.fadd(k.fmul(b, cos), k.fmul(a, sin)), out, (i + half) * 4);
      });
    }
  });
}
