//===- Functions.cpp - functions of numbers -------------------------------===//
//
// f32 goes through MLIR's polynomial approximations (approximateMath); f64, and
// angles of all types, through the functions of f64 here.
//
//===----------------------------------------------------------------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;

template <typename Op> static Scalar call(Scalar x) {
  return x.builder->math<Op>(x);
}

static Scalar cast(Scalar x, DataType type, Type to) {
  KernelBuilder &k = x.builder->k;
  return {x.builder, arith::BitcastOp::create(k.b, k.loc, to, x.value), type};
}

/// 2^n for whole n in [-1022, 1023].
static Scalar power2(Scalar n) {
  NodeBuilder &b = *n.builder;
  Scalar biased = b.convert(n, DataType::I64) + 1023;
  KernelBuilder &k = b.k;
  Scalar bits{&b, arith::ShLIOp::create(k.b, k.loc, biased.value, k.cst(52)),
              DataType::I64};
  return cast(bits, DataType::F64, k.f64());
}

/// e^x: 2^n times a Taylor series on [-ln2 / 2, ln2 / 2].
static Scalar exp64(Scalar x) {
  NodeBuilder &b = *x.builder;
  Scalar clamped = select(x < -746.0, b.constant(x.type, -746), x);
  clamped = select(clamped > 710.0, b.constant(x.type, 710), clamped);
  clamped = select(x != x, b.constant(x.type, 0), clamped);
  Scalar n = roundOf(clamped * 1.4426950408889634);
  Scalar r = clamped - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  Scalar sum = b.constant(x.type, 1);
  for (int i = 13; i >= 1; --i)
    sum = sum * r / double(i) + 1.0;
  // In two factors, so that subnormal results and those above 2^1023 come out.
  Scalar half = floorOf(n * 0.5);
  Scalar result = sum * power2(half) * power2(n - half);
  return select(x != x, x, result);
}

/// ln x: exponent * ln2 + 2 atanh((m - 1) / (m + 1)), m in [sqrt(1/2),
/// sqrt(2)).
static Scalar log64(Scalar x) {
  NodeBuilder &b = *x.builder;
  KernelBuilder &k = b.k;
  Scalar tiny = x < 2.2250738585072014e-308;
  Scalar scaled = select(tiny, x * 0x1p54, x);
  Scalar bits = cast(scaled, DataType::I64, k.i64());
  auto i64 = [&](int64_t v) { return b.index(v); };
  Scalar exponent{&b, arith::ShRUIOp::create(k.b, k.loc, bits.value, k.cst(52)),
                  DataType::I64};
  exponent = exponent - 1023;
  Scalar m = cast((bits & i64(0x000fffffffffffff)) | i64(0x3ff0000000000000),
                  DataType::F64, k.f64());
  Scalar large = m > M_SQRT2;
  m = select(large, m * 0.5, m);
  exponent = select(large, exponent + 1, exponent);
  exponent = select(tiny, exponent - 54, exponent);
  Scalar s = (m - 1.0) / (m + 1.0), square = s * s;
  Scalar sum = b.constant(x.type, 1.0 / 25);
  for (int i = 23; i >= 1; i -= 2)
    sum = sum * square + 1.0 / i;
  Scalar e = b.convert(exponent, DataType::F64);
  Scalar result = e * 6.93147180369123816490e-01 +
                  (s * sum * 2.0 + e * 1.90821492927058770002e-10);
  result = select(x == 0, b.constant(x.type, -INFINITY), result);
  result = select(x == INFINITY, x, result);
  return select(!(x >= 0), b.constant(x.type, NAN), result);
}

