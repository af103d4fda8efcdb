//===- RowWise.cpp - kernels that work on one row at a time ---------------===//
#include "RowWise.h"

#include "Functions.h"

#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <array>

using namespace mlir;
using namespace isthmus;

/// Runs `body(row)` for each tile of the launch.
static void forEachRow(KernelBuilder &k,
                       const std::function<void(Value)> &body) {
  k.loop(k.begin, k.end, 1, body);
}

static Value rowPtr(KernelBuilder &k, Value base, Value row, int64_t rowBytes) {
  return k.ptr(base, k.mul(row, rowBytes));
}

Value isthmus::largestMagnitude(KernelBuilder &k,
                                const KernelBuilder::Values &values) {
  auto abs = [&](Value v) { return math::AbsFOp::create(k.b, k.loc, v); };
  Value magnitudes = abs(values[0]);
  for (Value v : llvm::drop_begin(values))
    magnitudes = k.fmax(magnitudes, abs(v));
  return k.reduceMax(magnitudes);
}

Scaling isthmus::scalingFor(KernelBuilder &k, Value largest, double most) {
  Value usable = arith::CmpFOp::create(k.b, k.loc, arith::CmpFPredicate::OGT,
                                       largest, k.fcst(k.f32(), 1e-30));
  Value factor = arith::SelectOp::create(k.b, k.loc, usable,
                                         k.fdiv(k.fcst(k.f32(), most), largest),
                                         k.fcst(k.f32(), 0.0));
  return {k.fmul(largest, k.fcst(k.f32(), 1.0 / most)), factor};
}

/// The entries of a group beside its values.
static void storeGroupEntries(KernelBuilder &k, Value row, Value group,
                              const QRowsLayout &layout, Value scale,
                              Value sum) {
  Value entry = k.ptr(row, k.mul(group, 4));
  k.store(scale, entry, layout.scaleOffset());
  k.store(arith::MulIOp::create(k.b, k.loc, sum, k.cst(k.i32(), -128)), entry,
          layout.correctionOffset());
}

/// Of so many values, the roundedBits of one or more in each lane.
static Value sumOfRounded(KernelBuilder &k, Value lanes, int64_t values) {
  Value sum = vector::ReductionOp::create(k.b, k.loc,
                                          vector::CombiningKind::ADD, lanes);
  return k.add(sum, k.cst(k.i32(), KernelBuilder::roundedBias(values)));
}

static void storeShort(KernelBuilder &k, Value sum, Value at, int64_t offset) {
  k.store(arith::TruncIOp::create(k.b, k.loc, k.i16(), sum), at, offset);
}

void isthmus::storeQuantizedGroup(KernelBuilder &k, Value row, Value group,
                                  const QRowsLayout &layout,
                                  const KernelBuilder::Values &values) {
  auto [scale, factor] = scalingFor(k, largestMagnitude(k, values), 127.0);
  Value factors = k.splat(factor, kLanes);
  Value at = k.ptr(row, k.mul(group, layout.group()));
  Value entry = k.ptr(row, k.mul(group, 2 * int64_t(values.size())));
  Value first, total; // of 16 values, of all
  for (auto [i, v] : llvm::enumerate(values)) {
    Value q = k.roundedBits(k.fmul(v, factors));
    k.store(arith::TruncIOp::create(k.b, k.loc, k.vec(kLanes, k.i8()), q), at,
            int64_t(i) * kLanes);
    Value sum = sumOfRounded(k, q, QRowsLayout::kShortSum);
    storeShort(k, sum, entry, layout.shortSumsOffset() + 2 * int64_t(i));
    if (i % 2 == 0) {
      first = sum;
      continue;
    }
    sum = k.add(first, sum);
    total = total ? k.add(total, sum) : sum;
    k.store(k.fmul(scale, arith::SIToFPOp::create(k.b, k.loc, k.f32(), sum)),
            entry, layout.sumsOffset() + 4 * int64_t(i / 2));
  }
  storeGroupEntries(k, row, group, layout, scale, total);
}

