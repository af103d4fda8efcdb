//===- Functions.cpp - activation functions -------------------------------===//
#include "Functions.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace isthmus;

/// x * sigmoid(z)
static Value timesSigmoid(KernelBuilder &k, Value x, Value z) {
  Value one = k.fcst(x.getType(), 1.0);
  return k.quotient(x, k.fadd(one, k.expOfNegated(z)));
}

/// erf(x) within 3e-7, as x P(x^2) / Q(x^2) up to where it is 1 in f32. The
/// coefficients are a fit of least largest error (iteratively weighted least
/// squares), within 2.2e-8 before rounding.
static Value erf(KernelBuilder &k, Value x) {
  constexpr double kEnd = 3.7;
  auto c = [&](double value) { return k.fcst(x.getType(), value); };
  x = arith::MinimumFOp::create(
      k.b, k.loc, c(kEnd), arith::MaximumFOp::create(k.b, k.loc, c(-kEnd), x));
  Value square = k.fmul(x, x);
  auto polynomial = [&](std::initializer_list<double> highestFirst) {
    Value sum;
    for (double coefficient : highestFirst)
      sum = sum ? k.fma(sum, square, c(coefficient)) : c(coefficient);
    return sum;
  };
  Value p = polynomial({2.26022027760564e-08, -2.0592556211340707e-06,
                        1.3487230171449482e-04, 3.195446915924549e-03,
                        4.8871904611587524e-02, 1.8660685420036316e-01,
                        1.128378987312317});
  Value q = polynomial({8.499239920638502e-04, 1.3272452168166637e-02,
                        1.0955674201250076e-01, 4.987069368362427e-01, 1.0});
  return k.quotient(k.fmul(x, p), q);
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
