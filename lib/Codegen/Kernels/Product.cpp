//===- Product.cpp - the sums inside matrix products ----------------------===//
#include "Product.h"

#include "DotProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

#include <optional>

using namespace mlir;
using namespace isthmus;

/// Steps of a sum of floats (values, or pairs of bf16) that share an
/// accumulator; a part of the numerics contract (docs/numerics.md).
static constexpr int64_t kStepsPerPart = 512;

/// Copies of panels are to stay in the second cache, and the stack to hold
/// them.
static constexpr int64_t kMostCopyBytes = 1 << 20;

static constexpr int64_t kLine = 64; ///< bytes of a line of the cache

bool isthmus::takesTiles(const PackedLayout &weight,
                         const TargetDescription &target) {
  return weight.oneScale && usesTiles(target, PackedFormat::Int8, kTileRows) &&
         2 * PackedLayout::kPanel * weight.inputs <= kMostCopyBytes;
}

Product::Product(KernelBuilder &k, const PackedLayout &weight, bool isUnpacked)
    : k(k), layout(weight), format(rowFormatFor(weight)),
      isUnpacked(isUnpacked) {}

int64_t Product::rowBytes() const {
  return isthmus::rowBytes(format, layout.inputs);
}

int64_t Product::rowsAtOnce() const {
  const KernelSchedule &schedule = k.target.schedule;
  if (isUnpacked && !layout.oneScale)
    return kTileRows;
  if (takesTiles(layout, k.target))
    return std::min(schedule.wholeRows, kTileRows / 2);
  return hasNibbles(layout.format)      ? schedule.nibbleRows
         : format == RowFormat::Int8    ? schedule.dotRows
         : format == RowFormat::Int8Row ? schedule.wholeRows
         : format == RowFormat::BF16    ? schedule.pairRows
                                        : schedule.floatRows;
}

int64_t Product::panelsAtOnce() const {
  const KernelSchedule &schedule = k.target.schedule;
  return format == RowFormat::Int8      ? 1
         : format == RowFormat::Int8Row ? schedule.wholePanels
                                        : schedule.floatPanels;
}

void Product::forEachChunk(int64_t outputTiles,
                           const std::function<void(const Chunk &)> &body) {
  forEachChunk(k, outputTiles,
               productRowsPerTile(layout, /*inTiles=*/false, k.target), body);
}

void Product::forEachChunk(KernelBuilder &k, int64_t outputTiles,
                           int64_t rowsPerTile,
                           const std::function<void(const Chunk &)> &body) {
  Value rows = k.rowCount();
  Value runs = k.div(k.add(rows, rowsPerTile - 1), rowsPerTile);
  Value most = k.div(k.add(rows, k.sub(runs, k.cst(1))), runs);
  most =
      k.mul(k.div(k.add(most, kProductRowsMultiple - 1), kProductRowsMultiple),
            kProductRowsMultiple);
  Value tiles = k.cst(outputTiles);
  Value last = k.div(k.add(k.end, outputTiles - 1), outputTiles);
  k.loop(k.div(k.begin, outputTiles), last, 1, [&](Value chunk) {
    Value base = k.mul(chunk, outputTiles), row = k.mul(chunk, most);
    body({k.sub(k.max(k.begin, base), base), k.min(k.sub(k.end, base), tiles),
          row, k.min(k.add(row, most), rows)});
  });
}

void Product::forEachRun(const Chunk &chunk,
                         const std::function<void(const Run &)> &body) {
  Value all = k.sub(chunk.lastRow, chunk.firstRow), from = chunk.firstRow;
  const int64_t fewest = isUnpacked ? std::min(kTileRows, rowsAtOnce()) : 1;
  for (int64_t rows = rowsAtOnce(); rows >= fewest; rows /= 2) {
    // Of what is left, half a block or less is for the next smaller ones,
    // unless there are none, or a matrix unit takes a few rows sooner than
    // they do.
    const bool isLastTile = usesTiles(k.target, valueFormat(), rows) &&
                            !usesTiles(k.target, valueFormat(), rows / 2);
    const int64_t fewer = isLastTile || rows / 2 < fewest ? 0 : rows / 2;
    Value left = k.sub(chunk.lastRow, from);
    Value count = k.div(k.max(k.add(left, rows - 1 - fewer), k.cst(0)), rows);
    // None if all are fewer than a block.
    count = k.min(count, k.mul(k.div(all, rows), rows));
    body({from, chunk.lastRow, count, rows});
    from = k.min(k.add(from, k.mul(count, rows)), chunk.lastRow);
  }
}

