//===- Scalar.cpp - numbers of a graph's kernels --------------------------===//
#include "isthmus/Codegen/Graph/NodeBuilder.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace isthmus;

template <typename Op, typename... Args>
static Scalar make(Scalar like, DataType type, Args &&...args) {
  OpBuilder &b = like.builder->k.b;
  return {like.builder,
          b.createOrFold<Op>(like.builder->k.loc, std::forward<Args>(args)...),
          type};
}

#define ISTHMUS_ARITHMETIC(symbol, FloatOp, IntegerOp)                         \
  Scalar isthmus::operator symbol(Scalar a, Scalar b) {                        \
    return isFloat(a.type) ? make<FloatOp>(a, a.type, a.value, b.value)        \
                           : make<IntegerOp>(a, a.type, a.value, b.value);     \
  }
ISTHMUS_ARITHMETIC(+, arith::AddFOp, arith::AddIOp)
ISTHMUS_ARITHMETIC(-, arith::SubFOp, arith::SubIOp)
ISTHMUS_ARITHMETIC(*, arith::MulFOp, arith::MulIOp)
#undef ISTHMUS_ARITHMETIC

/// A divisor by which no processor traps: not 0, and not -1 (of the least
/// number).
static Scalar safeDivisor(Scalar b) {
  Scalar one = b.builder->integerConstant(b.type, 1);
  Scalar safe = select(b == 0, one, b);
  if (isSigned(b.type))
    safe = select(b == -1, one, safe);
  return safe;
}

Scalar isthmus::operator/(Scalar a, Scalar b) {
  if (isFloat(a.type))
    return make<arith::DivFOp>(a, a.type, a.value, b.value);
  if (auto divisor = NodeBuilder::known(b); divisor && *divisor > 0)
    return isSigned(a.type) ? make<arith::DivSIOp>(a, a.type, a.value, b.value)
                            : make<arith::DivUIOp>(a, a.type, a.value, b.value);
  Scalar safe = safeDivisor(b);
  if (!isSigned(a.type))
    return make<arith::DivUIOp>(a, a.type, a.value, safe.value);
  Scalar quotient = make<arith::DivSIOp>(a, a.type, a.value, safe.value);
  return select(b == -1, -a, quotient);
}

Scalar isthmus::operator%(Scalar a, Scalar b) {
  if (isFloat(a.type))
    return make<arith::RemFOp>(a, a.type, a.value, b.value);
  return a - a / b * b;
}

Scalar isthmus::operator-(Scalar a) {
  if (isFloat(a.type))
    return make<arith::NegFOp>(a, a.type, a.value);
  return a.builder->integerConstant(a.type, 0) - a;
}

static Scalar compare(Scalar a, Scalar b, arith::CmpFPredicate floats,
                      arith::CmpIPredicate signedInts,
                      arith::CmpIPredicate unsignedInts) {
  if (isFloat(a.type))
    return make<arith::CmpFOp>(a, DataType::Bool, floats, a.value, b.value);
  return make<arith::CmpIOp>(a, DataType::Bool,
                             isSigned(a.type) ? signedInts : unsignedInts,
                             a.value, b.value);
}

Scalar isthmus::operator<(Scalar a, Scalar b) {
  return compare(a, b, arith::CmpFPredicate::OLT, arith::CmpIPredicate::slt,
                 arith::CmpIPredicate::ult);
}
Scalar isthmus::operator<=(Scalar a, Scalar b) {
  return compare(a, b, arith::CmpFPredicate::OLE, arith::CmpIPredicate::sle,
                 arith::CmpIPredicate::ule);
}
Scalar isthmus::operator>(Scalar a, Scalar b) { return b < a; }
Scalar isthmus::operator>=(Scalar a, Scalar b) { return b <= a; }
Scalar isthmus::operator==(Scalar a, Scalar b) {
  return compare(a, b, arith::CmpFPredicate::OEQ, arith::CmpIPredicate::eq,
                 arith::CmpIPredicate::eq);
}
Scalar isthmus::operator!=(Scalar a, Scalar b) {
  return compare(a, b, arith::CmpFPredicate::UNE, arith::CmpIPredicate::ne,
                 arith::CmpIPredicate::ne);
}

