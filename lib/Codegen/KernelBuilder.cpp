//===- KernelBuilder.cpp - a short hand for writing kernels in MLIR -------===//
#include "isthmus/Codegen/KernelBuilder.h"

#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <bit>

using namespace mlir;
using namespace isthmus;

KernelBuilder::KernelBuilder(ModuleOp module, StringRef name,
                             const TargetDescription &target, Location loc)
    : target(target), b(module.getContext()), loc(loc) {
  b.setInsertionPointToEnd(module.getBody());
  Type pointer = LLVM::LLVMPointerType::get(b.getContext());
  function = func::FuncOp::create(
      b, loc, name,
      b.getFunctionType({pointer, b.getI64Type(), b.getI64Type(), pointer},
                        {}));
  Block *entry = function.addEntryBlock();
  b.setInsertionPointToStart(entry);
  arguments = entry->getArgument(0);
  begin = entry->getArgument(1);
  end = entry->getArgument(2);
  scratch = entry->getArgument(3);
}

void KernelBuilder::outline(StringRef suffix,
                            const std::function<void(KernelBuilder &)> &body) {
  std::string name = (function.getName() + suffix).str();
  KernelBuilder other(function->getParentOfType<ModuleOp>(), name, target, loc);
  other.function.setPrivate();
  other.function->setAttr("passthrough", b.getStrArrayAttr({"noinline"}));
  body(other);
  other.finish();
  func::CallOp::create(b, loc, other.function,
                       ValueRange{arguments, begin, end, scratch});
}

void KernelBuilder::finish() { func::ReturnOp::create(b, loc); }

Value KernelBuilder::rowCount() {
  Type pointer = LLVM::LLVMPointerType::get(b.getContext());
  return load(i64(), load(pointer, arguments, offsetof(rt::Args, rowCount)));
}

Value KernelBuilder::operand(unsigned index) {
  return load(LLVM::LLVMPointerType::get(b.getContext()), arguments,
              offsetof(rt::Args, operands) + sizeof(void *) * index);
}

Value KernelBuilder::stepField(unsigned index, bool isPointer) {
  Type pointer = LLVM::LLVMPointerType::get(b.getContext());
  Value step = load(pointer, arguments, offsetof(rt::Args, step));
  return load(isPointer ? pointer : i64(), step, 8 * index);
}

//===----------------------------------------------------------------------===//
// Constants and arithmetic
//===----------------------------------------------------------------------===//

Value KernelBuilder::cst(int64_t value) { return cst(i64(), value); }

Value KernelBuilder::cst(Type type, int64_t value) {
  Attribute scalar = b.getIntegerAttr(getElementTypeOrSelf(type), value);
  if (auto vector = dyn_cast<VectorType>(type))
    return arith::ConstantOp::create(b, loc,
                                     DenseElementsAttr::get(vector, scalar));
  return arith::ConstantOp::create(b, loc, cast<TypedAttr>(scalar));
}

Value KernelBuilder::fcst(Type type, double value) {
  Attribute scalar = b.getFloatAttr(getElementTypeOrSelf(type), value);
  if (auto vector = dyn_cast<VectorType>(type))
    return arith::ConstantOp::create(b, loc,
                                     DenseElementsAttr::get(vector, scalar));
  return arith::ConstantOp::create(b, loc, cast<TypedAttr>(scalar));
}