Product::Block Product::blockOf(const Chunk &chunk, const Run &run,
                                Value index) {
  Value row = k.min(k.add(run.first, k.mul(index, run.rows)),
                    k.sub(run.last, k.cst(run.rows)));
  return {row, run.rows, k.div(k.sub(row, chunk.firstRow), run.rows)};
}

void Product::forEachBlock(const Chunk &chunk,
                           const std::function<void(const Block &)> &body) {
  forEachRun(chunk, [&](const Run &run) {
    k.loop(k.cst(0), run.count, 1,
           [&](Value index) { body(blockOf(chunk, run, index)); });
  });
}

Product::Values Product::rowsOf(const Block &block, Value x) {
  Values rows;
  for (int64_t r = 0; r < block.rows; ++r)
    rows.push_back(k.ptr(x, k.mul(k.add(block.firstRow, r), rowBytes())));
  return rows;
}

PackedLayout Product::unpackedLayout() const {
  return layout.oneScale ? layout.inBytes() : layout;
}

int64_t Product::unpackedBytes() const {
  const PackedLayout own = unpackedLayout();
  return own.valuesOffset() + layout.groups() * 2 * layout.valueBytes();
}

void Product::unpack(Value panel, Value to) {
  constexpr int64_t kAheadBytes = 4096;
  const PackedLayout own = unpackedLayout();
  k.loop(k.cst(0), k.cst(own.valuesOffset()), kLine, [&](Value at) {
    k.store(k.load(k.vec(kLanes, k.i32()), k.ptr(panel, at)), k.ptr(to, at));
  });
  k.loop(k.cst(0), k.cst(layout.groups()), 1, [&](Value group) {
    Value from = valuesOf(panel, group);
    k.prefetch(k.ptr(from, kAheadBytes), layout.valueBytes());
    emitUnpack(k, layout, from,
               layout.oneScale ? factorsOf(panel, group) : Value(),
               k.ptr(k.ptr(to, k.mul(group, 2 * layout.valueBytes())),
                     own.valuesOffset()));
  });
}

void Product::withPanels(const Chunk &chunk, const Values &firsts,
                         int64_t count, const WithPanels &body) {
  const int64_t runBytes = count * unpackedBytes();
  const int64_t bytes = int64_t(firsts.size()) * runBytes;
  const bool isWorthIt =
      layout.oneScale
          ? !takesTiles(layout, k.target) && !prefersNibbles(k.target)
          : usesTiles(k.target, PackedFormat::Int8, kTileRows);
  if (layout.format != PackedFormat::Int4 || !isWorthIt ||
      bytes > kMostCopyBytes)
    return body(*this, firsts, layout.panelBytes());
  Value rows = k.sub(chunk.lastRow, chunk.firstRow);
  k.ifElse(
      k.lessThan(rows, k.cst(kTileRows)),
      [&] { body(*this, firsts, layout.panelBytes()); },
      [&] {
        Product product(k, unpackedLayout(), /*isUnpacked=*/true);
        Value copies = k.stackBuffer(bytes);
        Values unpacked;
        for (auto [i, first] : llvm::enumerate(firsts)) {
          Value copy = k.ptr(copies, int64_t(i) * runBytes);
          k.loop(k.cst(0), k.cst(count), 1, [&](Value p) {
            unpack(k.ptr(first, k.mul(p, layout.panelBytes())),
                   k.ptr(copy, k.mul(p, unpackedBytes())));
          });
          unpacked.push_back(copy);
        }
        body(product, unpacked, unpackedBytes());
      });
}

void Product::multiply(const Chunk &chunk, Value x, const Values &panels,
                       int64_t ahead, const Finish &finish,
                       const Fetch &fetch) {
  withPanels(chunk, panels, 1,
             [&](Product &product, const Values &own, int64_t) {
               product.multiplyPanels(chunk, x, own, ahead, finish, fetch);
             });
}

void Product::multiplyPanels(const Chunk &chunk, Value x, const Values &panels,
                             int64_t ahead, const Finish &finish,
                             const Fetch &fetch) {
  forEachRun(chunk, [&](const Run &run) {
    k.loop(k.cst(0), run.count, 1, [&](Value index) {
      Block block = blockOf(chunk, run, index);
      for (int64_t r = 0; fetch && r < run.rows; ++r)
        fetch(k.add(block.firstRow, r));
      Values all = sums(panels, rowsOf(block, x), ahead, &block);
      for (int64_t r = 0; r < run.rows; ++r) {
        Values own;
        for (size_t p = 0; p < panels.size(); ++p)
          own.push_back(all[p * size_t(run.rows) + size_t(r)]);
        finish(k.add(block.firstRow, r), own);
      }
    });
  });
}