Scalar isthmus::operator&(Scalar a, Scalar b) {
  return make<arith::AndIOp>(a, a.type, a.value, b.value);
}
Scalar isthmus::operator|(Scalar a, Scalar b) {
  return make<arith::OrIOp>(a, a.type, a.value, b.value);
}
Scalar isthmus::operator^(Scalar a, Scalar b) {
  return make<arith::XOrIOp>(a, a.type, a.value, b.value);
}
Scalar isthmus::operator!(Scalar a) {
  return a ^ a.builder->integerConstant(a.type, -1);
}

#define ISTHMUS_WITH_CONSTANT(symbol)                                          \
  Scalar isthmus::operator symbol(Scalar a, double b) {                        \
    return a symbol a.builder->constant(a.type, b);                            \
  }
ISTHMUS_WITH_CONSTANT(+)
ISTHMUS_WITH_CONSTANT(-)
ISTHMUS_WITH_CONSTANT(*)
ISTHMUS_WITH_CONSTANT(/)
ISTHMUS_WITH_CONSTANT(%)
ISTHMUS_WITH_CONSTANT(<)
ISTHMUS_WITH_CONSTANT(<=)
ISTHMUS_WITH_CONSTANT(>)
ISTHMUS_WITH_CONSTANT(>=)
ISTHMUS_WITH_CONSTANT(==)
ISTHMUS_WITH_CONSTANT(!=)
#undef ISTHMUS_WITH_CONSTANT

Scalar isthmus::operator-(double a, Scalar b) {
  return b.builder->constant(b.type, a) - b;
}
Scalar isthmus::operator/(double a, Scalar b) {
  return b.builder->constant(b.type, a) / b;
}

Scalar isthmus::select(Scalar condition, Scalar a, Scalar b) {
  return make<arith::SelectOp>(a, a.type, condition.value, a.value, b.value);
}
Scalar isthmus::min(Scalar a, Scalar b) {
  if (isFloat(a.type))
    return make<arith::MinimumFOp>(a, a.type, a.value, b.value);
  return isSigned(a.type) ? make<arith::MinSIOp>(a, a.type, a.value, b.value)
                          : make<arith::MinUIOp>(a, a.type, a.value, b.value);
}
Scalar isthmus::max(Scalar a, Scalar b) {
  if (isFloat(a.type))
    return make<arith::MaximumFOp>(a, a.type, a.value, b.value);
  return isSigned(a.type) ? make<arith::MaxSIOp>(a, a.type, a.value, b.value)
                          : make<arith::MaxUIOp>(a, a.type, a.value, b.value);
}
Scalar isthmus::min(Scalar a, double b) {
  return min(a, a.builder->constant(a.type, b));
}
Scalar isthmus::max(Scalar a, double b) {
  return max(a, a.builder->constant(a.type, b));
}
Scalar isthmus::abs(Scalar a) {
  if (isFloat(a.type))
    return make<math::AbsFOp>(a, a.type, a.value);
  return isSigned(a.type) ? select(a < 0, -a, a) : a;
}

//===----------------------------------------------------------------------===//
// Conversions
//===----------------------------------------------------------------------===//

namespace {
/// A float of eight bits or less: sign (unless `exponent` has all), exponent,
/// mantissa. Open Compute Project, 8-bit Floating Point Specification (OFP8)
/// and Microscaling Formats (MX) Specification; arXiv 2206.02915 for the fnuz
/// forms.
struct SmallFloat {
  int exponentBits, mantissaBits, bias;
  int largest;  ///< code of the greatest finite number
  int infinity; ///< code, or -1
  int nan;      ///< code without sign, or -1
  bool unsignedZero;
};
} // namespace

static std::optional<SmallFloat> smallFloat(DataType type) {
  switch (type) {
  case DataType::F8E4M3FN:
    return SmallFloat{4, 3, 7, 0x7e, -1, 0x7f, false};
  case DataType::F8E4M3FNUZ:
    return SmallFloat{4, 3, 8, 0x7f, -1, 0x80, true};
  case DataType::F8E5M2:
    return SmallFloat{5, 2, 15, 0x7b, 0x7c, 0x7e, false};
  case DataType::F8E5M2FNUZ:
    return SmallFloat{5, 2, 16, 0x7f, -1, 0x80, true};
  case DataType::F4E2M1:
    return SmallFloat{2, 1, 1, 0x7, -1, -1, false};
  default:
    return std::nullopt;
  }
}