Value KernelBuilder::add(Value x, Value y) {
  return arith::AddIOp::create(b, loc, x, y);
}
Value KernelBuilder::add(Value x, int64_t y) { return add(x, cst(y)); }
Value KernelBuilder::sub(Value x, Value y) {
  return arith::SubIOp::create(b, loc, x, y);
}
Value KernelBuilder::mul(Value x, int64_t y) { return mul(x, cst(y)); }
Value KernelBuilder::mul(Value x, Value y) {
  return arith::MulIOp::create(b, loc, x, y);
}
Value KernelBuilder::div(Value x, int64_t y) { return div(x, cst(y)); }
Value KernelBuilder::div(Value x, Value y) {
  return arith::DivUIOp::create(b, loc, x, y);
}
Value KernelBuilder::rem(Value x, int64_t y) {
  return arith::RemUIOp::create(b, loc, x, cst(y));
}
Value KernelBuilder::min(Value x, Value y) {
  return arith::MinSIOp::create(b, loc, x, y);
}
Value KernelBuilder::max(Value x, Value y) {
  return arith::MaxSIOp::create(b, loc, x, y);
}
Value KernelBuilder::toI64(Value x) {
  return arith::ExtSIOp::create(b, loc, i64(), x);
}
Value KernelBuilder::fadd(Value x, Value y) {
  return arith::AddFOp::create(b, loc, x, y);
}
Value KernelBuilder::fsub(Value x, Value y) {
  return arith::SubFOp::create(b, loc, x, y);
}
Value KernelBuilder::fmul(Value x, Value y) {
  return arith::MulFOp::create(b, loc, x, y);
}
Value KernelBuilder::fdiv(Value x, Value y) {
  return arith::DivFOp::create(b, loc, x, y);
}
Value KernelBuilder::fma(Value x, Value y, Value z) {
  return math::FmaOp::create(b, loc, x, y, z);
}
Value KernelBuilder::fmax(Value x, Value y) {
  // Not maximumf: x86 needs several instructions for its NaN and zero rules.
  Value greater =
      arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OGT, x, y);
  return arith::SelectOp::create(b, loc, greater, x, y);
}
Value KernelBuilder::splat(Value scalar, int64_t lanes) {
  return vector::BroadcastOp::create(b, loc, vec(lanes, scalar.getType()),
                                     scalar);
}
Value KernelBuilder::extract(Value vector, int64_t lane) {
  return vector::ExtractOp::create(b, loc, vector, lane);
}
Value KernelBuilder::slice(Value vector, int64_t first, int64_t lanes) {
  SmallVector<int64_t> mask;
  for (int64_t i = 0; i < lanes; ++i)
    mask.push_back(first + i);
  return vector::ShuffleOp::create(b, loc, vector, vector, mask);
}
Value KernelBuilder::concat(Value low, Value high) {
  int64_t lanes = cast<VectorType>(low.getType()).getNumElements() * 2;
  SmallVector<int64_t> mask;
  for (int64_t i = 0; i < lanes; ++i)
    mask.push_back(i);
  return vector::ShuffleOp::create(b, loc, low, high, mask);
}

Value KernelBuilder::reduceAdd(Value vector) {
  for (int64_t n = cast<VectorType>(vector.getType()).getNumElements() / 2;
       n >= 1; n /= 2)
    vector = fadd(slice(vector, 0, n), slice(vector, n, n));
  return extract(vector, 0);
}

Value KernelBuilder::reduceMax(Value vector) {
  for (int64_t n = cast<VectorType>(vector.getType()).getNumElements() / 2;
       n >= 1; n /= 2)
    vector = fmax(slice(vector, 0, n), slice(vector, n, n));
  return extract(vector, 0);
}

/// Added to a float of moderate size, leaves its nearest integer in the low
/// bits: 1.5 * 2^23.
static constexpr double kRoundingMagic = 12582912.0;

Value KernelBuilder::exp(Value x) {
  Type type = x.getType();
  auto c = [&](double value) { return fcst(type, value); };
  x = fmax(x, c(-87.0));
  Value below =
      arith::CmpFOp::create(b, loc, arith::CmpFPredicate::OLT, x, c(88.0));
  x = arith::SelectOp::create(b, loc, below, x, c(88.0));
  // x = n ln2 + r with ln2 in two parts (Cody and Waite), |r| <= ln2 / 2.
  Value magic = c(kRoundingMagic);
  Value shifted = fma(x, c(1.44269504088896341), magic);
  Value n = fsub(shifted, magic);
  Value r = fma(n, c(-0.693359375), x);
  r = fma(n, c(2.12194440e-4), r);
  // Polynomial of Cephes' expf.
  Value p = c(1.9875691500e-4);
  for (double k : {1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                   1.6666665459e-1, 5.0000001201e-1})
    p = fma(p, r, c(k));
  p = fadd(fma(p, fmul(r, r), r), c(1.0));
  return scaleByPower(p, shifted);
}

Value KernelBuilder::expOfNegated(Value x) {
  Type type = x.getType();
  auto c = [&](double value) { return fcst(type, value); };
  // The magnitude is limited as an integer: matrix units leave those their pace
  // (docs/execution.md).
  Type ints = vec(cast<VectorType>(type).getNumElements(), i32());
  Value bits = bitcast(ints, x), magnitudes = cst(ints, 0x7fffffff);
  Value most = cst(ints, std::bit_cast<int32_t>(60.0f));
  Value magnitude = arith::MinUIOp::create(
      b, loc, arith::AndIOp::create(b, loc, bits, magnitudes), most);
  Value sign =
      arith::AndIOp::create(b, loc, bits, cst(ints, int64_t(INT32_MIN)));
  x = bitcast(type, arith::OrIOp::create(b, loc, magnitude, sign));
  // -x / ln2 = n + f, |f| <= 1 / 2.
  Value log2e = c(-1.44269504088896341), magic = c(kRoundingMagic);
  Value shifted = fma(x, log2e, magic);
  Value f = fma(x, log2e, fsub(magic, shifted));
  // Least relative error on [-0.5, 0.5]: 7.5e-8.
  Value p = c(0.0013276472048650823);
  for (double k : {0.009675541384704278, 0.05550713273760952,
                   0.24022119722914104, 0.6931469670643273, 1.000000071654871})
    p = fma(p, f, c(k));
  return scaleByPower(p, shifted);
}