/// Sine and cosine: Taylor series on [-pi / 4, pi / 4], in turns. The angle is
/// reduced by pi / 2 in three parts of 33 bits, which loses nothing up to 1e6
/// and 1e-7 at 1e9; what is above 1e15 gives some number in [-1, 1].
static std::pair<Scalar, Scalar> sinCos64(Scalar x) {
  NodeBuilder &b = *x.builder;
  Scalar n = roundOf(x * M_2_PI);
  Scalar r = x - n * 1.57079632673412561417e+00;
  r = r - n * 6.07710050630396597660e-11;
  r = r - n * 2.02226624871116645580e-21;
  r = select(abs(r) > 1.0, b.constant(x.type, 1), r);
  Scalar square = r * r, sine = b.constant(x.type, 1), cosine = sine;
  for (int i = 16; i >= 2; i -= 2) {
    sine = 1.0 - sine * square * (1.0 / (i * (i + 1)));
    cosine = 1.0 - cosine * square * (1.0 / (i * (i - 1)));
  }
  sine = sine * r;
  Scalar quarter = n - floorOf(n * 0.25) * 4.0;
  Scalar odd = (quarter == 1) | (quarter == 3);
  Scalar s = select(odd, cosine, sine), c = select(odd, sine, cosine);
  return {select(quarter >= 2, -s, s),
          select((quarter == 1) | (quarter == 2), -c, c)};
}

/// atan x: by 1 / x and (z - 1) / (z + 1) to a series on |z| <= tan(pi / 8).
static Scalar atan64(Scalar x) {
  NodeBuilder &b = *x.builder;
  Scalar size = abs(x);
  Scalar inverted = size > 1, z = select(inverted, 1.0 / size, size);
  Scalar turned = z > 0.41421356237309503;
  z = select(turned, (z - 1.0) / (z + 1.0), z);
  Scalar square = z * z, sum = b.constant(x.type, 1.0 / 43);
  for (int i = 41; i >= 1; i -= 2)
    sum = 1.0 / i - sum * square;
  Scalar result = z * sum;
  result = select(turned, result + M_PI_4, result);
  result = select(inverted, M_PI_2 - result, result);
  return select(x < 0, -result, result);
}

/// ln(1 + x), x > -1, to the last digits of small x too.
static Scalar log1p64(Scalar x) {
  Scalar sum = x + 1.0;
  return select(sum == 1, x, log64(sum) * (x / (sum - 1.0)));
}

/// `f`, a function of f64, of a number of another type.
template <Scalar (*f)(Scalar)> static Scalar inDouble(Scalar x) {
  NodeBuilder &b = *x.builder;
  return b.convert(f(b.convert(x, DataType::F64)), x.type);
}

static bool isDouble(Scalar x) { return x.type == DataType::F64; }

Scalar isthmus::expOf(Scalar x) {
  return isDouble(x) ? exp64(x) : call<math::ExpOp>(x);
}
Scalar isthmus::logOf(Scalar x) {
  return isDouble(x) ? log64(x) : call<math::LogOp>(x);
}
Scalar isthmus::sqrtOf(Scalar x) { return call<math::SqrtOp>(x); }
Scalar isthmus::erfOf(Scalar x) { return call<math::ErfOp>(x); }
Scalar isthmus::floorOf(Scalar x) { return call<math::FloorOp>(x); }
Scalar isthmus::ceilOf(Scalar x) { return call<math::CeilOp>(x); }
Scalar isthmus::roundOf(Scalar x) { return call<math::RoundEvenOp>(x); }
Scalar isthmus::truncOf(Scalar x) { return call<math::TruncOp>(x); }

// Angles in f64, as they may be large: audio models add up phases.
static Scalar sin64(Scalar x) { return sinCos64(x).first; }
static Scalar cos64(Scalar x) { return sinCos64(x).second; }
static Scalar tan64(Scalar x) {
  auto [sine, cosine] = sinCos64(x);
  return sine / cosine;
}
static Scalar asin64(Scalar x) {
  return atan64(x / sqrtOf((1.0 - x) * (x + 1.0)));
}
static Scalar acos64(Scalar x) {
  return atan64(sqrtOf((1.0 - x) / (x + 1.0))) * 2.0;
}
Scalar isthmus::sinOf(Scalar x) { return inDouble<sin64>(x); }
Scalar isthmus::cosOf(Scalar x) { return inDouble<cos64>(x); }
Scalar isthmus::tanOf(Scalar x) { return inDouble<tan64>(x); }
Scalar isthmus::asinOf(Scalar x) { return inDouble<asin64>(x); }
Scalar isthmus::acosOf(Scalar x) { return inDouble<acos64>(x); }
Scalar isthmus::atanOf(Scalar x) { return inDouble<atan64>(x); }

