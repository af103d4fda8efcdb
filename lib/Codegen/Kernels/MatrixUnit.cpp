//===- MatrixUnit.cpp - products in tiles of a matrix unit ----------------===//
#include "MatrixUnit.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

#include <array>

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

constexpr int64_t kStep = 64; ///< inputs of a step of int8

/// Products of AMX's tiles: 16 rows of 64 bytes with weights, which lie in
/// memory as tiles want them (16 outputs with four bytes of inputs in a row).
/// LLVM configures the tiles. Fewer rows would do too, but each register has
/// one shape in all of a function, and those of others would be lacking.
class Tiles {
public:
  static constexpr int64_t kRows = kTileRows, kRowBytes = 64;

  /// Of int8.
  Tiles(KernelBuilder &k, const Values &rows)
      : Tiles(k, /*parts=*/0, k.distance(rows[0], rows[1]),
              int64_t(rows.size())) {
    for (int64_t r = 0; r < storedRows; r += kRows)
      add(rows[size_t(r)], i16(std::min(kRows, storedRows - r)));
  }

  Tiles(KernelBuilder &k, const TileRows &rows)
      : Tiles(k, rows.parts, k.cst(rows.stride), rows.count) {
    for (int64_t r = 0; r < storedRows; r += kRows)
      add(k.ptr(rows.first, r * rows.stride),
          rows.fewer ? rows.fewer : i16(kRows));
  }

  /// Sums of all rows with so many panels, [panel][tile].
  Values zeros(size_t panels) {
    Values sums;
    for (size_t p = 0; p < panels; ++p)
      for (Value count : counts)
        sums.push_back(k.intrinsic("llvm.x86.tilezero.internal", type,
                                   {count, i16(kRowBytes)}));
    return sums;
  }

  /// Inputs of a whole step.
  int64_t stepInputs() const { return parts ? kPartsGroup : kStep; }

  /// Adds products of `inputs` inputs, from `at` on: those of a step, or of
  /// int8 fewer.
  Values addStep(ValueRange sums, Value at, const Values &panels,
                 int64_t inputs) {
    if (parts)
      return addParts(sums, at, panels);
    // All into registers of their own: loads run ahead of products.
    Values values = loadRows(at, 0, inputs), factors;
    for (Value panel : panels)
      factors.push_back(loadWeights(panel, at, 0, inputs));
    return multiplyAdd(sums, values, factors, inputs);
  }

  /// Adds what one step would of operands that stay in registers.
  Values repeatStep(ValueRange sums, const Values &values,
                    const Values &factors) {
    Values out(sums);
    for (size_t i = 0; i < (parts ? products().size() : 1); ++i)
      out = multiplyAdd(out, values, factors, kRowBytes);
    return out;
  }

  /// `bytes` of all rows, from input `at` on.
  Values loadRows(Value at, int64_t part, int64_t bytes) {
    Values out;
    for (size_t tile = 0; tile < counts.size(); ++tile)
      out.push_back(loadRow(tile, at, part, bytes));
    return out;
  }
  Value loadRow(size_t tile, Value at, int64_t part, int64_t bytes) {
    Value offset = k.mul(at, valueBytes());
    return load(counts[tile], bytes,
                k.ptr(k.ptr(firsts[tile], offset), part * kRowBytes), stride);
  }

  /// As many of 16 outputs.
  Value loadWeights(Value panel, Value at, int64_t part, int64_t bytes) {
    Value offset = k.mul(at, PackedLayout::kPanel * valueBytes());
    return load(i16(bytes / 4), kRowBytes,
                k.ptr(k.ptr(panel, offset), part * kRows * kRowBytes),
                k.cst(kRowBytes));
  }

  /// Writes sums to memory, from where they come back.
  void store(const Values &sums, Value to) {
    for (auto [i, sum] : llvm::enumerate(sums))
      k.intrinsic("llvm.x86.tilestored64.internal",
                  {counts[i % counts.size()], i16(kRowBytes), at(to, i),
                   k.cst(kRowBytes), sum});
  }
  /// What was written.
  Values stored(size_t panels, Value from) {
    Values sums;
    for (size_t i = 0; i < panels * counts.size(); ++i)
      sums.push_back(load(counts[i % counts.size()], kRowBytes, at(from, i),
                          k.cst(kRowBytes)));
    return sums;
  }
  /// Of one panel.
  int64_t storedBytes() const { return storedRows * kRowBytes; }

private:
  /// Which part of a row is multiplied with which of a weight. The three that
  /// are left are about as small as the error of a product in f32. From one to
  /// the next one side stays; and each stays so briefly that LLVM, which has no
  /// register to spare, finds all of them one.
  static constexpr std::array<std::pair<int64_t, int64_t>, 6> kProducts = {
      {{1, 1}, {1, 0}, {2, 0}, {0, 0}, {0, 1}, {0, 2}}};
  static constexpr std::array<std::pair<int64_t, int64_t>, 1> kOneProduct = {
      {{0, 0}}};
  ArrayRef<std::pair<int64_t, int64_t>> products() const {
    if (parts == 1)
      return kOneProduct;
    return kProducts;
  }
  int64_t valueBytes() const { return parts ? parts * 2 : 1; }