Product::Values Product::sums(const Values &panels, const Values &rows,
                              int64_t ahead, const Block *block) {
  if (format == RowFormat::Int8 &&
      usesTiles(k.target, valueFormat(), int64_t(rows.size())))
    return sumGroupsInTiles(panels.front(), rows, ahead, block);
  switch (layout.format) {
  case PackedFormat::Int8:
    return layout.oneScale ? sumInt8Rows(panels, rows, ahead)
                           : sumInt8(panels, rows, ahead);
  case PackedFormat::F32:
  case PackedFormat::F16:
  case PackedFormat::BF16:
    return sumFloats(panels, rows, ahead, block);
  default:
    return layout.oneScale ? sumInt4Rows(panels, rows, ahead)
                           : sumGroups(panels, rows, ahead);
  }
}

/// With one row memory sets the pace, and a panel is too short a stream for the
/// hardware to run ahead of: beside `bytes` of each panel, from `offset` on, as
/// much is fetched of what is read next. A panel that is read alone is one
/// stream with those behind it: that is further on. Of panels side by side it
/// is the same place of those behind them, unless that is too far.
void Product::prefetchNext(const Values &panels, Value offset, int64_t bytes,
                           int64_t ahead, size_t rows) {
  if (rows > 1 || isUnpacked)
    return;
  const KernelSchedule &schedule = k.target.schedule;
  int64_t distance = ahead * layout.panelBytes();
  if (ahead == 1 || distance > schedule.prefetchFarthest)
    distance = schedule.prefetchNear;
  for (Value panel : panels)
    k.prefetch(k.ptr(k.ptr(panel, offset), distance), bytes);
}

/// The same beside one of the `parts` that each group of the weight is
/// multiplied in, which `index` counts through all groups.
void Product::prefetchGroup(const Values &panels, Value index, int64_t parts,
                            int64_t ahead, size_t rows) {
  if (ahead == 1) { // Values and factors are one stream too.
    const int64_t bytes = layout.panelBytes() / layout.groups() / parts;
    return prefetchNext(panels, k.mul(index, bytes), bytes, ahead, rows);
  }
  const int64_t bytes = layout.valueBytes() / parts;
  for (Value panel : panels)
    prefetchNext({valuesOf(panel, k.cst(0))}, k.mul(index, bytes), bytes, ahead,
                 rows);
  if (parts == 1)
    prefetchFactors(panels, index, ahead, rows);
}

/// The same of a group's factors alone, where they are no part of the stream.
void Product::prefetchFactors(const Values &panels, Value group, int64_t ahead,
                              size_t rows) {
  if (ahead == 1)
    return;
  for (Value panel : panels) {
    prefetchNext({factorsOf(panel, group)}, k.cst(0), layout.factorBytes(),
                 ahead, rows);
    if (hasSuperBlocks(layout.format))
      prefetchNext({superFactorsOf(panel, group)}, k.cst(0),
                   layout.superBytes(), ahead, rows);
  }
}

/// Many rows outrun what the hardware fetches: each of the first four blocks
/// fetches a quarter of the panels that come next. (Others touch what they have
/// just read: nothing is fetched, and nothing branches.)
///
/// \param at where a step begins in a panel, \p bytes long.
void Product::prefetchShare(const Values &panels, Value at, int64_t bytes,
                            int64_t ahead, const Block *block) {
  if (!block || block->rows == 1 || isUnpacked)
    return;
  const int64_t shares = std::min<int64_t>(bytes / kLine, 4);
  Value share = k.add(k.mul(block->index, layout.panelBytes() / shares),
                      ahead * layout.panelBytes());
  Value begin = arith::SelectOp::create(
      k.b, k.loc, k.lessThan(block->index, k.cst(shares)), share, k.cst(0));
  for (Value panel : panels)
    k.prefetch(k.ptr(k.ptr(panel, begin), k.div(at, shares)), bytes / shares);
}

namespace {
/// Products of pairs of bf16 where rows are f32, and few registers hold what
/// both halves need: all rows take the second of each pair, then all take the
/// first.
class HalvesInTurn {
public:
  using Values = KernelBuilder::Values;

  explicit HalvesInTurn(KernelBuilder &k)
      : k(k), upper(repeated(k.cst(k.vec(kLanes / 2, k.i32()), -65536))) {}

