//===- KernelBuilder.h - a short hand for writing kernels in MLIR -*- C++
//-*-===//
//
// Kernels are functions over raw pointers with the fixed ABI
//   void kernel(const Args *args, int64_t begin, int64_t end, void *scratch)
// (runtime/include/isthmus/runtime/KernelABI.h). This class wraps OpBuilder so
// that an emitter reads like the loop nest it writes.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Target/TargetDescription.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"

#include <functional>

namespace isthmus {

/// Outputs that stand side by side in a vector and in a packed weight. Fixed
/// for all targets, so that sums have one order everywhere (docs/numerics.md).
inline constexpr int64_t kLanes = 16;

class KernelBuilder {
public:
  using Values = llvm::SmallVector<mlir::Value>;
  using LoopBody = std::function<Values(mlir::Value, mlir::ValueRange)>;

  /// Starts the function `name` at the end of `module`.
  KernelBuilder(mlir::ModuleOp module, llvm::StringRef name,
                const TargetDescription &target, mlir::Location loc);
  /// Ends the function; nothing may be added after.
  void finish();

  /// Emits a call of a function of its own, named as this one and `suffix`,
  /// that `body` fills; it has the same arguments. What a rare or a long branch
  /// needs of registers and stack, the others do not set up then.
  void outline(llvm::StringRef suffix,
               const std::function<void(KernelBuilder &)> &body);

  const TargetDescription &target;
  mlir::OpBuilder b;
  mlir::Location loc;
  mlir::Value arguments, begin, end, scratch; ///< of the function

  // Arguments of the launch.
  mlir::Value rowCount();              ///< i64: rows of the launch
  mlir::Value operand(unsigned index); ///< pointer bound to operand `index`
  mlir::Value stepField(unsigned index, bool isPointer); ///< field of StepRows

  // Types.
  mlir::Type i8() { return b.getI8Type(); }
  mlir::Type i16() { return b.getI16Type(); }
  mlir::Type i32() { return b.getI32Type(); }
  mlir::Type i64() { return b.getI64Type(); }
  mlir::Type f16() { return b.getF16Type(); }
  mlir::Type f32() { return b.getF32Type(); }
  mlir::Type f64() { return b.getF64Type(); }
  mlir::VectorType vec(int64_t lanes, mlir::Type type) {
    return mlir::VectorType::get({lanes}, type);
  }

  // Constants, of scalar or vector type.
  mlir::Value cst(int64_t value);
  mlir::Value cst(mlir::Type type, int64_t value);
  mlir::Value fcst(mlir::Type type, double value);
  mlir::Value zeros(int64_t lanes) { return fcst(vec(lanes, f32()), 0.0); }

  // Integer arithmetic on i64 (addresses, counts).
  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value add(mlir::Value a, int64_t b);
  mlir::Value sub(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, int64_t b);
  mlir::Value mul(mlir::Value a, mlir::Value b);
  mlir::Value div(mlir::Value a, int64_t b); ///< as rem, unsigned
  mlir::Value div(mlir::Value a, mlir::Value b);
  mlir::Value rem(mlir::Value a, int64_t b);
  mlir::Value min(mlir::Value a, mlir::Value b);
  mlir::Value max(mlir::Value a, mlir::Value b);
  mlir::Value toI64(mlir::Value a); ///< sign-extends