  KernelBuilder &k;
  const int64_t parts; ///< of bf16, that values are; 0: int8
  Type type;
  Value stride;
  const int64_t storedRows;
  Values firsts, counts; ///< of each tile: its first row, and how many

  Tiles(KernelBuilder &k, int64_t parts, Value stride, int64_t storedRows)
      : k(k), parts(parts), type(LLVM::LLVMX86AMXType::get(k.b.getContext())),
        stride(stride), storedRows(storedRows) {}

  void add(Value first, Value count) {
    firsts.push_back(first);
    counts.push_back(count);
  }
  /// Where sum `i` is stored.
  Value at(Value sums, size_t i) {
    const size_t panel = i / counts.size(), tile = i % counts.size();
    return k.ptr(sums, int64_t(panel) * storedBytes() +
                           int64_t(tile) * kRows * kRowBytes);
  }
  Value i16(int64_t value) { return k.cst(k.i16(), value); }
  Value load(Value lines, int64_t bytes, Value from, Value apart) {
    return k.intrinsic("llvm.x86.tileloadd64.internal", type,
                       {lines, i16(bytes), from, apart});
  }

  /// addStep of inputs in parts, from `at` on.
  Values addParts(ValueRange sums, Value at, const Values &panels) {
    Values out(sums), values(counts.size()), factors(panels.size());
    std::pair<int64_t, int64_t> held = {-1, -1};
    for (auto [row, weight] : products()) {
      if (row != held.first)
        for (size_t tile = 0; tile < counts.size(); ++tile)
          values[tile] = loadRow(tile, at, row, kRowBytes);
      if (weight != held.second)
        for (size_t p = 0; p < panels.size(); ++p)
          factors[p] = loadWeights(panels[p], at, weight, kRowBytes);
      for (size_t p = 0; p < panels.size(); ++p)
        for (size_t tile = 0; tile < counts.size(); ++tile) {
          Value &sum = out[p * counts.size() + tile];
          sum = multiplyAdd(sum, tile, values[tile], factors[p], kRowBytes);
        }
      held = {row, weight};
    }
    return out;
  }

  Values multiplyAdd(ValueRange sums, const Values &values,
                     const Values &factors, int64_t bytes) {
    Values out;
    for (Value panel : factors)
      for (size_t tile = 0; tile < counts.size(); ++tile)
        out.push_back(
            multiplyAdd(sums[out.size()], tile, values[tile], panel, bytes));
    return out;
  }
  Value multiplyAdd(Value sum, size_t tile, Value values, Value factors,
                    int64_t bytes) {
    return k.intrinsic(
        parts ? "llvm.x86.tdpbf16ps.internal" : "llvm.x86.tdpbssd.internal",
        type, {counts[tile], i16(kRowBytes), i16(bytes), sum, values, factors});
  }
};

/// What emitTiles does, for all panels at once.
void sumInTiles(KernelBuilder &k, Tiles tiles, const Values &panels,
                int64_t inputs, Value sums, bool fromZero,
                const EachStep &eachStep, const Meanwhile &meanwhile) {
  Values held =
      fromZero ? tiles.zeros(panels.size()) : tiles.stored(panels.size(), sums);
  auto step = [&](Value at, int64_t count, ValueRange state) {
    Values next = tiles.addStep(state, at, panels, count);
    eachStep(at, count);
    return next;
  };
  const int64_t stepInputs = tiles.stepInputs(), steps = inputs / stepInputs;
  // As few pieces of the other work a step as finish it, in equal shares.
  int64_t share = 1;
  while (share < std::min(meanwhile.pieces, kTileRows) &&
         share * steps < meanwhile.pieces)
    share *= 2;
  const int64_t busy = std::min(steps, meanwhile.pieces / share);
  auto stepsFrom = [&](int64_t from, int64_t to, bool isBusy) {
    if (from == to)
      return;
    held =
        k.loop(k.cst(from * stepInputs), k.cst(to * stepInputs), stepInputs,
               held, [&](Value at, ValueRange state) {
                 Values next = step(at, stepInputs, state);
                 if (isBusy)
                   meanwhile.emit(k.mul(k.div(at, stepInputs), share), share);
                 return next;
               });
  };
  stepsFrom(0, busy, true);
  stepsFrom(busy, steps, false);
  if (inputs % stepInputs)
    held = step(k.cst(steps * stepInputs), inputs % stepInputs, held);
  if (busy * share < meanwhile.pieces)
    k.loop(k.cst(busy * share), k.cst(meanwhile.pieces), 1,
           [&](Value piece) { meanwhile.emit(piece, 1); });
  tiles.store(held, sums);
}