Value KernelBuilder::quotient(Value a, Value b) {
  Type type = b.getType();
  Type ints = vec(cast<VectorType>(type).getNumElements(), i32());
  auto c = [&](double value) { return fcst(type, value); };
  // As if a float's bits were its logarithm: within 0.0506 of 1 / b.
  Value guess =
      bitcast(type, arith::SubIOp::create(this->b, loc, cst(ints, 0x7ef31000),
                                          bitcast(ints, b)));
  // A step of third order and one of second.
  Value negated = arith::NegFOp::create(this->b, loc, b);
  Value error = fma(negated, guess, c(1.0));
  Value reciprocal = fma(guess, fma(error, error, error), guess);
  error = fma(negated, reciprocal, c(1.0));
  Value product = fmul(a, reciprocal);
  return fma(product, error, product);
}

Value KernelBuilder::scaleByPower(Value x, Value shifted) {
  VectorType ints = vec(cast<VectorType>(x.getType()).getNumElements(), i32());
  // All bits of the constant leave at the top.
  Value exponent =
      arith::ShLIOp::create(b, loc, bitcast(ints, shifted), cst(ints, 23));
  return bitcast(x.getType(), add(bitcast(ints, x), exponent));
}

Value KernelBuilder::roundedBits(Value x) {
  VectorType ints = vec(cast<VectorType>(x.getType()).getNumElements(), i32());
  return bitcast(ints, fadd(x, fcst(x.getType(), kRoundingMagic)));
}

int64_t KernelBuilder::roundedBias(int64_t count) {
  const uint32_t magic = std::bit_cast<uint32_t>(float(kRoundingMagic));
  return int32_t(0u - magic * uint32_t(count));
}

Value KernelBuilder::exp2ForBF16(Value x) {
  auto c = [&](double value) { return fcst(x.getType(), value); };
  x = fmax(x, c(-126.0));
  Value magic = c(kRoundingMagic);
  Value shifted = fadd(x, magic);
  Value f = fsub(x, fsub(shifted, magic));
  // Least relative error on [-0.5, 0.5].
  Value p = c(0.009570102207362652);
  for (double k : {0.05591786280274391, 0.240247443318367, 0.6931217908859253,
                   0.9999992847442627})
    p = fma(p, f, c(k));
  return scaleByPower(p, shifted);
}

Value KernelBuilder::bitcast(Type type, Value value) {
  if (isa<VectorType>(type))
    return vector::BitCastOp::create(b, loc, cast<VectorType>(type), value);
  return arith::BitcastOp::create(b, loc, type, value);
}

Value KernelBuilder::toBF16(Value floats) {
  auto shape = cast<VectorType>(floats.getType());
  VectorType type = vec(shape.getNumElements(), i32());
  Value bits = bitcast(type, floats), sixteen = cst(type, 16);
  Value odd = arith::AndIOp::create(
      b, loc, arith::ShRUIOp::create(b, loc, bits, sixteen), cst(type, 1));
  Value rounded = add(bits, add(odd, cst(type, 0x7fff)));
  return arith::ShRUIOp::create(b, loc, rounded, sixteen);
}

Value KernelBuilder::fromBF16(Value integers) {
  Type type = integers.getType();
  Value bits = arith::ShLIOp::create(b, loc, integers, cst(type, 16));
  if (auto shape = dyn_cast<VectorType>(type))
    return bitcast(vec(shape.getNumElements(), f32()), bits);
  return bitcast(f32(), bits);
}

void KernelBuilder::storeBF16(Value floats, Value base, int64_t offset) {
  if (target.roundsToBF16 && floats.getType() == vec(kLanes, f32())) {
    Value rounded = intrinsic("llvm.x86.avx512bf16.cvtneps2bf16.512",
                              vec(kLanes, b.getBF16Type()), {floats});
    store(rounded, base, offset);
    return;
  }
  Value rounded = toBF16(floats);
  int64_t lanes = cast<VectorType>(rounded.getType()).getNumElements();
  store(arith::TruncIOp::create(b, loc, vec(lanes, i16()), rounded), base,
        offset);
}