static Scalar bitsOf(Scalar f32) {
  return make<arith::BitcastOp>(f32, DataType::U32,
                                f32.builder->k.b.getI32Type(), f32.value);
}
static Scalar fromBits(Scalar u32) {
  return make<arith::BitcastOp>(u32, DataType::F32,
                                u32.builder->k.b.getF32Type(), u32.value);
}
static Scalar shiftLeft(Scalar a, int bits) {
  return make<arith::ShLIOp>(a, a.type, a.value,
                             a.builder->integerConstant(a.type, bits).value);
}
static Scalar shiftRight(Scalar a, int bits) {
  return make<arith::ShRUIOp>(a, a.type, a.value,
                              a.builder->integerConstant(a.type, bits).value);
}

Type NodeBuilder::storageType(DataType type) {
  switch (type) {
  case DataType::F16:
    return k.b.getF16Type();
  case DataType::F32:
    return k.b.getF32Type();
  case DataType::F64:
    return k.b.getF64Type();
  default:
    return k.b.getIntegerType(unsigned(rt::bytesOf(type)) * 8);
  }
}

Scalar NodeBuilder::decode(Value stored, DataType type) {
  Scalar raw{this, stored, type};
  auto u32 = [&] {
    return make<arith::ExtUIOp>(raw, DataType::U32, k.i32(), stored);
  };
  const Scalar nan = constant(DataType::F32, NAN);
  switch (type) {
  case DataType::Bool:
    return make<arith::CmpIOp>(raw, type, arith::CmpIPredicate::ne, stored,
                               k.cst(k.i8(), 0));
  case DataType::F16:
    return make<arith::ExtFOp>(raw, DataType::F32, k.f32(), stored);
  case DataType::BF16:
    return fromBits(shiftLeft(u32(), 16));
  case DataType::F8E8M0: {
    Scalar bits = u32();
    // 2^-127 is below the normal numbers of f32.
    Scalar value =
        select(bits == 0, constant(DataType::F32, std::ldexp(1, -127)),
               fromBits(shiftLeft(bits, 23)));
    return select(bits == 255, nan, value);
  }
  default:
    break;
  }
  auto format = smallFloat(type);
  if (!format)
    return {this, stored, computeType(type)};
  const int e = format->exponentBits, m = format->mantissaBits;
  Scalar bits = u32();
  auto u = [&](int64_t value) { return integerConstant(DataType::U32, value); };
  Scalar exponent = shiftRight(bits, m) & u((1 << e) - 1);
  Scalar mantissa = bits & u((1 << m) - 1);
  Scalar normal =
      fromBits(shiftLeft(exponent + double(127 - format->bias), 23) |
               shiftLeft(mantissa, 23 - m));
  Scalar small =
      convert(mantissa, DataType::F32) * std::ldexp(1.0, 1 - format->bias - m);
  Scalar value = select(exponent == 0, small, normal);
  Scalar magnitude = bits & u((1 << (e + m)) - 1);
  if (format->infinity >= 0) {
    value = select(magnitude == double(format->infinity),
                   constant(DataType::F32, INFINITY), value);
    value = select(magnitude > double(format->infinity), nan, value);
  }
  Scalar negative = (bits & u(1 << (e + m))) != 0;
  value = select(negative, -value, value);
  if (format->unsignedZero)
    return select(bits == double(format->nan), nan, value);
  if (format->infinity < 0 && format->nan >= 0)
    return select(magnitude == double(format->nan), nan, value);
  return value;
}

