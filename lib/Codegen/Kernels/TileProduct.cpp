//===- TileProduct.cpp - products in a matrix unit ------------------------===//
#include "TileProduct.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace isthmus;

/// Sums of a row with a pair of panels.
static constexpr int64_t kPairBytes = 2 * kLanes * 4;
/// Rows of the largest block.
static constexpr int64_t kMostRows = 2 * kTileRows;
/// Rows of a chunk, and as many more as have two places where blocks meet.
static constexpr int64_t kRowsOfPair = kMostProductRows + kMostRows;
/// Pairs of panels that pass by before the next inputs of the rows do.
static constexpr int64_t kPairsOfGroup = 8;

/// What passes by together.
struct TileProduct::Group {
  const Product::Chunk &chunk;
  Value x, from, to; ///< pairs [from, to)
  Value sums;        ///< [pair][block][2][row][16]; of a block if not in shares
  Value copies;      ///< of a pair's inputs
  const PairOf &pairOf;
  const Finish &finish;
};

/// A block whose sums are there.
struct TileProduct::Summed {
  Value pair, firstRow, rows;
  Value x;                ///< the step's first row
  Value sums, panelBytes; ///< [2][row][16], so many bytes with a panel
};

static RowFormat rowsFor(const PackedLayout &weight) {
  return weight.oneScale ? rowFormatFor(weight) : tileRowsFor(weight);
}

TileProduct::TileProduct(KernelBuilder &k, const PackedLayout &weight,
                         int64_t ahead, bool fewRows)
    : k(k), layout(weight), product(k, weight), parts(partsOf(weight.format)),
      aheadBytes(ahead * weight.panelBytes()),
      rowBytes(isthmus::rowBytes(rowsFor(weight), weight.inputs)),
      inputsAtOnce(parts ? tileInputsAtOnce(weight) : weight.inputs) {
  if (fewRows)
    few = arith::TruncIOp::create(k.b, k.loc, k.i16(), k.rowCount());
}

void TileProduct::forEachChunk(
    int64_t outputTiles,
    const std::function<void(const Product::Chunk &)> &body) {
  Product::forEachChunk(
      k, outputTiles,
      productRowsPerTile(layout, /*inTiles=*/parts > 0, k.target), body);
}

/// Inputs come in shares whose rows stay in a cache while the pairs of a group
/// pass by; sums wait in memory. (They are added in the same order as without.)
void TileProduct::forEachShare(
    const std::function<void(Value, int64_t, bool, bool)> &body) {
  if (!inShares())
    return body(k.cst(0), layout.inputs, true, true);
  const int64_t last = (layout.inputs - 1) / inputsAtOnce * inputsAtOnce;
  body(k.cst(0), inputsAtOnce, true, false);
  if (last > inputsAtOnce)
    k.loop(k.cst(inputsAtOnce), k.cst(last), inputsAtOnce,
           [&](Value begin) { body(begin, inputsAtOnce, false, false); });
  body(k.cst(last), layout.inputs - last, false, true);
}

void TileProduct::multiply(const Product::Chunk &chunk, Value x, Value pairs,
                           const PairOf &pairOf, const Finish &finish) {
  if (few)
    return multiplyFew(x, pairs, pairOf, finish);
  Value sums =
      k.stackBuffer(inShares() ? kPairsOfGroup * kRowsOfPair * kPairBytes
                               : kMostRows * kPairBytes);
  Value copies = copiesBuffer();
  auto multiplyPairs = [&](Value from, Value to) {
    const Group group{chunk, x, from, to, sums, copies, pairOf, finish};
    forEachShare([&](Value begin, int64_t count, bool isFirst, bool isLast) {
      multiplyShare(group, begin, count, isFirst, isLast);
    });
  };
  if (!inShares())
    return multiplyPairs(k.cst(0), pairs);
  k.loop(k.cst(0), pairs, kPairsOfGroup, [&](Value from) {
    multiplyPairs(from, k.min(k.add(from, kPairsOfGroup), pairs));
  });
}

void TileProduct::multiplyFew(Value x, Value pairs, const PairOf &pairOf,
                              const Finish &finish) {
  Value sums = k.stackBuffer(kTileRows * kPairBytes);
  Value copies = copiesBuffer();
  k.loop(k.cst(0), pairs, 1, [&](Value pair) {
    Values panels = pairOf(pair);
    forEachShare([&](Value begin, int64_t count, bool isFirst, bool) {
      Values own = inParts({panels, begin, copies}, count);
      Value rows = k.ptr(x, k.mul(begin, valueBytes()));
      emitTiles(k, {rows, parts, rowBytes, kTileRows, few}, own, count, sums,
                isFirst,
                [&](Value input, int64_t) {
                  if (!splits())
                    prefetchNext(own, input);
                },
                {});
    });
    finishAll({pair, k.cst(0), k.rowCount(), x, sums,
               k.cst(kTileRows * kPairBytes / 2)},
              pairOf, finish);
  });
}