Value KernelBuilder::intrinsic(StringRef name, Type result, ValueRange args) {
  return LLVM::CallIntrinsicOp::create(b, loc, result, b.getStringAttr(name),
                                       args)
      .getResult(0);
}

void KernelBuilder::intrinsic(StringRef name, ValueRange args) {
  LLVM::CallIntrinsicOp::create(b, loc, b.getStringAttr(name), args);
}

Value KernelBuilder::inOrder(Value value) {
  if (!target.hasFewRegisters())
    return value;
  auto type = dyn_cast<VectorType>(value.getType());
  const int64_t lanes =
      type ? target.vectorBits / type.getElementTypeBitWidth() : 0;
  if (type && type.getNumElements() > lanes) {
    const int64_t half = type.getNumElements() / 2;
    Value first = inOrder(slice(value, 0, half));
    return concat(first, inOrder(slice(value, half, half)));
  }
  return LLVM::InlineAsmOp::create(
             b, loc, TypeRange{value.getType()}, ValueRange{value},
             /*asm_string=*/"", /*constraints=*/type ? "=x,0" : "=r,0",
             /*has_side_effects=*/true, /*is_align_stack=*/false,
             LLVM::TailCallKind::None, LLVM::AsmDialectAttr(), ArrayAttr())
      .getResult(0);
}

//===----------------------------------------------------------------------===//
// Memory and control flow
//===----------------------------------------------------------------------===//

Value KernelBuilder::ptr(Value base, Value offset) {
  return LLVM::GEPOp::create(b, loc, base.getType(), i8(), base,
                             ArrayRef<LLVM::GEPArg>{offset});
}
Value KernelBuilder::distance(Value from, Value to) {
  auto address = [&](Value pointer) {
    return LLVM::PtrToIntOp::create(b, loc, i64(), pointer);
  };
  return arith::SubIOp::create(b, loc, address(to), address(from));
}
Value KernelBuilder::stackBuffer(int64_t bytes) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(&function.getBody().front());
  return LLVM::AllocaOp::create(b, loc, scratch.getType(), i8(), cst(bytes),
                                64);
}
Value KernelBuilder::ptr(Value base, int64_t offset) {
  return offset == 0 ? base : ptr(base, cst(offset));
}
Value KernelBuilder::load(Type type, Value base, int64_t offset) {
  unsigned align = getElementTypeOrSelf(type).isIntOrFloat()
                       ? getElementTypeOrSelf(type).getIntOrFloatBitWidth() / 8
                       : 8;
  return LLVM::LoadOp::create(b, loc, type, ptr(base, offset), align);
}
LLVM::StoreOp KernelBuilder::store(Value value, Value base, int64_t offset) {
  unsigned align =
      getElementTypeOrSelf(value.getType()).getIntOrFloatBitWidth() / 8;
  return LLVM::StoreOp::create(b, loc, value, ptr(base, offset), align);
}

void KernelBuilder::prefetch(Value base, int64_t bytes) {
  for (int64_t offset = 0; offset < bytes; offset += 64)
    LLVM::Prefetch::create(b, loc, ptr(base, offset), /*rw=*/0, /*hint=*/2,
                           /*cache=*/1);
}

KernelBuilder::Values KernelBuilder::loop(Value from, Value to, int64_t step,
                                          Values inits, const LoopBody &body) {
  auto op = scf::ForOp::create(
      b, loc, from, to, cst(step), inits,
      [&](OpBuilder &inner, Location, Value iv, ValueRange state) {
        OpBuilder saved = b;
        b = inner;
        Values results = body(iv, state);
        scf::YieldOp::create(b, loc, results);
        b = saved;
      });
  return Values(op.getResults());
}

void KernelBuilder::loop(Value from, Value to, int64_t step,
                         const std::function<void(Value)> &body) {
  loop(from, to, step, {}, [&](Value iv, ValueRange) {
    body(iv);
    return Values{};
  });
}

void KernelBuilder::ifElse(Value condition, const std::function<void()> &then,
                           const std::function<void()> &otherwise) {
  auto region = [&](const std::function<void()> &body) {
    return [&](OpBuilder &inner, Location) {
      OpBuilder saved = b;
      b = inner;
      body();
      scf::YieldOp::create(b, loc);
      b = saved;
    };
  };
  if (otherwise)
    scf::IfOp::create(b, loc, condition, region(then), region(otherwise));
  else
    scf::IfOp::create(b, loc, condition, region(then));
}

Value KernelBuilder::lessThan(Value x, Value y) {
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::slt, x, y);
}
Value KernelBuilder::equal(Value x, Value y) {
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, x, y);
}