void isthmus::storeSplit(KernelBuilder &k, Value values, Value to) {
  VectorType ints = k.vec(kLanes, k.i32());
  for (int64_t part = 0; part < kFloatParts; ++part) {
    Value bits = k.bitcast(ints, values);
    Value upper = arith::ShRUIOp::create(k.b, k.loc, bits, k.cst(ints, 16));
    k.store(arith::TruncIOp::create(k.b, k.loc, k.vec(kLanes, k.i16()), upper),
            to, part * kPartsGroup * 2);
    Value held = arith::AndIOp::create(k.b, k.loc, bits, k.cst(ints, -65536));
    values = k.fsub(values, k.bitcast(values.getType(), held));
  }
}

/// How a value of a row is had again, when the largest is known.
enum class Again {
  Compute, ///< it takes no longer than a load
  Load     ///< from scratch
};

/// Quantises a row that has one scale.
static void storeQuantizedRow(KernelBuilder &k, Value row, int64_t features,
                              const std::function<Value(Value)> &compute,
                              Again again) {
  const QRowsLayout layout{features, /*whole=*/true};
  VectorType lanes = k.vec(kLanes, k.f32());
  // Several at once: each has to wait for the one before.
  const int64_t chains = features % (4 * kLanes) == 0 ? 4 : 2;
  const KernelBuilder::Values zeros(size_t(chains), k.zeros(kLanes));
  KernelBuilder::Values largest = k.loop(
      k.cst(0), k.cst(features * 4), chains * kLanes * 4, zeros,
      [&](Value offset, ValueRange sofar) {
        KernelBuilder::Values next;
        for (auto [i, most] : llvm::enumerate(sofar)) {
          Value at = k.add(offset, int64_t(i) * kLanes * 4), v = compute(at);
          if (again == Again::Load)
            k.store(v, k.ptr(k.scratch, at));
          next.push_back(k.fmax(most, math::AbsFOp::create(k.b, k.loc, v)));
        }
        return next;
      });
  Value magnitudes = largest[0];
  for (Value most : llvm::drop_begin(largest))
    magnitudes = k.fmax(magnitudes, most);
  auto [scale, factor] = scalingFor(k, k.reduceMax(magnitudes), 127.0);
  Value factors = k.splat(factor, kLanes);
  constexpr int64_t kGroup = PackedLayout::kInt4Group;
  Value total = k.loop(
      k.cst(0), k.cst(features), kGroup, {k.cst(k.i32(), 0)},
      [&](Value i, ValueRange sofar) -> KernelBuilder::Values {
        Value sums;
        for (int64_t at = 0; at < kGroup; at += kLanes) {
          Value offset = k.add(k.mul(i, 4), 4 * at);
          Value v = again == Again::Load
                        ? k.load(lanes, k.ptr(k.scratch, offset))
                        : compute(offset);
          Value q = k.roundedBits(k.fmul(v, factors));
          k.store(arith::TruncIOp::create(k.b, k.loc, k.vec(kLanes, k.i8()), q),
                  k.ptr(row, i), at);
          sums = sums ? k.add(sums, q) : q;
        }
        Value sum = sumOfRounded(k, sums, kGroup);
        storeShort(k, sum, k.ptr(row, k.div(i, kGroup / layout.sumBytes())),
                   layout.sumsOffset());
        return {k.add(sofar[0], sum)};
      })[0];
  storeGroupEntries(k, row, k.cst(0), layout, scale, total);
}

void isthmus::storeRounded(KernelBuilder &k, RowFormat format, Value values,
                           Value row, Value offset) {
  if (format == RowFormat::BF16 && k.target.widensRows())
    k.store(k.fromBF16(k.toBF16(values)), k.ptr(row, offset));
  else
    k.storeBF16(values, k.ptr(row, k.div(offset, 2)));
}