Scalar isthmus::tanhOf(Scalar x) {
  if (!isDouble(x))
    return call<math::TanhOp>(x);
  Scalar e = exp64(x * 2.0);
  return 1.0 - 2.0 / (e + 1.0);
}

Scalar isthmus::sigmoidOf(Scalar x) { return 1.0 / (expOf(-x) + 1.0); }

/// x^n for whole n, by squaring.
static Scalar wholePower(Scalar x, Scalar n) {
  NodeBuilder &b = *x.builder;
  n = b.convert(n, DataType::I64);
  Scalar one = b.constant(x.type, 1);
  auto result =
      b.loop(b.index(0), b.index(63), {one, x, abs(n)},
             [&](Scalar, ArrayRef<Scalar> state) -> NodeBuilder::Scalars {
               Scalar odd = (state[2] & b.index(1)) != 0;
               return {select(odd, state[0] * state[1], state[0]),
                       state[1] * state[1], state[2] / 2};
             });
  return select(n < 0, one / result[0], result[0]);
}

Scalar isthmus::powerOf(Scalar x, Scalar y) {
  NodeBuilder &b = *x.builder;
  if (!isFloat(x.type)) {
    if (!isFloat(y.type))
      return wholePower(x, y);
    return b.convert(powerOf(b.convert(x, DataType::F64), y), x.type);
  }
  // In f64, where logarithm and exponential lose less than f32 can tell.
  Scalar base = b.convert(x, DataType::F64),
         exponent = b.convert(y, DataType::F64);
  Scalar magnitude = exp64(exponent * log64(abs(base)));
  Scalar whole = floorOf(exponent) == exponent;
  Scalar half = exponent * 0.5;
  Scalar odd = whole & (floorOf(half) != half);
  Scalar nan = b.constant(DataType::F64, NAN);
  Scalar result = select((base < 0) & odd, -magnitude, magnitude);
  result = select((base < 0) & !whole & (base != -INFINITY), nan, result);
  result = select((exponent == 0) | (base == 1), b.constant(DataType::F64, 1),
                  result);
  // Small powers that models take all the time are exact.
  result = select(exponent == 2, base * base, result);
  return b.convert(result, x.type);
}

/// ln(1 + e^-|x|).
static Scalar softplusTail(Scalar x) { return log1p64(exp64(-abs(x))); }

Scalar isthmus::activationOf(StringRef name, Scalar x, double alpha,
                             double beta) {
  NodeBuilder &b = *x.builder;
  auto zero = b.constant(x.type, 0);
  if (name.equals_insensitive("Relu"))
    return max(x, 0);
  if (name.equals_insensitive("Tanh"))
    return tanhOf(x);
  if (name.equals_insensitive("Sigmoid"))
    return sigmoidOf(x);
  if (name.equals_insensitive("Affine"))
    return x * alpha + beta;
  if (name.equals_insensitive("LeakyRelu"))
    return select(x < 0, x * alpha, x);
  if (name.equals_insensitive("ThresholdedRelu"))
    return select(x > alpha, x, zero);
  if (name.equals_insensitive("ScaledTanh"))
    return tanhOf(x * beta) * alpha;
  if (name.equals_insensitive("HardSigmoid"))
    return min(max(x * alpha + beta, 0), 1);
  if (name.equals_insensitive("Elu"))
    return select(x < 0, (expOf(x) - 1.0) * alpha, x);
  if (name.equals_insensitive("Softsign"))
    return x / (abs(x) + 1.0);
  if (name.equals_insensitive("Softplus"))
    return max(x, 0) + inDouble<softplusTail>(x);
  return {};
}

LogicalResult isthmus::approximateMath(ModuleOp kernels) {
  RewritePatternSet patterns(kernels.getContext());
  populateMathPolynomialApproximationPatterns(
      patterns, [](StringRef op) { return op != "math.sqrt"; });
  GreedyRewriteConfig config;
  config.enableFolding(false);
  return applyPatternsGreedily(kernels, std::move(patterns), config);
}