  /// Adds to sums[panel * rows + row] the products of one half of the pairs.
  ///
  /// \param columns a vector of pairs for each panel.
  /// \param rows    a pointer to the pair that they are multiplied with.
  void multiplyAdd(bool second, const Values &columns, const Values &rows,
                   Values &sums) {
    Values factors;
    for (Value column : columns)
      factors.push_back(halfOf(column, second));
    for (auto [r, row] : llvm::enumerate(rows)) {
      Value half =
          k.inOrder(k.splat(k.load(k.f32(), row, second ? 4 : 0), kLanes / 2));
      Value x = k.concat(half, half);
      for (auto [p, factor] : llvm::enumerate(factors)) {
        Value &sum = sums[p * rows.size() + r];
        sum = k.inOrder(k.fma(x, factor, sum));
      }
      // (Its register is not to become that of a sum, which would not find back
      // to its own at the end of the loop.)
      k.inOrder(half);
    }
  }

private:
  KernelBuilder &k;
  Value upper; ///< the bits of the second of a pair

  /// (Hidden from LLVM: it would blend with zeros, in the units that multiply.)
  Value repeated(Value half) {
    Value hidden = k.inOrder(half);
    return k.concat(hidden, hidden);
  }
  Value halfOf(Value pairs, bool second) {
    if (!second)
      return k.fromBF16(pairs);
    return k.bitcast(k.vec(kLanes, k.f32()),
                     arith::AndIOp::create(k.b, k.loc, pairs, upper));
  }
};
} // namespace

Product::Values Product::sumFloats(const Values &w, const Values &xs,
                                   int64_t ahead, const Block *block) {
  // Of activations a value at a time, or a pair of bf16.
  const bool pairs = format == RowFormat::BF16;
  const bool wide = pairs && k.target.widensRows();
  const int64_t stepBytes = wide ? 8 : 4;
  const bool half = layout.format == PackedFormat::F16;
  const int64_t count = pairs ? layout.inputs / 2 : layout.inputs;
  const int64_t unroll = count % 4 == 0 ? 4 : 1;
  const int64_t vectorBytes = kLanes * (half ? 2 : 4);
  Type element = pairs ? k.i32() : k.f32();
  auto loadColumn = [&](Value at, int64_t offset) -> Value {
    if (!half)
      return k.load(k.vec(kLanes, element), at, offset);
    return arith::ExtFOp::create(k.b, k.loc, k.vec(kLanes, k.f32()),
                                 k.load(k.vec(kLanes, k.f16()), at, offset));
  };
  std::optional<HalvesInTurn> halves;
  if (wide && xs.size() > 1 && k.target.hasFewRegisters())
    halves.emplace(k);
  const Values zeros(w.size() * xs.size(), k.zeros(kLanes));
  auto sumPart = [&](Value from, Value to) {
    return k.loop(from, to, unroll, zeros, [&](Value i, ValueRange state) {
      Values acc(state);
      prefetchShare(w, k.mul(i, vectorBytes), unroll * vectorBytes, ahead,
                    block);
      prefetchNext(w, k.mul(i, vectorBytes), unroll * vectorBytes, ahead,
                   xs.size());
      // (An index that LLVM does not know to be the same: it would keep what
      // was loaded of the rows.)
      Value again = halves ? k.inOrder(i) : Value();
      for (int64_t u = 0; u < unroll; ++u) {
        if (halves) {
          for (bool second : {true, false}) {
            Value at = second ? i : again;
            Values columns, values;
            for (Value panel : w)
              columns.push_back(loadColumn(k.ptr(panel, k.mul(at, vectorBytes)),
                                           u * vectorBytes));
            for (Value row : xs)
              values.push_back(
                  k.ptr(k.ptr(row, k.mul(at, stepBytes)), stepBytes * u));
            halves->multiplyAdd(second, columns, values, acc);
          }
          continue;
        }
        Values columns;
        for (Value panel : w) {
          Value at = k.ptr(panel, k.mul(i, vectorBytes));
          columns.push_back(loadColumn(at, u * vectorBytes));
        }
        for (auto [r, row] : llvm::enumerate(xs)) {
          Value at = k.ptr(row, k.mul(i, stepBytes));
          auto entry = [&](Type type, int64_t offset) {
            return k.splat(k.load(type, at, stepBytes * u + offset), kLanes);
          };
          Value first = entry(wide ? k.f32() : element, 0);
          Value second = wide ? entry(k.f32(), 4) : Value();
          for (auto [p, column] : llvm::enumerate(columns)) {
            Value &sum = acc[p * xs.size() + r];
            sum = wide    ? emitPairDot(k, first, second, column, sum)
                  : pairs ? emitPairDot(k, first, column, sum)
                          : k.fma(first, column, sum);
          }
        }
      }
      return acc;
    });
  };
  if (count <= kStepsPerPart)
    return sumPart(k.cst(0), k.cst(count));
  // The error of a sum grows with its length: long ones are sums of parts.
  auto addPart = [&](ValueRange totals, Value from, Value to) {
    Values sums = sumPart(from, to);
    for (auto [sum, total] : llvm::zip_equal(sums, totals))
      sum = k.fadd(total, sum);
    return sums;
  };
  const int64_t whole = count / kStepsPerPart * kStepsPerPart;
  Values totals =
      k.loop(k.cst(0), k.cst(whole), kStepsPerPart, zeros,
             [&](Value from, ValueRange sofar) {
               return addPart(sofar, from, k.add(from, kStepsPerPart));
             });
  return whole == count ? totals : addPart(totals, k.cst(whole), k.cst(count));
}