/// Writes a row of results. `compute(offset)` gives 16 values at byte `offset`
/// of an f32 row.
static void writeRow(KernelBuilder &k, Value y, Value row, int64_t features,
                     RowFormat format,
                     const std::function<Value(Value)> &compute,
                     Again again = Again::Load) {
  Value out = rowPtr(k, y, row, rowBytes(format, features));
  if (format == RowFormat::Int8Row) {
    storeQuantizedRow(k, out, features, compute, again);
    return;
  }
  if (format == RowFormat::BF16x3) {
    k.loop(k.cst(0), k.cst(features / kPartsGroup), 1, [&](Value group) {
      Value from = k.mul(group, kPartsGroup * 4);
      Value to = k.ptr(out, k.mul(group, kPartsGroup * kFloatParts * 2));
      for (int64_t i = 0; i < kPartsGroup; i += kLanes)
        storeSplit(k, compute(k.add(from, i * 4)), k.ptr(to, i * 2));
    });
    return;
  }
  if (format != RowFormat::Int8) {
    k.loop(k.cst(0), k.cst(features * 4), kLanes * 4, [&](Value offset) {
      if (format == RowFormat::BF16 || format == RowFormat::BF16x1)
        storeRounded(k, format, compute(offset), out, offset);
      else
        k.store(compute(offset), k.ptr(out, offset));
    });
    return;
  }
  QRowsLayout layout{features};
  k.loop(k.cst(0), k.cst(layout.groups()), 1, [&](Value group) {
    Value offset = k.mul(group, layout.group() * 4);
    KernelBuilder::Values values;
    for (int64_t i = 0; i < layout.group(); i += kLanes)
      values.push_back(compute(k.add(offset, i * 4)));
    storeQuantizedGroup(k, out, group, layout, values);
  });
}

/// 1 / sqrt(squares / features + epsilon), in all lanes.
static Value inverseRoot(KernelBuilder &k, Value squares, int64_t features,
                         double epsilon) {
  Value mean = k.fdiv(k.reduceAdd(squares), k.fcst(k.f32(), double(features)));
  Value root =
      math::SqrtOp::create(k.b, k.loc, k.fadd(mean, k.fcst(k.f32(), epsilon)));
  return k.splat(k.fdiv(k.fcst(k.f32(), 1.0), root), kLanes);
}

/// Folds `add(values, sum)` over the vectors of `features` values from `in` on.
static Value sumOver(KernelBuilder &k, Value in, int64_t features,
                     const std::function<Value(Value, Value)> &add) {
  return k.loop(k.cst(0), k.cst(features * 4), kLanes * 4, {k.zeros(kLanes)},
                [&](Value offset, ValueRange sum) -> KernelBuilder::Values {
                  Value v = k.load(k.vec(kLanes, k.f32()), k.ptr(in, offset));
                  return {add(v, sum[0])};
                })[0];
}

void isthmus::emitRMSNorm(KernelBuilder &k, const NormSpec &spec) {
  Value x = k.operand(0), weight = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  const int64_t features = spec.features / spec.heads;
  auto inverse = [&](Value in) {
    Value squares = sumOver(
        k, in, features, [&](Value v, Value sum) { return k.fma(v, v, sum); });
    return inverseRoot(k, squares, features, spec.epsilon);
  };
  auto normed = [&](Value in, Value factor, Value offset) {
    Value v = k.fmul(k.load(lanes, k.ptr(in, offset)), factor);
    return k.fmul(v, k.load(lanes, k.ptr(weight, offset)));
  };
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(spec.features));
    if (spec.heads == 1) {
      Value factor = inverse(in);
      writeRow(
          k, y, row, features, spec.result,
          [&](Value offset) { return normed(in, factor, offset); },
          Again::Compute);
      return;
    }
    Value out = rowPtr(k, y, row, floatRowBytes(spec.features));
    k.loop(k.cst(0), k.cst(spec.features * 4), features * 4, [&](Value head) {
      Value own = k.ptr(in, head), factor = inverse(own);
      k.loop(k.cst(0), k.cst(features * 4), kLanes * 4, [&](Value offset) {
        k.store(normed(own, factor, offset), k.ptr(k.ptr(out, head), offset));
      });
    });
  });
}