  // Float arithmetic, scalar or vector; no reassociation, no contraction.
  mlir::Value fadd(mlir::Value a, mlir::Value b);
  mlir::Value fsub(mlir::Value a, mlir::Value b);
  mlir::Value fmul(mlir::Value a, mlir::Value b);
  mlir::Value fdiv(mlir::Value a, mlir::Value b);
  mlir::Value fma(mlir::Value a, mlir::Value b, mlir::Value c);
  mlir::Value fmax(mlir::Value a, mlir::Value b);
  mlir::Value splat(mlir::Value scalar, int64_t lanes);
  mlir::Value extract(mlir::Value vector, int64_t lane);
  mlir::Value slice(mlir::Value vector, int64_t first, int64_t lanes);
  mlir::Value concat(mlir::Value low, mlir::Value high);
  /// Sum or maximum of all lanes, as a fixed tree of halves.
  mlir::Value reduceAdd(mlir::Value vector);
  mlir::Value reduceMax(mlir::Value vector);
  /// e^x per lane by a degree-6 polynomial; within 2 ulp, 0 never reached.
  mlir::Value exp(mlir::Value x);
  /// e^-x per lane for |x| <= 60, beyond which it stays e^-60 or e^60: within 5
  /// ulp up to |x| = 8, 16 ulp up to 60. Fewer operations than exp.
  mlir::Value expOfNegated(mlir::Value x);
  /// a / b per lane, 2^-100 <= b <= 2^100: within 2 ulp. In less time than
  /// fdiv, which takes as long as 16 operations.
  mlir::Value quotient(mlir::Value a, mlir::Value b);
  /// 2^x per lane for x <= 0, within 2^-17 of it: enough for what is rounded to
  /// bf16. Below -126 it stays 2^-126.
  mlir::Value exp2ForBF16(mlir::Value x);
  /// Rounds |x| < 2^22 to nearest even: as i32 whose low bits, up to the 22nd,
  /// are those of the integer. A sum of `count` of them plus roundedBias(count)
  /// is the sum of the integers.
  mlir::Value roundedBits(mlir::Value x);
  static int64_t roundedBias(int64_t count);
  // bf16 stands in the lanes of integers: one value in the low half, or a pair.
  /// Rounds f32 lanes to nearest even; the values as i32, below 2^16. NaNs
  /// whose upper bits are all set become something else.
  mlir::Value toBF16(mlir::Value floats);
  mlir::Value fromBF16(mlir::Value integers);
  /// Rounds and stores f32 lanes as bf16, two bytes each.
  void storeBF16(mlir::Value floats, mlir::Value base, int64_t offset = 0);
  /// The same bits as another type.
  mlir::Value bitcast(mlir::Type type, mlir::Value value);
  /// Calls an LLVM intrinsic by name.
  mlir::Value intrinsic(llvm::StringRef name, mlir::Type result,
                        mlir::ValueRange args);
  void intrinsic(llvm::StringRef name, mlir::ValueRange args);
  /// `value`, a vector or an index; where a target has few registers it passes
  /// an empty piece of assembly. So values are computed in the order of these
  /// calls, and LLVM knows nothing about them: it orders for latency, which
  /// processors that look ahead do not need, and spills.
  mlir::Value inOrder(mlir::Value value);

  // Memory. Offsets are in bytes.
  mlir::Value ptr(mlir::Value base, mlir::Value offset);
  mlir::Value ptr(mlir::Value base, int64_t offset);
  mlir::Value distance(mlir::Value from, mlir::Value to); ///< in bytes, i64
  /// Memory of the function, 64-byte aligned.
  mlir::Value stackBuffer(int64_t bytes);
  mlir::Value load(mlir::Type type, mlir::Value base, int64_t offset = 0);
  mlir::LLVM::StoreOp store(mlir::Value value, mlir::Value base,
                            int64_t offset = 0);
  /// Asks for `bytes` bytes from `base` on, which need not be readable, to be
  /// brought into the second-level cache.
  void prefetch(mlir::Value base, int64_t bytes);

  // Control flow.
  Values loop(mlir::Value from, mlir::Value to, int64_t step, Values inits,
              const LoopBody &body);
  void loop(mlir::Value from, mlir::Value to, int64_t step,
            const std::function<void(mlir::Value)> &body);
  void ifElse(mlir::Value condition, const std::function<void()> &then,
              const std::function<void()> &otherwise = nullptr);
  mlir::Value lessThan(mlir::Value a, mlir::Value b); ///< i64, signed
  mlir::Value equal(mlir::Value a, mlir::Value b);

private:
  /// x * 2^n, with n in the low bits of `shifted`.
  mlir::Value scaleByPower(mlir::Value x, mlir::Value shifted);

  mlir::func::FuncOp function;
};

} // namespace isthmus
