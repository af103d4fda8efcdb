//===- TileProduct.cpp - products of floats in a matrix unit -------------===//
#include "TileProduct.h"

#include "MatrixUnit.h"

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

TileProduct::TileProduct(KernelBuilder &k, const PackedLayout &weight,
                         int64_t ahead, bool fewRows)
    : k(k), layout(weight), parts(partsOf(weight.format)),
      aheadBytes(ahead * weight.panelBytes()),
      rowBytes(isthmus::rowBytes(tileRowsFor(weight), weight.inputs)),
      inputsAtOnce(tileInputsAtOnce(weight)) {
  if (fewRows)
    few = arith::TruncIOp::create(k.b, k.loc, k.i16(), k.rowCount());
}

void TileProduct::forEachChunk(
    int64_t outputTiles,
    const std::function<void(const Product::Chunk &)> &body) {
  Product::forEachChunk(k, outputTiles,
                        productRowsPerTile(layout, /*inTiles=*/true, k.target),
                        body);
}

void TileProduct::multiply(const Product::Chunk &chunk, Value x, Value pairs,
                           const PairOf &pairOf, const Finish &finish) {
  if (few)
    return multiplyFew(x, pairs, pairOf, finish);
  Value sums =
      k.stackBuffer(inShares() ? kPairsOfGroup * kRowsOfPair * kPairBytes
                               : kMostRows * kPairBytes);
  Value copies = copiesBuffer();
  k.loop(k.cst(0), pairs, kPairsOfGroup, [&](Value from) {
    Value to = k.min(k.add(from, kPairsOfGroup), pairs);
    multiplyGroup({chunk, x, from, to, sums, copies, pairOf, finish});
  });
}

void TileProduct::multiplyFew(Value x, Value pairs, const PairOf &pairOf,
                              const Finish &finish) {
  Value sums = k.stackBuffer(kTileRows * kPairBytes);
  Value copies = copiesBuffer();
  k.loop(k.cst(0), pairs, 1, [&](Value pair) {
    Values panels = pairOf(pair);
    auto addInputs = [&](Value begin, Value count, bool isFirst) {
      Values own = inParts({panels, begin, copies}, count);
      Value rows = k.ptr(x, k.mul(begin, parts * 2));
      emitFloatTiles(k, {rows, parts, rowBytes, kTileRows, few}, own, count,
                     sums, isFirst, [&](Value input, int64_t) {
                       if (!splits())
                         prefetchNext(own, input);
                     });
    };
    addInputs(k.cst(0), k.cst(inputsAtOnce), true);
    if (inShares())
      k.loop(k.cst(inputsAtOnce), k.cst(layout.inputs), inputsAtOnce,
             [&](Value begin) {
               Value left = k.sub(k.cst(layout.inputs), begin);
               addInputs(begin, k.min(left, k.cst(inputsAtOnce)), false);
             });
    finishRows(pair, k.cst(0), k.rowCount(), kTileRows, sums, finish);
  });
}

/// Inputs come in shares whose rows stay in a cache while the pairs of a group
/// pass by; sums wait in memory. (They are added in the same order as without.)
void TileProduct::multiplyGroup(const Group &group) {
  if (!inShares())
    return multiplyInputs(group, k.cst(0), true, true);
  const int64_t last = (layout.inputs - 1) / inputsAtOnce * inputsAtOnce;
  multiplyInputs(group, k.cst(0), true, false);
  if (last > inputsAtOnce)
    k.loop(k.cst(inputsAtOnce), k.cst(last), inputsAtOnce,
           [&](Value begin) { multiplyInputs(group, begin, false, false); });
  multiplyInputs(group, k.cst(last), false, true);
}

void TileProduct::multiplyInputs(const Group &group, Value begin, bool isFirst,
                                 bool isLast) {
  Value count =
      isLast ? k.sub(k.cst(layout.inputs), begin) : k.cst(inputsAtOnce);
  k.loop(group.from, group.to, 1, [&](Value pair) {
    Value index = k.sub(pair, group.from);
    Value own = inShares()
                    ? k.ptr(group.sums, k.mul(index, kRowsOfPair * kPairBytes))
                    : group.sums;
    const Weights weights{group.pairOf(pair), begin, group.copies};
    const Values panels = inParts(weights, count);
    forEachBlock(group.chunk, [&](const Block &block) {
      Value at = inShares() ? k.ptr(own, k.mul(block.slot, kPairBytes)) : own;
      Value rows = k.ptr(k.ptr(group.x, k.mul(block.firstRow, rowBytes)),
                         k.mul(begin, parts * 2));
      emitFloatTiles(k, {rows, parts, rowBytes, block.rows}, panels, count, at,
                     isFirst, [&](Value input, int64_t) {
                       prefetchShare(weights, count, input, block);
                     });
      if (isLast)
        finishRows(pair, block.firstRow, k.cst(block.rows), block.rows, at,
                   group.finish);
    });
  });
}