void isthmus::emitLayerNorm(KernelBuilder &k, const NormSpec &spec) {
  Value x = k.operand(0), weight = k.operand(1), bias = k.operand(2),
        y = k.operand(3);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(spec.features));
    Value total = sumOver(k, in, spec.features,
                          [&](Value v, Value sum) { return k.fadd(sum, v); });
    Value mean = k.splat(
        k.fdiv(k.reduceAdd(total), k.fcst(k.f32(), double(spec.features))),
        kLanes);
    Value squares = sumOver(k, in, spec.features, [&](Value v, Value sum) {
      Value centred = k.fsub(v, mean);
      return k.fma(centred, centred, sum);
    });
    Value factor = inverseRoot(k, squares, spec.features, spec.epsilon);
    writeRow(k, y, row, spec.features, spec.result, [&](Value offset) {
      Value v = k.fmul(k.fsub(k.load(lanes, k.ptr(in, offset)), mean), factor);
      return k.fma(v, k.load(lanes, k.ptr(weight, offset)),
                   k.load(lanes, k.ptr(bias, offset)));
    });
  });
}

/// Calls writeRow for each row with `compute(x)` of its values, which are f32
/// or bf16.
static void mapRows(KernelBuilder &k, int64_t features, RowFormat from,
                    RowFormat result,
                    const std::function<Value(Value)> &compute,
                    Again again = Again::Load) {
  Value x = k.operand(0), y = k.operand(1);
  auto load = [&](Value in, Value offset) -> Value {
    if (from == RowFormat::F32 || k.target.widensRows())
      return k.load(k.vec(kLanes, k.f32()), k.ptr(in, offset));
    Value values = k.load(k.vec(kLanes, k.i16()), k.ptr(in, k.div(offset, 2)));
    return k.fromBF16(
        arith::ExtUIOp::create(k.b, k.loc, k.vec(kLanes, k.i32()), values));
  };
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, rowBytes(from, features));
    writeRow(
        k, y, row, features, result,
        [&](Value offset) { return compute(load(in, offset)); }, again);
  });
}

void isthmus::emitActivate(KernelBuilder &k, const ActivationSpec &spec) {
  mapRows(k, spec.features, RowFormat::F32, spec.result,
          [&](Value x) { return emitFunction(k, spec.function, x); });
}

void isthmus::emitScale(KernelBuilder &k, int64_t features, double factor) {
  mapRows(k, features, RowFormat::F32, RowFormat::F32,
          [&](Value x) { return k.fmul(x, k.fcst(x.getType(), factor)); });
}

void isthmus::emitGlu(KernelBuilder &k, const ActivationSpec &spec) {
  Value gate = k.operand(0), up = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value g = rowPtr(k, gate, row, floatRowBytes(spec.features));
    Value u = rowPtr(k, up, row, floatRowBytes(spec.features));
    writeRow(k, y, row, spec.features, spec.result, [&](Value offset) {
      return k.fmul(
          emitFunction(k, spec.function, k.load(lanes, k.ptr(g, offset))),
          k.load(lanes, k.ptr(u, offset)));
    });
  });
}

void isthmus::emitQuantizeRows(KernelBuilder &k, int64_t features,
                               RowFormat from, RowFormat result) {
  mapRows(k, features, from, result, [](Value x) { return x; }, Again::Compute);
}

void isthmus::emitAdd(KernelBuilder &k, int64_t features) {
  Value a = k.operand(0), b = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value left = rowPtr(k, a, row, floatRowBytes(features));
    Value right = rowPtr(k, b, row, floatRowBytes(features));
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      return k.fadd(k.load(lanes, k.ptr(left, offset)),
                    k.load(lanes, k.ptr(right, offset)));
    });
  });
}

