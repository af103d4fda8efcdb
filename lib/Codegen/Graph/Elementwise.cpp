//===- Elementwise.cpp - operators that go element by element -------------===//
#include "isthmus/Codegen/Graph/Operators.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;

namespace {
using Args = ArrayRef<Scalar>;
/// One element of the result.
using Element = Scalar (*)(NodeBuilder &n, Args in);

template <Element element> void compute(NodeBuilder &n) {
  n.pointwise([&](Args in) { return element(n, in); });
}

/// An operator of one input, f(x).
template <Scalar (*f)(Scalar)> Scalar unary(NodeBuilder &, Args in) {
  return f(in[0]);
}

/// Combines all inputs two by two.
template <Scalar (*f)(Scalar, Scalar)> Scalar fold(NodeBuilder &, Args in) {
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

Scalar isInf(NodeBuilder &n, Args in) {
  Scalar up = in[0] == INFINITY, down = in[0] == -INFINITY;
  return (up & n.truth(n.integer("detect_positive", 1))) |
         (down & n.truth(n.integer("detect_negative", 1)));
}

Scalar modulo(NodeBuilder &n, Args in) {
  Scalar a = in[0], b = in[1];
  if (isFloat(a.type)) {
    // Toward zero, as fmod; beyond 2^24 (2^53) times b it loses what a has.
    Scalar rest = a - truncOf(a / b) * b;
    rest = select(abs(b) == INFINITY, a, rest);
    if (n.integer("fmod", 0))
      return rest;
    return select((rest != 0) & ((rest < 0) ^ (b < 0)), rest + b, rest);
  }
  Scalar rest = a % b;
  if (n.integer("fmod", 0) || !isSigned(a.type))
    return rest;
  // Otherwise the sign is that of the divisor.
  return select((rest != 0) & ((rest < 0) ^ (b < 0)), rest + b, rest);
}

Scalar power(NodeBuilder &, Args in) { return powerOf(in[0], in[1]); }

Scalar where(NodeBuilder &, Args in) { return select(in[0], in[1], in[2]); }

Scalar mean(NodeBuilder &, Args in) {
  Scalar sum = in[0];
  for (Scalar next : in.drop_front())
    sum = sum + next;
  return sum / double(in.size());
}

Scalar shift(NodeBuilder &n, Args in) {
  Scalar a = in[0], b = in[1];
  KernelBuilder &k = n.k;
  const double bits = a.value.getType().getIntOrFloatBitWidth();
  const bool left = n.text("direction", "LEFT") == "LEFT";
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

Scalar clip(NodeBuilder &n, Args in) {
  Scalar x = in[0];
  if (n.has(1))
    x = max(x, in[1]);
  if (n.has(2))
    x = min(x, in[2]);
  return x;
}

Scalar elu(NodeBuilder &n, Args in) {
  return activationOf("Elu", in[0], n.number("alpha", 1), 0);
}
Scalar selu(NodeBuilder &n, Args in) {
  const double alpha = n.number("alpha", 1.67326319217681884765625),
               gamma = n.number("gamma", 1.05070102214813232421875);
  return activationOf("Elu", in[0], alpha, 0) * gamma;
}
Scalar celu(NodeBuilder &n, Args in) {
  const double alpha = n.number("alpha", 1);
  return max(in[0], 0) + min((expOf(in[0] / alpha) - 1.0) * alpha, 0);
}
Scalar leakyRelu(NodeBuilder &n, Args in) {
  return activationOf("LeakyRelu", in[0], n.number("alpha", 0.01f), 0);
}
Scalar thresholdedRelu(NodeBuilder &n, Args in) {
  return activationOf("ThresholdedRelu", in[0], n.number("alpha", 1), 0);
}
Scalar hardSigmoid(NodeBuilder &n, Args in) {
  return activationOf("HardSigmoid", in[0], n.number("alpha", 0.2f),
                      n.number("beta", 0.5));
}
Scalar hardSwish(NodeBuilder &, Args in) {
  return in[0] * activationOf("HardSigmoid", in[0], 1.0 / 6, 0.5);
}
Scalar relu(NodeBuilder &, Args in) { return max(in[0], 0); }
Scalar softplus(NodeBuilder &, Args in) {
  return activationOf("Softplus", in[0], 0, 0);
}
Scalar softsign(NodeBuilder &, Args in) {
  return activationOf("Softsign", in[0], 0, 0);
}
Scalar mish(NodeBuilder &, Args in) {
  return in[0] * tanhOf(activationOf("Softplus", in[0], 0, 0));
}
Scalar swish(NodeBuilder &n, Args in) {
  return in[0] * sigmoidOf(in[0] * n.number("alpha", 1));
}
Scalar gelu(NodeBuilder &n, Args in) {
  Scalar x = in[0];
  if (n.text("approximate", "none") == "tanh")
    return x * 0.5 *
           (tanhOf((x + x * x * x * 0.044715) * 0.79788456080286535588) + 1.0);
  return x * 0.5 * (erfOf(x * M_SQRT1_2) + 1.0);
}
Scalar prelu(NodeBuilder &, Args in) {
  return select(in[0] < 0, in[0] * in[1], in[0]);
}
Scalar shrink(NodeBuilder &n, Args in) {
  const double bias = n.number("bias", 0), lambda = n.number("lambd", 0.5);
  Scalar x = in[0];
  return select(x < -lambda, x + bias,
                select(x > lambda, x - bias, n.constant(x.type, 0)));
}

// Of the hyperbolic functions and their inverses, in f64: near 0 their formulas
// lose digits.
template <Scalar (*f)(Scalar)> Scalar wide(NodeBuilder &n, Args in) {
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

Scalar cast(NodeBuilder &n, Args in) {
  const DataType to = n.operand(n.out()).type;
  Scalar x = in[0];
  if (isFloat(to) && rt::bytesOf(to) == 1)
    return n.encode(n.convert(x, DataType::F32), to, n.integer("saturate", 1));
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

Scalar bitCast(NodeBuilder &n, Args in) {
  const DataType to = n.operand(n.out()).type;
  Scalar x = in[0];
  if (x.type == DataType::Bool || to == DataType::Bool)
    return n.convert(x, to);
  if (isFloat(x.type) == isFloat(to))
    return {&n, x.value, to};
  Type type = n.constant(to, 0).value.getType();
  return {&n, arith::BitcastOp::create(n.k.b, n.k.loc, type, x.value), to};
}

Scalar binarize(NodeBuilder &n, Args in) {
  Scalar x = in[0];
  return select(x > n.number("threshold", 0), n.constant(x.type, 1),
                n.constant(x.type, 0));
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
    {"Abs", shapeBroadcast, compute<unary<isthmus::abs>>},
    {"Neg", shapeBroadcast, compute<unary<negate>>},
    {"Sign", shapeBroadcast, compute<unary<sign>>},
    {"Ceil", shapeBroadcast, compute<unary<ceilOf>>},
    {"Floor", shapeBroadcast, compute<unary<floorOf>>},
    {"Round", shapeBroadcast, compute<unary<roundOf>>},
    {"Sqrt", shapeBroadcast, compute<unary<sqrtOf>>},
    {"Reciprocal", shapeBroadcast, compute<unary<reciprocal>>},
    {"Exp", shapeBroadcast, compute<unary<expOf>>},
    {"Log", shapeBroadcast, compute<unary<logOf>>},
    {"Tanh", shapeBroadcast, compute<unary<tanhOf>>},
    {"Sigmoid", shapeBroadcast, compute<unary<sigmoidOf>>},
    {"Erf", shapeBroadcast, compute<unary<erfOf>>, kLightGrain, notF64},
    {"Sin", shapeBroadcast, compute<unary<sinOf>>},
    {"Cos", shapeBroadcast, compute<unary<cosOf>>},
    {"Tan", shapeBroadcast, compute<unary<tanOf>>},
    {"Asin", shapeBroadcast, compute<unary<asinOf>>},
    {"Acos", shapeBroadcast, compute<unary<acosOf>>},
    {"Atan", shapeBroadcast, compute<unary<atanOf>>},
    {"Sinh", shapeBroadcast, compute<wide<sinh>>},
    {"Cosh", shapeBroadcast, compute<wide<cosh>>},
    {"Asinh", shapeBroadcast, compute<wide<asinh>>},
    {"Acosh", shapeBroadcast, compute<wide<acosh>>},
    {"Atanh", shapeBroadcast, compute<wide<atanh>>},
    {"IsNaN", shapeBroadcast, compute<unary<isNaN>>},
    {"IsInf", shapeBroadcast, compute<isInf>},
    {"Not", shapeBroadcast, compute<unary<invert>>},
    {"BitwiseNot", shapeBroadcast, compute<unary<invert>>},
    {"Relu", shapeBroadcast, compute<relu>},
    {"Elu", shapeBroadcast, compute<elu>},
    {"Selu", shapeBroadcast, compute<selu>},
    {"Celu", shapeBroadcast, compute<celu>},
    {"LeakyRelu", shapeBroadcast, compute<leakyRelu>},
    {"ThresholdedRelu", shapeBroadcast, compute<thresholdedRelu>},
    {"HardSigmoid", shapeBroadcast, compute<hardSigmoid>},
    {"HardSwish", shapeBroadcast, compute<hardSwish>},
    {"Softplus", shapeBroadcast, compute<softplus>},
    {"Softsign", shapeBroadcast, compute<softsign>},
    {"Mish", shapeBroadcast, compute<mish>},
    {"Swish", shapeBroadcast, compute<swish>},
    {"Gelu", shapeBroadcast, compute<gelu>, kLightGrain, notF64},
    {"Shrink", shapeBroadcast, compute<shrink>},
    {"Cast", shapeBroadcast, compute<cast>},
    {"BitCast", shapeBroadcast, compute<bitCast>, kLightGrain,
     [](const NodeSpec &spec) {
       // Numbers that are computed as they are stored, of one width.
       auto plain = [](DataType type) {
         return NodeBuilder::computeType(type) == type;
       };
       const DataType from = spec.inputs[0].type, to = spec.outputs[0].type;
       return plain(from) && plain(to) && rt::bytesOf(from) == rt::bytesOf(to);
     }},
    {"Binarizer", shapeBroadcast, compute<binarize>},
    {"Add", shapeBroadcast, compute<fold<add>>},
    {"Sub", shapeBroadcast, compute<fold<subtract>>},
    {"Mul", shapeBroadcast, compute<fold<multiply>>},
    {"Div", shapeBroadcast, compute<fold<divide>>},
    {"Mod", shapeBroadcast, compute<modulo>},
    {"Pow", shapeBroadcast, compute<power>},
    {"And", shapeBroadcast, compute<fold<bitAnd>>},
    {"Or", shapeBroadcast, compute<fold<bitOr>>},
    {"Xor", shapeBroadcast, compute<fold<bitXor>>},
    {"BitwiseAnd", shapeBroadcast, compute<fold<bitAnd>>},
    {"BitwiseOr", shapeBroadcast, compute<fold<bitOr>>},
    {"BitwiseXor", shapeBroadcast, compute<fold<bitXor>>},
    {"BitShift", shapeBroadcast, compute<shift>},
    {"Equal", shapeBroadcast, compute<fold<equal>>},
    {"Less", shapeBroadcast, compute<fold<less>>},
    {"LessOrEqual", shapeBroadcast, compute<fold<lessOrEqual>>},
    {"Greater", shapeBroadcast, compute<fold<greater>>},
    {"GreaterOrEqual", shapeBroadcast, compute<fold<greaterOrEqual>>},
    {"PRelu", shapeBroadcast, compute<prelu>},
    {"Min", shapeBroadcast, compute<fold<isthmus::min>>},
    {"Max", shapeBroadcast, compute<fold<isthmus::max>>},
    {"Sum", shapeBroadcast, compute<fold<add>>},
    {"Mean", shapeBroadcast, compute<mean>},
    {"Where", shapeBroadcast, compute<where>},
    {"Clip", shapeBroadcast, compute<clip>},
};
} // namespace

OperatorTable isthmus::elementwiseOperators() { return kTable; }
