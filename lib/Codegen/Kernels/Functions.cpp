//===- Functions.cpp - activation functions -------------------------------===//
#include "Functions.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace isthmus;

/// x * sigmoid(z)
static Value timesSigmoid(KernelBuilder &k, Value x, Value z) {
  Value negated = arith::NegFOp::create(k.b, k.loc, z);
  Value one = k.fcst(x.getType(), 1.0);
  return k.fdiv(x, k.fadd(one, k.exp(negated)));
}

/// erf(x), absolute error below 1.5e-7 (Abramowitz and Stegun, 7.1.26).
static Value erf(KernelBuilder &k, Value x) {
  auto c = [&](double value) { return k.fcst(x.getType(), value); };
  Value magnitude = math::AbsFOp::create(k.b, k.loc, x);
  Value t = k.fdiv(c(1.0), k.fma(magnitude, c(0.3275911), c(1.0)));
  Value p = c(1.061405429);
  for (double term : {-1.453152027, 1.421413741, -0.284496736, 0.254829592})
    p = k.fma(p, t, c(term));
  Value square = k.fmul(magnitude, magnitude);
  Value tail = k.exp(arith::NegFOp::create(k.b, k.loc, square));
  Value positive = k.fsub(c(1.0), k.fmul(k.fmul(p, t), tail));
  return math::CopySignOp::create(k.b, k.loc, positive, x);
}

Value isthmus::emitFunction(KernelBuilder &k, Function function, Value x) {
  auto c = [&](double value) { return k.fcst(x.getType(), value); };
  switch (function) {
  case Function::Silu:
    return timesSigmoid(k, x, x);
  case Function::GeluTanh: {
    // (1 + tanh(z)) / 2 = sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3)
    Value cubic = k.fma(k.fmul(k.fmul(x, x), x), c(0.044715), x);
    return timesSigmoid(k, x, k.fmul(cubic, c(1.5957691216057308)));
  }
  case Function::GeluErf: {
    Value half = k.fmul(x, c(0.5));
    return k.fma(half, erf(k, k.fmul(x, c(0.7071067811865476))), half);
  }
  case Function::QuickGelu:
    return timesSigmoid(k, x, k.fmul(x, c(1.702)));
  }
  llvm_unreachable("unknown function");
}