/// Each of the first blocks fetches a share of what the next pair has for these
/// inputs. (Not faster: what waits for memory keeps tiles from the second-level
/// cache. And blocks after them touch what was just split: a branch would spill
/// tiles.)
void TileProduct::prefetchShare(const Weights &weights, Value count,
                                Value input, const Block &block) {
  constexpr int64_t kShares = 4;
  Value share =
      k.mul(k.add(k.mul(block.index, count), input), inputBytes() / kShares);
  Value next = k.add(share, aheadBytes);
  Value from = k.add(
      k.mul(weights.firstInput, inputBytes()),
      arith::SelectOp::create(
          k.b, k.loc, k.lessThan(block.index, k.cst(kShares)), next, k.cst(0)));
  for (Value panel : weights.panels)
    k.prefetch(k.ptr(panel, from), kPartsGroup * inputBytes() / kShares);
}

void TileProduct::prefetchNext(const Values &panels, Value input) {
  for (Value panel : panels)
    k.prefetch(k.ptr(k.ptr(panel, k.mul(input, inputBytes())), aheadBytes),
               kPartsGroup * inputBytes());
}

TileProduct::Values TileProduct::inParts(const Weights &weights, Value count) {
  if (splits()) {
    split(weights, count);
    return copiesOf(weights.copies);
  }
  Values shares;
  for (Value panel : weights.panels)
    shares.push_back(k.ptr(panel, k.mul(weights.firstInput, inputBytes())));
  return shares;
}

Value TileProduct::copiesBuffer() {
  return splits() ? k.stackBuffer(2 * tilePanelBytes(parts, inputsAtOnce))
                  : Value();
}

void TileProduct::split(const Weights &weights, Value count) {
  constexpr int64_t kInputs = 8, kAheadBytes = 4096;
  k.loop(k.cst(0), count, kInputs, [&](Value input) {
    Value offset = k.mul(k.add(weights.firstInput, input), inputBytes());
    for (auto [panel, copy] :
         llvm::zip_equal(weights.panels, copiesOf(weights.copies))) {
      Value from = k.ptr(panel, offset);
      k.prefetch(k.ptr(from, kAheadBytes), kInputs * inputBytes());
      emitSplitInputs(k, from, input, kInputs, copy);
    }
  });
}

TileProduct::Values TileProduct::copiesOf(Value copies) {
  return {copies, k.ptr(copies, tilePanelBytes(parts, inputsAtOnce))};
}

/// Blocks of one size, and then of half of it. The last may begin among rows of
/// the one before.
void TileProduct::forEachBlock(const Product::Chunk &chunk,
                               const std::function<void(const Block &)> &body) {
  Value last = chunk.lastRow;
  // A tile that the last rows of a step do not fill begins among those before.
  Value first = k.max(k.min(chunk.firstRow, k.add(last, -kTileRows)), k.cst(0));
  Value all = k.sub(last, first);
  // What is left of the largest blocks takes one more, if that is half full.
  Value large = k.min(k.div(k.add(all, kTileRows - 1), kMostRows),
                      k.mul(k.div(all, kMostRows), kMostProductRows));
  Value largeRows = k.mul(large, kMostRows);
  Value small = k.div(
      k.add(k.max(k.sub(all, largeRows), k.cst(0)), kTileRows - 1), kTileRows);
  auto forEach = [&](Value count, int64_t rows, Value before,
                     Value firstIndex) {
    k.loop(k.cst(0), count, 1, [&](Value index) {
      Value slot = k.add(before, k.mul(index, rows));
      Value row = k.min(k.add(first, slot), k.sub(last, k.cst(rows)));
      body({row, rows, slot, k.add(firstIndex, index)});
    });
  };
  forEach(large, kMostRows, k.cst(0), k.cst(0));
  forEach(small, kTileRows, largeRows, large);
}

void TileProduct::finishRows(Value pair, Value firstRow, Value count,
                             int64_t blockRows, Value sums,
                             const Finish &finish) {
  VectorType lanes = k.vec(kLanes, k.f32());
  k.loop(k.cst(0), count, 1, [&](Value r) {
    Value at = k.ptr(sums, k.mul(r, kPairBytes / 2));
    finish(pair, k.add(firstRow, r),
           {k.load(lanes, at), k.load(lanes, at, blockRows * kPairBytes / 2)});
  });
}