/// One row takes several panels: too many unpacked weights at once to unroll.
bool Product::unrolls(size_t rows) const {
  return k.target.schedule.unrollGroups && rows > 1;
}

Product::Values
Product::overParts(int64_t parts, bool unroll, Values state,
                   const std::function<Values(Value, Values)> &body) {
  if (!unroll)
    return k.loop(
        k.cst(0), k.cst(parts), 1, state,
        [&](Value part, ValueRange in) { return body(part, Values(in)); });
  for (int64_t part = 0; part < parts; ++part)
    state = body(k.cst(part), state);
  return state;
}

Value Product::splatEntry(Value row, Value index, int64_t offset) {
  Value at = k.ptr(row, k.mul(index, 4));
  return k.splat(k.load(k.f32(), at, offset), kLanes);
}

Value Product::valuesOf(Value panel, Value group) {
  const int64_t bytes = layout.valueBytes() * (isUnpacked ? 2 : 1);
  return k.ptr(k.ptr(panel, k.mul(group, bytes)), layout.valuesOffset());
}

Value Product::factorsOf(Value panel, Value group) {
  return k.ptr(k.ptr(panel, k.mul(group, layout.factorBytes())),
               layout.factorsOffset());
}

/// A group's sum is exact; then it is scaled and added to the total.
Product::Values Product::sumInt8(const Values &w, const Values &xs,
                                 int64_t ahead) {
  const QRowsLayout qrows{layout.inputs};
  const bool unroll = unrolls(xs.size());
  const int64_t inputs = unroll ? layout.group() : PackedLayout::kInt4Group;
  const int64_t parts = layout.group() / inputs;
  auto addGroup = [&](Value group, ValueRange totals) {
    if (parts > 1)
      prefetchFactors(w, group, ahead, xs.size());
    Values blocks, sums, out;
    for (Value panel : w) {
      blocks.push_back(valuesOf(panel, group));
      for (Value row : xs)
        sums.push_back(emitDotStart(k, layout, xs.size(), [&] {
          return k.load(k.i32(), k.ptr(row, k.mul(group, 4)),
                        qrows.correctionOffset());
        }));
    }
    sums = overParts(parts, unroll, sums, [&](Value part, Values in) {
      Values values, added;
      Value index = k.add(k.mul(group, parts), part);
      prefetchGroup(w, index, parts, ahead, xs.size());
      for (Value row : xs)
        values.push_back(k.ptr(row, k.mul(index, inputs)));
      for (auto [p, first] : llvm::enumerate(blocks)) {
        const int64_t bytes = PackedLayout::kPanel * inputs;
        Value block = k.ptr(first, k.mul(part, bytes));
        auto own = llvm::ArrayRef(in).slice(p * xs.size(), xs.size());
        added.append(
            emitGroupDot(k, layout, inputs, {block}, values, Values(own)));
      }
      return added;
    });
    for (auto [p, panel] : llvm::enumerate(w)) {
      Value factor = loadFactors(panel, group).scale;
      for (auto [r, row] : llvm::enumerate(xs)) {
        const size_t i = p * xs.size() + r;
        out.push_back(k.fma(k.fmul(toFloat(sums[i]), factor),
                            splatEntry(row, group, qrows.scaleOffset()),
                            totals[i]));
      }
    }
    return out;
  };
  return k.loop(k.cst(0), k.cst(qrows.groups()), 1,
                Values(w.size() * xs.size(), k.zeros(kLanes)), addGroup);
}