Scalar NodeBuilder::encode(Scalar value, DataType type, bool saturate) {
  auto u = [&](int64_t number) {
    return integerConstant(DataType::U32, number);
  };
  auto truncate = [&](Scalar bits, Type to) {
    return make<arith::TruncIOp>(bits, DataType::U8, to, bits.value);
  };
  switch (type) {
  case DataType::Bool:
    return make<arith::ExtUIOp>(value, DataType::U8, k.i8(), value.value);
  case DataType::F16:
    return make<arith::TruncFOp>(value, type, k.f16(), value.value);
  case DataType::BF16: {
    Scalar bits = bitsOf(value);
    Scalar odd = shiftRight(bits, 16) & u(1);
    Scalar rounded = shiftRight(bits + odd + u(0x7fff), 16);
    rounded = select(value != value, u(0x7fc0), rounded);
    return truncate(rounded, k.i16());
  }
  case DataType::F8E8M0: {
    Scalar bits = bitsOf(value);
    Scalar exponent = shiftRight(bits, 23) & u(0xff),
           mantissa = bits & u(0x7fffff);
    const std::string mode = text("round_mode", "up");
    Scalar up = mode == "down"      ? truth(false)
                : mode == "nearest" ? mantissa >= double(0x400000)
                                    : mantissa > 0;
    // Below the least normal number 2^-127 is code 0 already.
    Scalar code =
        select(exponent == 0, select(bits > double(0x400000), u(1), u(0)),
               exponent + select(up, u(1), u(0)));
    code = select(code > 254, u(saturate ? 254 : 255), code);
    code = select(value != value, u(255), code);
    return truncate(code, k.i8());
  }
  default:
    break;
  }
  auto format = smallFloat(type);
  if (!format)
    return value;
  const int m = format->mantissaBits, shift = 23 - m;
  Scalar magnitude = abs(value), bits = bitsOf(magnitude);
  Scalar rounded = shiftRight(bits + u((1 << (shift - 1)) - 1) +
                                  (shiftRight(bits, shift) & u(1)),
                              shift) -
                   u((127 - format->bias) << m);
  // Below the normal numbers steps are equal.
  Scalar steps = magnitude * std::ldexp(1.0, format->bias - 1 + m);
  Scalar nearest = make<math::RoundEvenOp>(steps, steps.type, steps.value);
  Scalar isSmall = magnitude < std::ldexp(1.0, 1 - format->bias);
  Scalar small = convert(select(isSmall, nearest, constant(DataType::F32, 0)),
                         DataType::U32);
  Scalar code = select(isSmall, small, rounded);
  const bool clip = saturate || format->nan < 0;
  const int above = clip                    ? format->largest
                    : format->infinity >= 0 ? format->infinity
                                            : format->nan;
  Scalar tooLarge = (code > double(format->largest)) | (magnitude == INFINITY);
  code = select(tooLarge, u(above), code);
  const int sign = 1 << (format->exponentBits + m);
  Scalar negative = (bitsOf(value) & u(int64_t(1) << 31)) != 0;
  if (format->unsignedZero)
    negative = negative & (code != 0) & (code != double(format->nan));
  code = select(negative, code | u(sign), code);
  // Without a code for it, NaN becomes -0.
  code = select(value != value, u(format->nan >= 0 ? format->nan : sign), code);
  return truncate(code, k.i8());
}

Scalar NodeBuilder::convert(Scalar value, DataType type) {
  type = computeType(type);
  const DataType from = value.type;
  if (from == type)
    return value;
  Type to = integerConstant(type, 0).value.getType();
  if (type == DataType::Bool)
    return value != 0;
  if (isFloat(from) && isFloat(type))
    return from == DataType::F32
               ? make<arith::ExtFOp>(value, type, to, value.value)
               : make<arith::TruncFOp>(value, type, to, value.value);
  if (isFloat(type))
    return isSigned(from) ? make<arith::SIToFPOp>(value, type, to, value.value)
                          : make<arith::UIToFPOp>(value, type, to, value.value);
  if (isFloat(from)) {
    // Through 64 bits, so that what does not fit wraps around as integers do.
    Type wide = k.i64();
    Scalar integer =
        type == DataType::U64
            ? make<arith::FPToUIOp>(value, type, wide, value.value)
            : make<arith::FPToSIOp>(value, DataType::I64, wide, value.value);
    if (to == wide)
      return {this, integer.value, type};
    return make<arith::TruncIOp>(value, type, to, integer.value);
  }
  const unsigned before = value.value.getType().getIntOrFloatBitWidth(),
                 after = to.getIntOrFloatBitWidth();
  if (before == after)
    return {this, value.value, type};
  if (before > after)
    return make<arith::TruncIOp>(value, type, to, value.value);
  return isSigned(from) ? make<arith::ExtSIOp>(value, type, to, value.value)
                        : make<arith::ExtUIOp>(value, type, to, value.value);
}