/// The rows of a block are finished between the steps of the next one: the
/// processor has little to do there, and its stores would fill their queue if
/// they came all at once. The first block of a group has none before it: some
/// of its own rows are finished twice, first with whatever the sums hold.
void TileProduct::multiplyShare(const Group &group, Value begin, int64_t count,
                                bool isFirst, bool isLast) {
  auto summed = [&](ValueRange block) -> Summed {
    return {block[0],
            block[1],
            block[2],
            group.x,
            sumsOf(group, block[0], block[3]),
            k.mul(block[2], kPairBytes / 2)};
  };
  Values before;
  if (isLast)
    before = {group.from, firstRowOf(group.chunk), k.cst(kTileRows), k.cst(0)};
  before = k.loop(
      group.from, group.to, 1, before, [&](Value pair, ValueRange state) {
        const Weights weights{group.pairOf(pair), begin, group.copies};
        const Values panels = inParts(weights, count);
        return forEachBlock(
            group.chunk, Values(state),
            [&](const Block &block, ValueRange last) -> Values {
              Value rows =
                  k.ptr(k.ptr(group.x, k.mul(block.firstRow, rowBytes)),
                        k.mul(begin, valueBytes()));
              emitTiles(
                  k, {rows, parts, rowBytes, block.rows}, panels, count,
                  sumsOf(group, pair, block.slot), isFirst,
                  [&](Value input, int64_t inputs) {
                    prefetchShare(weights, count, input, inputs, block);
                  },
                  isLast ? finishing(summed(last), group.pairOf, group.finish)
                         : Meanwhile());
              if (!isLast)
                return {};
              return {pair, block.firstRow, k.cst(block.rows), block.slot};
            });
      });
  if (isLast)
    finishAll(summed(before), group.pairOf, group.finish);
}

Value TileProduct::sumsOf(const Group &group, Value pair, Value slot) {
  if (!inShares())
    return group.sums;
  Value index = k.sub(pair, group.from);
  return k.ptr(k.ptr(group.sums, k.mul(index, kRowsOfPair * kPairBytes)),
               k.mul(slot, kPairBytes));
}

Meanwhile TileProduct::finishing(const Summed &block, const PairOf &pairOf,
                                 const Finish &finish) {
  VectorType floats = k.vec(kLanes, k.f32()), ints = k.vec(kLanes, k.i32());
  auto toFloat = [=, this](Value integers) -> Value {
    return arith::SIToFPOp::create(k.b, k.loc, floats, integers);
  };
  Values factors;
  if (!parts)
    for (Value panel : pairOf(block.pair))
      factors.push_back(k.load(floats, panel));
  const QRowsLayout qrows{layout.inputs, /*whole=*/true};
  auto finishRow = [=, this, &finish](Value row, Value at) {
    Values sums{k.load(floats, at),
                k.load(floats, k.ptr(at, block.panelBytes))};
    if (!parts) {
      Value scale =
          k.splat(k.load(k.f32(), k.ptr(block.x, k.mul(row, rowBytes)),
                         qrows.scaleOffset()),
                  kLanes);
      for (auto [sum, factor] : llvm::zip_equal(sums, factors))
        sum = k.fmul(k.fmul(toFloat(k.bitcast(ints, sum)), factor), scale);
    }
    finish(block.pair, row, sums);
  };
  return {kMostRows, [=, this](Value first, int64_t count) {
            // A block of fewer rows has its last ones again.
            Value index = k.min(first, k.sub(block.rows, k.cst(count)));
            Value row = k.add(block.firstRow, index);
            Value at = k.ptr(block.sums, k.mul(index, kPairBytes / 2));
            for (int64_t r = 0; r < count; ++r)
              finishRow(k.add(row, r), k.ptr(at, r * kPairBytes / 2));
          }};
}

void TileProduct::finishAll(const Summed &block, const PairOf &pairOf,
                            const Finish &finish) {
  const Meanwhile rows = finishing(block, pairOf, finish);
  k.loop(k.cst(0), block.rows, 1, [&](Value row) { rows.emit(row, 1); });
}