/// The whole sum is exact, and scaled once.
Product::Values Product::sumInt8Rows(const Values &w, const Values &xs,
                                     int64_t ahead) {
  const QRowsLayout qrows{layout.inputs, /*whole=*/true};
  Values starts, sums, values;
  for (Value panel : w)
    values.push_back(valuesOf(panel, k.cst(0)));
  for (Value row : xs)
    starts.push_back(emitDotStart(k, layout, xs.size(), [&] {
      return k.load(k.i32(), row, qrows.correctionOffset());
    }));
  for (size_t p = 0; p < w.size(); ++p)
    sums.append(starts);
  sums = emitLongDot(
      k, layout, layout.inputs, values, xs, sums, [&](Value at, int64_t count) {
        prefetchNext(values, k.mul(at, PackedLayout::kPanel),
                     PackedLayout::kPanel * count, ahead, xs.size());
      });
  return scaled(w, xs, sums);
}

Product::Values Product::scaled(const Values &w, const Values &xs,
                                Values sums) {
  const QRowsLayout qrows{layout.inputs, /*whole=*/true};
  for (size_t p = 0; p < w.size(); ++p) {
    Value factor = k.load(k.vec(kLanes, k.f32()), w[p]);
    for (size_t r = 0; r < xs.size(); ++r) {
      Value &sum = sums[p * xs.size() + r];
      sum = k.fmul(k.fmul(toFloat(sum), factor),
                   splatEntry(xs[r], k.cst(0), qrows.scaleOffset()));
    }
  }
  return sums;
}

/// As sumInt8Rows with the integers that nibbles stand for, and as exact.
Product::Values Product::sumInt4Rows(const Values &w, const Values &xs,
                                     int64_t ahead) {
  if (w.size() > 1 && xs.size() > 1) {
    // The sums of one panel fill the registers.
    Values all;
    for (Value panel : w)
      all.append(sumInt4Rows({panel}, xs, ahead));
    return all;
  }
  const QRowsLayout qrows{layout.inputs, /*whole=*/true};
  const VectorType ints = k.vec(kLanes, k.i32());
  // Few registers: what sums start from is added when products let go of them.
  const bool isLate = xs.size() > 1 && k.target.hasFewRegisters();
  Values sums = k.loop(
      k.cst(0), k.cst(layout.groups()), 1,
      Values(w.size() * xs.size(), k.cst(ints, 0)),
      [&](Value group, ValueRange totals) {
        prefetchGroup(w, group, /*parts=*/1, ahead, xs.size());
        Values inputs, starts, next;
        auto sumOf = [&](Value row) {
          Value sum =
              k.load(k.i16(), k.ptr(row, k.mul(group, qrows.sumBytes())),
                     qrows.sumsOffset());
          return k.bitcast(ints, k.splat(sum, 2 * kLanes));
        };
        for (Value row : xs) {
          inputs.push_back(k.ptr(row, k.mul(group, layout.group())));
          starts.push_back(isLate ? k.cst(ints, 0)
                                  : emitSteppedStart(k, sumOf(row)));
        }
        for (auto [p, panel] : llvm::enumerate(w)) {
          Value block = valuesOf(panel, group), own = factorsOf(panel, group);
          Values dots =
              emitGroupDot(k, layout, layout.group(), {block}, inputs, starts);
          Value factors = emitSteppedFactors(k, own);
          for (auto [r, dot] : llvm::enumerate(dots)) {
            Value sum = sumOf(xs[r]), total = totals[p * xs.size() + r];
            if (isLate)
              dot = k.add(dot, emitSteppedStart(k, sum));
            next.push_back(
                k.inOrder(emitSteppedSum(k, dot, sum, factors, total)));
          }
        }
        return next;
      });
  return scaled(w, xs, sums);
}

Value Product::startOf(Value row, Value group, size_t rows) {
  const QRowsLayout qrows{layout.inputs};
  const int64_t sumsOfGroup = layout.group() / QRowsLayout::kShortSum;
  VectorType ints = k.vec(kLanes, k.i32());
  Value sums = k.ptr(row, k.mul(group, 2 * sumsOfGroup));
  if (!hasNibbles(layout.format))
    return emitDotStart(k, layout, rows, [&]() -> Value {
      Value total;
      for (int64_t i = 0; i < sumsOfGroup; ++i) {
        Value sum = arith::ExtSIOp::create(
            k.b, k.loc, k.i32(),
            k.load(k.i16(), sums, qrows.shortSumsOffset() + 2 * i));
        total = total ? k.add(total, sum) : sum;
      }
      return arith::MulIOp::create(k.b, k.loc, total, k.cst(k.i32(), -128));
    });
  if (layout.zero() == 0)
    return k.cst(ints, 0);
  const int64_t factor = -layout.zero() & 0xffff;
  if (sumsOfGroup == 1) {
    Value sum = k.load(k.i16(), sums, qrows.shortSumsOffset());
    return emitWordDot(k, k.bitcast(ints, k.splat(sum, 2 * kLanes)),
                       k.cst(ints, factor), k.cst(ints, 0));
  }
  Value pair = k.load(k.i32(), sums, qrows.shortSumsOffset());
  return emitWordDot(k, k.splat(pair, kLanes),
                     k.cst(ints, factor << 16 | factor), k.cst(ints, 0));
}