void isthmus::emitSelectRows(KernelBuilder &k, int64_t features) {
  Value x = k.operand(0), y = k.operand(1);
  Value outputRows = k.stepField(rt::kStepOutputRows, /*isPointer=*/true);
  forEachRow(k, [&](Value row) {
    Value source = k.toI64(k.load(k.i32(), rowPtr(k, outputRows, row, 4)));
    Value in = rowPtr(k, x, source, floatRowBytes(features));
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      return k.load(k.vec(kLanes, k.f32()), k.ptr(in, offset));
    });
  });
}

void isthmus::emitMeanRows(KernelBuilder &k, int64_t features) {
  Value x = k.operand(0), y = k.operand(1);
  VectorType lanes = k.vec(kLanes, k.f32());
  Value outputRows = k.stepField(rt::kStepOutputRows, /*isPointer=*/true);
  Value positions = k.stepField(rt::kStepPositions, /*isPointer=*/true);
  Value sequence = k.stepField(rt::kStepSequence, /*isPointer=*/true);
  Value lengths = k.stepField(rt::kStepLengths, /*isPointer=*/true);
  const int64_t rowBytes = floatRowBytes(features);
  auto entry = [&](Value array, Value index) {
    return k.toI64(k.load(k.i32(), rowPtr(k, array, index, 4)));
  };
  forEachRow(k, [&](Value row) {
    Value source = entry(outputRows, row);
    Value in = rowPtr(k, x, k.sub(source, entry(positions, source)), rowBytes);
    Value length = entry(lengths, entry(sequence, source));
    Value count =
        k.splat(arith::SIToFPOp::create(k.b, k.loc, k.f32(), length), kLanes);
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      Value sum =
          k.loop(k.cst(0), length, 1, {k.zeros(kLanes)},
                 [&](Value t, ValueRange sofar) -> KernelBuilder::Values {
                   Value at = k.ptr(rowPtr(k, in, t, rowBytes), offset);
                   return {k.fadd(sofar[0], k.load(lanes, at))};
                 })[0];
      return k.fdiv(sum, count);
    });
  });
}

void isthmus::emitAddVector(KernelBuilder &k, int64_t features) {
  Value x = k.operand(0), vector = k.operand(1), y = k.operand(2);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(features));
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      return k.fadd(k.load(lanes, k.ptr(in, offset)),
                    k.load(lanes, k.ptr(vector, offset)));
    });
  });
}

void isthmus::emitClassToken(KernelBuilder &k, int64_t features) {
  Value x = k.operand(0), token = k.operand(1), y = k.operand(2);
  Value positions = k.stepField(rt::kStepPositions, /*isPointer=*/true);
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(features));
    Value position = k.toI64(k.load(k.i32(), rowPtr(k, positions, row, 4)));
    auto copy = [&](Value from) {
      writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
        return k.load(k.vec(kLanes, k.f32()), k.ptr(from, offset));
      });
    };
    k.ifElse(
        k.equal(position, k.cst(0)), [&] { copy(token); }, [&] { copy(in); });
  });
}

void isthmus::emitL2Norm(KernelBuilder &k, int64_t features) {
  Value x = k.operand(0), y = k.operand(1);
  VectorType lanes = k.vec(kLanes, k.f32());
  forEachRow(k, [&](Value row) {
    Value in = rowPtr(k, x, row, floatRowBytes(features));
    Value squares = sumOver(
        k, in, features, [&](Value v, Value sum) { return k.fma(v, v, sum); });
    Value length = math::SqrtOp::create(k.b, k.loc, k.reduceAdd(squares));
    Value factor = k.splat(
        k.fdiv(k.fcst(k.f32(), 1.0), k.fmax(length, k.fcst(k.f32(), 1e-12))),
        kLanes);
    writeRow(k, y, row, features, RowFormat::F32, [&](Value offset) {
      return k.fmul(k.load(lanes, k.ptr(in, offset)), factor);
    });
  });
}