/// Blocks of one size, and then of half of it. The last may begin among rows of
/// the one before.
TileProduct::Values TileProduct::forEachBlock(const Product::Chunk &chunk,
                                              Values state,
                                              const BlockBody &body) {
  Value last = chunk.lastRow, first = firstRowOf(chunk);
  Value all = k.sub(last, first);
  // What is left of the largest blocks takes one more, if that is half full.
  Value large = k.min(k.div(k.add(all, kTileRows - 1), kMostRows),
                      k.mul(k.div(all, kMostRows), kMostProductRows));
  Value largeRows = k.mul(large, kMostRows);
  Value small = k.div(
      k.add(k.max(k.sub(all, largeRows), k.cst(0)), kTileRows - 1), kTileRows);
  auto forEach = [&](Value count, int64_t rows, Value before,
                     Value firstIndex) {
    state =
        k.loop(k.cst(0), count, 1, state, [&](Value index, ValueRange held) {
          Value slot = k.add(before, k.mul(index, rows));
          Value row = k.min(k.add(first, slot), k.sub(last, k.cst(rows)));
          return body({row, rows, slot, k.add(firstIndex, index)}, held);
        });
  };
  forEach(large, kMostRows, k.cst(0), k.cst(0));
  forEach(small, kTileRows, largeRows, large);
  return state;
}

/// A tile that the last rows of a step do not fill begins among those before.
Value TileProduct::firstRowOf(const Product::Chunk &chunk) {
  return k.max(k.min(chunk.firstRow, k.add(chunk.lastRow, -kTileRows)),
               k.cst(0));
}

/// Each of the first blocks fetches a share of what the next pair has for these
/// inputs. (Not faster: what waits for memory keeps tiles from the second-level
/// cache. And blocks after them touch what was just split: a branch would spill
/// tiles.)
void TileProduct::prefetchShare(const Weights &weights, int64_t count,
                                Value input, int64_t inputs,
                                const Block &block) {
  if (unpacks())
    return;
  constexpr int64_t kShares = 4;
  Value share =
      k.mul(k.add(k.mul(block.index, count), input), inputBytes() / kShares);
  Value next = k.add(share, aheadBytes);
  Value from = k.add(
      k.mul(weights.firstInput, inputBytes()),
      arith::SelectOp::create(
          k.b, k.loc, k.lessThan(block.index, k.cst(kShares)), next, k.cst(0)));
  for (Value panel : weights.panels)
    k.prefetch(k.ptr(panel, k.add(from, valuesOffset())),
               inputs * inputBytes() / kShares);
}

void TileProduct::prefetchNext(const Values &panels, Value input) {
  for (Value panel : panels)
    k.prefetch(k.ptr(k.ptr(panel, k.mul(input, inputBytes())), aheadBytes),
               kPartsGroup * inputBytes());
}

TileProduct::Values TileProduct::inParts(const Weights &weights,
                                         int64_t count) {
  if (splits()) {
    split(weights, count);
    return copiesOf(weights.copies);
  }
  if (unpacks()) {
    Values values;
    for (auto [panel, copy] :
         llvm::zip_equal(weights.panels, copiesOf(weights.copies))) {
      product.unpack(panel, copy);
      values.push_back(k.ptr(copy, product.unpackedLayout().valuesOffset()));
    }
    return values;
  }
  Values shares;
  Value first = k.mul(weights.firstInput, inputBytes());
  for (Value panel : weights.panels)
    shares.push_back(k.ptr(k.ptr(panel, valuesOffset()), first));
  return shares;
}

int64_t TileProduct::copyBytes() const {
  return splits()    ? tilePanelBytes(parts, inputsAtOnce)
         : unpacks() ? product.unpackedBytes()
                     : 0;
}

Value TileProduct::copiesBuffer() {
  return copyBytes() ? k.stackBuffer(2 * copyBytes()) : Value();
}

TileProduct::Values TileProduct::copiesOf(Value copies) {
  return {copies, k.ptr(copies, copyBytes())};
}

void TileProduct::split(const Weights &weights, int64_t count) {
  constexpr int64_t kInputs = 8, kAheadBytes = 4096;
  k.loop(k.cst(0), k.cst(count), kInputs, [&](Value input) {
    Value offset = k.mul(k.add(weights.firstInput, input), inputBytes());
    for (auto [panel, copy] :
         llvm::zip_equal(weights.panels, copiesOf(weights.copies))) {
      Value from = k.ptr(panel, offset);
      k.prefetch(k.ptr(from, kAheadBytes), kInputs * inputBytes());
      emitSplitInputs(k, from, input, kInputs, copy);
    }
  });
}