/// A group of a row meets one, two or four of the weight, each with a scale of
/// its own, and with an offset or a zero of its integers.
Product::Values Product::sumGroups(const Values &w, const Values &xs,
                                   int64_t ahead) {
  const QRowsLayout qrows{layout.inputs};
  const bool unroll = unrolls(xs.size());
  const int64_t parts = qrows.group() / layout.group();
  const size_t count = w.size() * xs.size();
  const bool hasOffsets = layout.hasOffsets();
  // Few registers: offsets are added when products let go of them.
  const bool isLate = unroll && k.target.hasFewRegisters();
  auto addGroup = [&](Value group, ValueRange before) {
    auto indexOf = [&](Value part) { return k.add(k.mul(group, parts), part); };
    auto sumOf = [&](Value row, Value index) {
      return splatEntry(row, index, qrows.sumsOffset());
    };
    // The group's scaled sums, and the totals that offsets are added to.
    Values state(count, unroll ? Value() : k.zeros(kLanes)), out;
    state.append(before.begin(), before.end());
    state = overParts(parts, unroll, state, [&](Value part, Values next) {
      Values inputs, rowSums, starts;
      Value index = indexOf(part);
      prefetchGroup(w, index, /*parts=*/1, ahead, xs.size());
      for (Value row : xs) {
        inputs.push_back(k.ptr(row, k.mul(index, layout.group())));
        rowSums.push_back(isLate || !hasOffsets ? Value() : sumOf(row, index));
        starts.push_back(isLate ? k.cst(k.vec(kLanes, k.i32()), 0)
                                : startOf(row, index, xs.size()));
      }
      for (auto [p, panel] : llvm::enumerate(w)) {
        Value block = valuesOf(panel, index);
        Values dots =
            emitGroupDot(k, layout, layout.group(), {block}, inputs, starts);
        GroupFactors factors = loadFactors(panel, index);
        for (auto [r, dot] : llvm::enumerate(dots)) {
          if (isLate && !hasOffsets)
            dot = k.add(dot, startOf(xs[r], index, xs.size()));
          Value &scaled = next[p * xs.size() + r];
          Value &total = next[count + p * xs.size() + r];
          // (A zero of the other sign does not reach the total.)
          scaled = scaled ? k.fma(toFloat(dot), factors.scale, scaled)
                          : k.fmul(toFloat(dot), factors.scale);
          if (isLate)
            scaled = k.inOrder(scaled);
          else if (hasOffsets)
            total = k.fma(factors.offset, rowSums[r], total);
        }
      }
      return next;
    });
    auto totals = llvm::MutableArrayRef(state).drop_front(count);
    for (int64_t part = 0; isLate && hasOffsets && part < parts; ++part)
      for (auto [p, panel] : llvm::enumerate(w)) {
        Value index = indexOf(k.cst(part));
        Value offset = loadFactors(panel, index).offset;
        for (auto [r, row] : llvm::enumerate(xs)) {
          Value &total = totals[p * xs.size() + r];
          total = k.fma(offset, sumOf(row, index), total);
        }
      }
    for (size_t i = 0; i < count; ++i) {
      Value scale = splatEntry(xs[i % xs.size()], group, qrows.scaleOffset());
      Value total = k.fma(state[i], scale, totals[i]);
      out.push_back(isLate ? k.inOrder(total) : total);
    }
    return out;
  };
  return k.loop(k.cst(0), k.cst(qrows.groups()), 1,
                Values(count, k.zeros(kLanes)), addGroup);
}