/// sumInTiles, one panel at a time where that takes more registers than there
/// are: what is left of a step takes some of other shapes, and a schedule may
/// ask for too many.
void sumWhatFits(KernelBuilder &k, Tiles tiles, int64_t rows,
                 const Values &panels, int64_t inputs, Value sums,
                 bool fromZero, const EachStep &eachStep,
                 const Meanwhile &meanwhile) {
  if (tileRegistersFor(rows, int64_t(panels.size())) <=
          k.target.tileRegisters &&
      inputs % tiles.stepInputs() == 0)
    return sumInTiles(k, tiles, panels, inputs, sums, fromZero, eachStep,
                      meanwhile);
  for (auto [p, panel] : llvm::enumerate(panels))
    sumInTiles(k, tiles, {panel}, inputs,
               k.ptr(sums, int64_t(p) * tiles.storedBytes()), fromZero,
               eachStep, p == 0 ? meanwhile : Meanwhile());
}
} // namespace

bool isthmus::usesTiles(const TargetDescription &target, PackedFormat format,
                        int64_t rows) {
  // Not for nibbles: they are unpacked first, once for many rows (Product.h).
  return target.dot == DotProduct::Amx && format == PackedFormat::Int8 &&
         rows >= Tiles::kRows;
}

void isthmus::emitLongTiles(KernelBuilder &k, int64_t inputs,
                            const Values &panels, const Values &rows, Value to,
                            const EachStep &eachStep) {
  sumWhatFits(k, Tiles(k, rows), int64_t(rows.size()), panels, inputs, to,
              /*fromZero=*/true, eachStep, {});
}

void isthmus::emitTiles(KernelBuilder &k, const TileRows &rows,
                        const Values &panels, int64_t inputs, Value sums,
                        bool fromZero, const EachStep &eachStep,
                        const Meanwhile &meanwhile) {
  sumWhatFits(k, Tiles(k, rows), rows.count, panels, inputs, sums, fromZero,
              eachStep, meanwhile);
}

void isthmus::emitSplitInputs(KernelBuilder &k, Value from, Value input,
                              int64_t inputs, Value copy) {
  constexpr int64_t kVectorBytes = kLanes * 4;
  constexpr int64_t kGroupBytes = tilePanelBytes(kFloatParts, kPartsGroup);
  VectorType ints = k.vec(kLanes, k.i32()), floats = k.vec(kLanes, k.f32());
  Value upper = k.cst(ints, -65536), half = k.cst(ints, 16);
  Value group = k.mul(k.div(input, kPartsGroup), kGroupBytes);
  Value inGroup = k.mul(k.rem(input, kPartsGroup), kVectorBytes / 2);
  Value to = k.ptr(copy, k.add(group, inGroup));
  for (int64_t pair = 0; pair < inputs / 2; ++pair) {
    Value a = k.load(floats, from, 2 * pair * kVectorBytes);
    Value b = k.load(floats, from, (2 * pair + 1) * kVectorBytes);
    for (int64_t part = 0; part < kFloatParts; ++part) {
      Value low = k.bitcast(ints, a), high = k.bitcast(ints, b);
      Value first = arith::AndIOp::create(k.b, k.loc, low, upper);
      Value second = arith::AndIOp::create(k.b, k.loc, high, upper);
      Value both = arith::OrIOp::create(
          k.b, k.loc, arith::ShRUIOp::create(k.b, k.loc, low, half), second);
      k.store(both, to, part * kGroupBytes / kFloatParts + pair * kVectorBytes);
      a = k.fsub(a, k.bitcast(floats, first));
      b = k.fsub(b, k.bitcast(floats, second));
    }
  }
}

void isthmus::emitRepeatedTiles(KernelBuilder &k, int64_t parts, Value data,
                                Value times) {
  constexpr size_t kPanels = 2;
  constexpr int64_t kRows = 2 * Tiles::kRows;
  Values rows, factors;
  for (int64_t r = 0; r < kRows; ++r)
    rows.push_back(k.ptr(data, r * Tiles::kRowBytes));
  Tiles tiles = parts ? Tiles(k, TileRows{data, parts, Tiles::kRowBytes, kRows})
                      : Tiles(k, rows);
  Value first = k.cst(0);
  Values values = tiles.loadRows(first, 0, Tiles::kRowBytes);
  for (size_t p = 0; p < kPanels; ++p)
    factors.push_back(tiles.loadWeights(data, first, 0, Tiles::kRowBytes));
  Values held = k.loop(k.cst(0), times, 1, tiles.zeros(kPanels),
                       [&](Value, ValueRange state) {
                         return tiles.repeatStep(state, values, factors);
                       });
  tiles.store(held, data);
}
