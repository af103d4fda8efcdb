//===- Elementwise.cpp - operators that go element by element -------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;

namespace {
using Args = ArrayRef<Scalar>;

template <Element element> void compute(NodeBuilder &n) {
  n.pointwise([&](Args in) { return element(n, n.spec, in); });
}

/// The entry of an operator in the table.
template <Element element>
constexpr Operator pointwise(std::string_view name,
                             bool (*supports)(const NodeSpec &) = nullptr) {
  return {name,        shapeBroadcast, compute<element>,
          kLightGrain, supports,       element};
}

/// An operator of one input, f(x).
template <Scalar (*f)(Scalar)>
Scalar unary(NodeBuilder &, const NodeSpec &, Args in) {
  return f(in[0]);
}

/// Combines all inputs two by two.
template <Scalar (*f)(Scalar, Scalar)>
Scalar fold(NodeBuilder &, const NodeSpec &, Args in) {
  Scalar result = in[0];
  for (Scalar next : in.drop_front())
    result = f(result, next);
  return result;
}

bool notF64(const NodeSpec &spec) {
  return spec.inputs[0].type != DataType::F64;
}

Scalar add(Scalar a, Scalar b) { return a + b; }
Scalar subtract(Scalar a, Scalar b) { return a - b; }
Scalar multiply(Scalar a, Scalar b) { return a * b; }
Scalar divide(Scalar a, Scalar b) { return a / b; }
Scalar bitAnd(Scalar a, Scalar b) { return a & b; }
Scalar bitOr(Scalar a, Scalar b) { return a | b; }
Scalar bitXor(Scalar a, Scalar b) { return a ^ b; }
Scalar equal(Scalar a, Scalar b) { return a == b; }
Scalar less(Scalar a, Scalar b) { return a < b; }
Scalar lessOrEqual(Scalar a, Scalar b) { return a <= b; }
Scalar greater(Scalar a, Scalar b) { return a > b; }
Scalar greaterOrEqual(Scalar a, Scalar b) { return a >= b; }
Scalar negate(Scalar x) { return -x; }
Scalar invert(Scalar x) { return !x; }
Scalar reciprocal(Scalar x) { return 1.0 / x; }
Scalar isNaN(Scalar x) { return x != x; }

Scalar sign(Scalar x) {
  NodeBuilder &n = *x.builder;
  Scalar zero = n.constant(x.type, 0), one = n.constant(x.type, 1);
  Scalar negative = isSigned(x.type) ? -one : one;
  return select(x > zero, one, select(x < zero, negative, x));
}

Scalar isInf(NodeBuilder &n, const NodeSpec &spec, Args in) {
  Scalar up = in[0] == INFINITY, down = in[0] == -INFINITY;
  return (up & n.truth(spec.integer("detect_positive", 1))) |
         (down & n.truth(spec.integer("detect_negative", 1)));
}

Scalar modulo(NodeBuilder &, const NodeSpec &spec, Args in) {
  Scalar a = in[0], b = in[1];
  if (isFloat(a.type)) {
    // Toward zero, as fmod; beyond 2^24 (2^53) times b it loses what a has.
    Scalar rest = a - truncOf(a / b) * b;
    rest = select(abs(b) == INFINITY, a, rest);
    if (spec.integer("fmod", 0))
      return rest;
    return select((rest != 0) & ((rest < 0) ^ (b < 0)), rest + b, rest);
  }
  Scalar rest = a % b;
  if (spec.integer("fmod", 0) || !isSigned(a.type))
    return rest;
  // Otherwise the sign is that of the divisor.
  return select((rest != 0) & ((rest < 0) ^ (b < 0)), rest + b, rest);
}

Scalar power(NodeBuilder &, const NodeSpec &, Args in) {
  return powerOf(in[0], in[1]);
}

Scalar where(NodeBuilder &, const NodeSpec &, Args in) {
  return select(in[0], in[1], in[2]);
}

Scalar mean(NodeBuilder &, const NodeSpec &, Args in) {
  Scalar sum = in[0];
  for (Scalar next : in.drop_front())
    sum = sum + next;
  return sum / double(in.size());
}

Scalar shift(NodeBuilder &n, const NodeSpec &spec, Args in) {
  Scalar a = in[0], b = in[1];
  KernelBuilder &k = n.k;
  const double bits = a.value.getType().getIntOrFloatBitWidth();
  const bool left = spec.text("direction", "LEFT") == "LEFT";
  Scalar fits = b < bits;
  if (isSigned(b.type))
    fits = fits & (b >= 0);
  Scalar safe = select(fits, b, n.constant(b.type, 0));
  auto make = [&]<typename Op>(Op *) {
    return Scalar{&n, Op::create(k.b, k.loc, a.value, safe.value), a.type};
  };
  Scalar shifted = left ? make(static_cast<arith::ShLIOp *>(nullptr))
                   : isSigned(a.type)
                       ? make(static_cast<arith::ShRSIOp *>(nullptr))
                       : make(static_cast<arith::ShRUIOp *>(nullptr));
  // Beyond all bits nothing is left but the sign.
  Scalar nothing = n.constant(a.type, 0);
  if (!left && isSigned(a.type))
    nothing = select(a < 0, n.constant(a.type, -1), nothing);
  return select(fits, shifted, nothing);
}

Scalar clip(NodeBuilder &, const NodeSpec &spec, Args in) {
  Scalar x = in[0];
  if (spec.has(1))
    x = max(x, in[1]);
  if (spec.has(2))
    x = min(x, in[2]);
  return x;
}

Scalar elu(NodeBuilder &, const NodeSpec &spec, Args in) {
  return activationOf("Elu", in[0], spec.number("alpha", 1), 0);
}
Scalar selu(NodeBuilder &, const NodeSpec &spec, Args in) {
  const double alpha = spec.number("alpha", 1.67326319217681884765625),
               gamma = spec.number("gamma", 1.05070102214813232421875);
  return activationOf("Elu", in[0], alpha, 0) * gamma;
}
Scalar celu(NodeBuilder &, const NodeSpec &spec, Args in) {
  const double alpha = spec.number("alpha", 1);
  return max(in[0], 0) + min((expOf(in[0] / alpha) - 1.0) * alpha, 0);
}
Scalar leakyRelu(NodeBuilder &, const NodeSpec &spec, Args in) {
  return activationOf("LeakyRelu", in[0], spec.number("alpha", 0.01f), 0);
}
Scalar thresholdedRelu(NodeBuilder &, const NodeSpec &spec, Args in) {
  return activationOf("ThresholdedRelu", in[0], spec.number("alpha", 1), 0);
}
Scalar hardSigmoid(NodeBuilder &, const NodeSpec &spec, Args in) {
  return activationOf("HardSigmoid", in[0], spec.number("alpha", 0.2f),
                      spec.number("beta", 0.5));
}
Scalar hardSwish(NodeBuilder &, const NodeSpec &, Args in) {
  return in[0] * activationOf("HardSigmoid", in[0], 1.0 / 6, 0.5);
}
Scalar relu(NodeBuilder &, const NodeSpec &, Args in) { return max(in[0], 0); }
Scalar softplus(NodeBuilder &, const NodeSpec &, Args in) {
  return activationOf("Softplus", in[0], 0, 0);
}
Scalar softsign(NodeBuilder &, const NodeSpec &, Args in) {
  return activationOf("Softsign", in[0], 0, 0);
}
Scalar mish(NodeBuilder &, const NodeSpec &, Args in) {
  return in[0] * tanhOf(activationOf("Softplus", in[0], 0, 0));
}
Scalar swish(NodeBuilder &, const NodeSpec &spec, Args in) {
  return in[0] * sigmoidOf(in[0] * spec.number("alpha", 1));
}
Scalar gelu(NodeBuilder &, const NodeSpec &spec, Args in) {
  Scalar x = in[0];
  if (spec.text("approximate", "none") == "tanh")
    return x * 0.5 *
           (tanhOf((x + x * x * x * 0.044715) * 0.79788456080286535588) + 1.0);
  return x * 0.5 * (erfOf(x * M_SQRT1_2) + 1.0);
}
Scalar prelu(NodeBuilder &, const NodeSpec &, Args in) {
  return select(in[0] < 0, in[0] * in[1], in[0]);
}
Scalar shrink(NodeBuilder &n, const NodeSpec &spec, Args in) {
  const double bias = spec.number("bias", 0),
               lambda = spec.number("lambd", 0.5);
  Scalar x = in[0];
  return select(x < -lambda, x + bias,
                select(x > lambda, x - bias, n.constant(x.type, 0)));
}

// Of the hyperbolic functions and their inverses, in f64: near 0 their formulas
// lose digits.
template <Scalar (*f)(Scalar)>
Scalar wide(NodeBuilder &n, const NodeSpec &, Args in) {
  return n.convert(f(n.convert(in[0], DataType::F64)), in[0].type);
}
Scalar sinh(Scalar x) { return (expOf(x) - expOf(-x)) * 0.5; }
Scalar cosh(Scalar x) { return (expOf(x) + expOf(-x)) * 0.5; }
Scalar asinh(Scalar x) {
  Scalar a = abs(x), y = logOf(a + sqrtOf(a * a + 1.0));
  return select(x < 0, -y, y);
}
Scalar acosh(Scalar x) { return logOf(x + sqrtOf(x * x - 1.0)); }
Scalar atanh(Scalar x) { return logOf((x + 1.0) / (1.0 - x)) * 0.5; }

Scalar cast(NodeBuilder &n, const NodeSpec &spec, Args in) {
  const DataType to = spec.outputs[0].type;
  Scalar x = in[0];
  if (isFloat(to) && rt::bytesOf(to) == 1)
    return n.encode(n.convert(x, DataType::F32), to,
                    spec.integer("saturate", 1));
  switch (to) {
  case DataType::I4:
  case DataType::U4:
  case DataType::I2:
  case DataType::U2: {
    // The low bits, sign-extended into the byte.
    const int bits = int(rt::packedBits(to));
    Scalar wide = n.convert(n.convert(x, DataType::I64), DataType::I8);
    Type i8 = wide.value.getType();
    Value by = n.k.cst(i8, 8 - bits);
    Value top = arith::ShLIOp::create(n.k.b, n.k.loc, wide.value, by);
    Value value = isSigned(to)
                      ? Value(arith::ShRSIOp::create(n.k.b, n.k.loc, top, by))
                      : Value(arith::ShRUIOp::create(n.k.b, n.k.loc, top, by));
    return {&n, value, NodeBuilder::computeType(to)};
  }
  default:
    return n.convert(x, to);
  }
}

Scalar bitCast(NodeBuilder &n, const NodeSpec &spec, Args in) {
  const DataType to = spec.outputs[0].type;
  Scalar x = in[0];
  if (x.type == DataType::Bool || to == DataType::Bool)
    return n.convert(x, to);
  if (isFloat(x.type) == isFloat(to))
    return {&n, x.value, to};
  Type type = n.constant(to, 0).value.getType();
  return {&n, arith::BitcastOp::create(n.k.b, n.k.loc, type, x.value), to};
}

/// Numbers that are computed as they are stored, of one width.
bool isPlainBitCast(const NodeSpec &spec) {
  auto plain = [](DataType type) {
    return NodeBuilder::computeType(type) == type;
  };
  const DataType from = spec.inputs[0].type, to = spec.outputs[0].type;
  return plain(from) && plain(to) && rt::bytesOf(from) == rt::bytesOf(to);
}

Scalar binarize(NodeBuilder &n, const NodeSpec &spec, Args in) {
  Scalar x = in[0];
  return select(x > spec.number("threshold", 0), n.constant(x.type, 1),
                n.constant(x.type, 0));
}

/// Several operators, one element after another: what stands between them is
/// rounded as if it were stored.
void computeFused(NodeBuilder &n) {
  n.pointwise([&](Args in) {
    std::vector<Scalar> values(in.begin(), in.end());
    for (const NodeSpec::Step &step : n.spec.steps) {
      std::vector<Scalar> own;
      for (int64_t value : step.values)
        own.push_back(value < 0 ? Scalar() : values[size_t(value)]);
      const DataType type = step.spec.outputs[0].type;
      Scalar result = findOperator(step.spec.op)->element(n, step.spec, own);
      values.push_back(isFloat(type) ? n.rounded(result, type) : result);
    }
    return values.back();
  });
}

/// Y, and a mask that keeps everything: dropping is for training.
void shapeDropout(NodeBuilder &n) {
  if (n.has(2)) {
    Scalar ratio = n.has(1) ? n.convert(n.scalarInput(1), DataType::F32)
                            : n.constant(DataType::F32, 0.5);
    n.require(!n.scalarInput(2) | (ratio == 0), rt::kGraphValue);
  }
  shapeAsInput(n);
}

void computeDropout(NodeBuilder &n) {
  n.forEach(n.out(), [&](Args, Scalar i) {
    n.store(n.out(), i, n.load(0, i));
    if (n.has(n.out(1)))
      n.store(n.out(1), i, n.truth(true));
  });
}

constexpr Operator kTable[] = {
    {"Dropout", shapeDropout, computeDropout},
    pointwise<unary<isthmus::abs>>("Abs"),
    pointwise<unary<negate>>("Neg"),
    pointwise<unary<sign>>("Sign"),
    pointwise<unary<ceilOf>>("Ceil"),
    pointwise<unary<floorOf>>("Floor"),
    pointwise<unary<roundOf>>("Round"),
    pointwise<unary<sqrtOf>>("Sqrt"),
    pointwise<unary<reciprocal>>("Reciprocal"),
    pointwise<unary<expOf>>("Exp"),
    pointwise<unary<logOf>>("Log"),
    pointwise<unary<tanhOf>>("Tanh"),
    pointwise<unary<sigmoidOf>>("Sigmoid"),
    pointwise<unary<erfOf>>("Erf", notF64),
    pointwise<unary<sinOf>>("Sin"),
    pointwise<unary<cosOf>>("Cos"),
    pointwise<unary<tanOf>>("Tan"),
    pointwise<unary<asinOf>>("Asin"),
    pointwise<unary<acosOf>>("Acos"),
    pointwise<unary<atanOf>>("Atan"),
    pointwise<wide<sinh>>("Sinh"),
    pointwise<wide<cosh>>("Cosh"),
    pointwise<wide<asinh>>("Asinh"),
    pointwise<wide<acosh>>("Acosh"),
    pointwise<wide<atanh>>("Atanh"),
    pointwise<unary<isNaN>>("IsNaN"),
    pointwise<isInf>("IsInf"),
    pointwise<unary<invert>>("Not"),
    pointwise<unary<invert>>("BitwiseNot"),
    pointwise<relu>("Relu"),
    pointwise<elu>("Elu"),
    pointwise<selu>("Selu"),
    pointwise<celu>("Celu"),
    pointwise<leakyRelu>("LeakyRelu"),
    pointwise<thresholdedRelu>("ThresholdedRelu"),
    pointwise<hardSigmoid>("HardSigmoid"),
    pointwise<hardSwish>("HardSwish"),
    pointwise<softplus>("Softplus"),
    pointwise<softsign>("Softsign"),
    pointwise<mish>("Mish"),
    pointwise<swish>("Swish"),
    pointwise<gelu>("Gelu", notF64),
    pointwise<shrink>("Shrink"),
    pointwise<cast>("Cast"),
    pointwise<bitCast>("BitCast", isPlainBitCast),
    {"isthmus.Fused", shapeBroadcast, computeFused},
    pointwise<binarize>("Binarizer"),
    pointwise<fold<add>>("Add"),
    pointwise<fold<subtract>>("Sub"),
    pointwise<fold<multiply>>("Mul"),
    pointwise<fold<divide>>("Div"),
    pointwise<modulo>("Mod"),
    pointwise<power>("Pow"),
    pointwise<fold<bitAnd>>("And"),
    pointwise<fold<bitOr>>("Or"),
    pointwise<fold<bitXor>>("Xor"),
    pointwise<fold<bitAnd>>("BitwiseAnd"),
    pointwise<fold<bitOr>>("BitwiseOr"),
    pointwise<fold<bitXor>>("BitwiseXor"),
    pointwise<shift>("BitShift"),
    pointwise<fold<equal>>("Equal"),
    pointwise<fold<less>>("Less"),
    pointwise<fold<lessOrEqual>>("LessOrEqual"),
    pointwise<fold<greater>>("Greater"),
    pointwise<fold<greaterOrEqual>>("GreaterOrEqual"),
    pointwise<prelu>("PRelu"),
    pointwise<fold<isthmus::min>>("Min"),
    pointwise<fold<isthmus::max>>("Max"),
    pointwise<fold<add>>("Sum"),
    pointwise<mean>("Mean"),
    pointwise<where>("Where"),
    pointwise<clip>("Clip"),
};
} // namespace

OperatorTable isthmus::elementwiseOperators() { return kTable; }