/// Sums of a group come back through memory: while those of one are scaled,
/// those of the next one are on their way.
Product::Values Product::sumGroupsInTiles(Value panel, const Values &xs,
                                          int64_t ahead, const Block *block) {
  const QRowsLayout qrows{layout.inputs};
  const int64_t parts = qrows.group() / layout.group();
  const int64_t partBytes = int64_t(xs.size()) * kLanes * 4;
  Value buffers = k.stackBuffer(2 * parts * partBytes);
  auto bufferOf = [&](Value group) {
    return k.ptr(buffers, k.mul(k.rem(group, 2), parts * partBytes));
  };
  auto indexOf = [&](Value group, int64_t part) {
    return k.add(k.mul(group, parts), part);
  };
  auto multiply = [&](Value group) {
    for (int64_t part = 0; part < parts; ++part) {
      Value index = indexOf(group, part);
      Values inputs;
      for (Value row : xs)
        inputs.push_back(k.ptr(row, k.mul(index, layout.group())));
      emitLongTiles(k, layout.group(), {valuesOf(panel, index)}, inputs,
                    k.ptr(bufferOf(group), part * partBytes),
                    [](Value, int64_t) {});
    }
  };
  const bool offsets = layout.hasOffsets();
  multiply(k.cst(0));
  return k.loop(
      k.cst(0), k.cst(qrows.groups()), 1, Values(xs.size(), k.zeros(kLanes)),
      [&](Value group, ValueRange totals) {
        // (The last one comes twice.)
        multiply(k.min(k.add(group, 1), k.cst(qrows.groups() - 1)));
        prefetchShare({panel}, k.mul(group, layout.valueBytes()),
                      layout.valueBytes(), ahead, block);
        Value buffer = bufferOf(group);
        llvm::SmallVector<GroupFactors> factors;
        for (int64_t part = 0; part < parts; ++part)
          factors.push_back(loadFactors(panel, indexOf(group, part)));
        Values next;
        for (auto [r, row] : llvm::enumerate(xs)) {
          Value total = totals[r], scaled;
          for (int64_t part = 0; part < parts; ++part) {
            const GroupFactors &own = factors[size_t(part)];
            Value sum =
                toFloat(k.load(k.vec(kLanes, k.i32()), buffer,
                               part * partBytes + int64_t(r) * kLanes * 4));
            scaled =
                scaled ? k.fma(sum, own.scale, scaled) : k.fmul(sum, own.scale);
            if (offsets)
              total = k.fma(
                  own.offset,
                  splatEntry(row, indexOf(group, part), qrows.sumsOffset()),
                  total);
          }
          next.push_back(k.fma(
              scaled, splatEntry(row, group, qrows.scaleOffset()), total));
        }
        return next;
      });
}

Value Product::toFloat(Value integers) {
  return arith::SIToFPOp::create(k.b, k.loc, k.vec(kLanes, k.f32()), integers);
}

Value Product::superFactorsOf(Value panel, Value group) {
  Value block = k.div(group, kSuperBlock / layout.group());
  return k.ptr(panel, k.mul(block, layout.superBytes()));
}

Product::GroupFactors Product::loadFactors(Value panel, Value group) {
  VectorType floats = k.vec(kLanes, k.f32()), ints = k.vec(kLanes, k.i32()),
             bytes = k.vec(kLanes, k.i8());
  Value at = factorsOf(panel, group);
  auto loadHalves = [&](Value from, int64_t offset) -> Value {
    return arith::ExtFOp::create(k.b, k.loc, floats,
                                 k.load(k.vec(kLanes, k.f16()), from, offset));
  };
  auto loadSigned = [&](int64_t offset) {
    return toFloat(
        arith::ExtSIOp::create(k.b, k.loc, ints, k.load(bytes, at, offset)));
  };
  auto loadUnsigned = [&] {
    return toFloat(arith::ExtUIOp::create(k.b, k.loc, ints, k.load(bytes, at)));
  };
  switch (layout.format) {
  case PackedFormat::Int4:
    return {k.fmul(loadUnsigned(), k.load(floats, panel)),
            k.fmul(loadSigned(kLanes), k.load(floats, panel, kLanes * 4))};
  case PackedFormat::Q4_K:
  case PackedFormat::Q5_K: {
    Value super = superFactorsOf(panel, group);
    return {k.fmul(loadUnsigned(), loadHalves(super, 0)),
            k.fmul(loadSigned(kLanes), loadHalves(super, kLanes * 2))};
  }
  case PackedFormat::Q6_K:
    return {k.fmul(loadSigned(0), loadHalves(superFactorsOf(panel, group), 0)),
            nullptr};
  case PackedFormat::Q4_1:
  case PackedFormat::Q5_1:
    return {loadHalves(at, 0), loadHalves(at, kLanes * 2)};
  default:
    return {layout.oneScale ? k.load(floats, panel) : loadHalves(at, 0),
            nullptr};
  }
}
