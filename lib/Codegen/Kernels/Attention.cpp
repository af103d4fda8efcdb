//===- Attention.cpp - attention over the paged cache ---------------------===//
//
// Scores of a page stand across lanes (keys are stored transposed inside a
// page), outputs across lanes too, so neither product needs a horizontal sum. A
// fixed partition of 256 positions keeps its own softmax state; partitions
// merge in ascending order. Neither depends on how many rows the step has:
// small steps let threads share the partitions of a row, and merge them with
// the same operations that large steps use.
//
//===----------------------------------------------------------------------===//
#include "Partitions.h"

#include "CacheProducts.h"
#include "CacheRows.h"
#include "CacheTiles.h"
#include "RowWise.h"
#include "isthmus/runtime/KernelABI.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

#include <array>

using namespace mlir;
using namespace isthmus;

static constexpr int64_t kPage = rt::kPagePositions;
static constexpr int64_t kPartition = rt::kPartitionPositions;

int64_t AttentionSpec::scratchBytes() const {
  // For each query probabilities, running outputs, the query as factors, and
  // eight vectors of state; in tiles, the values of a page too.
  return rowsPerTile() * group() * (kPartition + 2 * headDim + 8 * kLanes) * 4 +
         (inTiles ? keysBytes() : 0);
}

namespace {
using Values = KernelBuilder::Values;

/// Attention of one key/value head with the queries of one row, or of several
/// rows at successive positions of a sequence. A query is a row and one of the
/// query heads that share the key/value head; they are numbered row by row.
class AttentionEmitter {
public:
  AttentionEmitter(KernelBuilder &k, const AttentionSpec &spec)
      : k(k), spec(spec), group(spec.group()), products(k, spec, spec.inTiles),
        cacheRows(k), lanes(k.vec(kLanes, k.f32())) {
    q = k.operand(0);
    state = k.operand(1);
    y = k.operand(2);
    if (spec.bidirectional)
      lengths = k.stepField(rt::kStepLengths, true);
    running = k.ptr(k.scratch, spec.rowsAtOnce * group * kPartition * 4);
    softmax = k.ptr(running, spec.rowsAtOnce * group * spec.headDim * 4);
    rounded =
        k.ptr(softmax, spec.rowsAtOnce * group * kSoftmaxVectors * kLanes * 4);
    lastValues = k.ptr(rounded, spec.rowsAtOnce * group * spec.headDim * 4);
  }

  /// One tile a key/value head and rowsPerTile() rows: all partitions in
  /// ascending order. Rows that belong together share what they load.
  void emitWhole() {
    forEachTile([&](Value head, Value tileRow, Value tileEnd) {
      emitBlocks(tileRow, tileEnd, head, spec.rowsAtOnce);
    });
  }

  /// emitWhole in a matrix unit, whose tiles have one height in a function:
  /// blocks of rowsPerTile() rows, or rows one by one where a run of rows that
  /// belong together is too short. A block may take in rows of other tiles, and
  /// gives those the same results again.
  void emitWholeInTiles(bool inBlocks) {
    const int64_t most = spec.rowsPerTile();
    Value rowCount = k.rowCount(), next = k.stackBuffer(8);
    forEachTile([&](Value head, Value tileRow, Value tileEnd) {
      k.store(tileRow, next);
      k.loop(tileRow, tileEnd, 1, [&](Value row) {
        k.ifElse(k.equal(row, k.load(k.i64(), next)), [&] {
          Value last = cacheRows.runEnd(row, tileEnd);
          k.store(last, next);
          Value fromLast = k.max(k.add(last, -most), k.cst(0));
          Value fromRow = k.min(k.add(row, most), rowCount);
          Value endsThere = k.equal(
              k.sub(cacheRows.runEnd(fromLast, last), fromLast), k.cst(most));
          Value beginsHere =
              k.equal(k.sub(cacheRows.runEnd(row, fromRow), row), k.cst(most));
          Value isLong =
              arith::OrIOp::create(k.b, k.loc, endsThere, beginsHere);
          if (inBlocks)
            return k.ifElse(isLong, [&] {
              Value first =
                  arith::SelectOp::create(k.b, k.loc, endsThere, fromLast, row);
              emitRows(first, head, most);
            });
          k.ifElse(
              isLong, [] {},
              [&] {
                k.loop(row, last, 1, [&](Value r) { emitRows(r, head, 1); });
              });
        });
      });
    });
  }

  /// One tile a row, key/value head and partition of the step's longest
  /// sequence: writes the partition's outputs, maximum and sum.
  void emitPartitions() {
    Value count = k.stepField(rt::kStepPartitions, false);
    k.loop(k.begin, k.end, 1, [&](Value tile) {
      PartitionTile own = splitTile(tile, count);
      openRows(own.row, own.head, 1);
      // What this thread reads after it.
      Value last = k.add(k.mul(k.mul(k.rowCount(), spec.kvHeads), count), -1);
      PartitionTile next = splitTile(k.min(k.add(tile, 1), last), count);
      Value nextPage = k.min(k.mul(next.partition, rt::kPartitionPages),
                             k.div(k.add(seenBy(next.row), -1), kPage));
      keysAfter = pagePtr(cacheRows.pages(next.row), nextPage,
                          k.mul(next.head, spec.headStride()));
      Value partial =
          k.ptr(k.ptr(y, k.mul(own.row, spec.partialRowBytes())),
                k.mul(k.add(k.mul(own.head, spec.partitions), own.partition),
                      spec.partialBytes()));
      openPartition(k.mul(own.partition, kPartition));
      auto nothing = [&] {
        for (int64_t g = 0; g < group; ++g)
          for (int64_t d = 0; d < spec.headDim + 2 * kLanes; d += kLanes)
            k.store(d == spec.headDim ? k.fcst(lanes, kMaskedScore)
                                      : k.zeros(kLanes),
                    partial, partialAt(g, d));
      };
      k.ifElse(
          k.lessThan(k.cst(0), inside),
          [&] { ifVisible([&] { emitAndStore(partial); }, nothing); }, nothing);
    });
  }

private:
  KernelBuilder &k;
  const AttentionSpec &spec;
  int64_t group; ///< query heads that share a key/value head
  CacheProducts products;
  CacheRows cacheRows;
  VectorType lanes;
  Value q, state, y, lengths;
  Value running, softmax; ///< per query, in scratch
  Value rounded;          ///< queries as factors, in scratch
  Value lastValues;       ///< in tiles: of a page that is not full, in scratch
  // Of the rows at hand: their number, how many positions the last one sees,
  // and position, places of queries and outputs of the first.
  int64_t rows = 1;
  Value end, position, pages, queries, kvOffset, out;
  // Of the partition at hand: its first position, how many the last row sees of
  // it (1..256), and their pages.
  Value first, inside, firstPage, pageCount;

  /// Of partitions: the first keys that the thread reads after this one.
  Value keysAfter;

  /// Gives `body` the key/value head and the rows of each tile: all rows of a
  /// head before those of the next one, so that its keys and values stay in a
  /// cache.
  void forEachTile(const std::function<void(Value, Value, Value)> &body) {
    Value rowCount = k.rowCount();
    Value rowTiles =
        k.div(k.add(rowCount, spec.rowsPerTile() - 1), spec.rowsPerTile());
    k.loop(k.begin, k.end, 1, [&](Value tile) {
      Value head = arith::DivUIOp::create(k.b, k.loc, tile, rowTiles);
      Value first = k.mul(arith::RemUIOp::create(k.b, k.loc, tile, rowTiles),
                          spec.rowsPerTile());
      body(head, first, k.min(k.add(first, spec.rowsPerTile()), rowCount));
    });
  }

  struct PartitionTile {
    Value row, head, partition;
  };
  PartitionTile splitTile(Value tile, Value partitionCount) {
    Value rowAndHead = arith::DivUIOp::create(k.b, k.loc, tile, partitionCount);
    return {k.div(rowAndHead, spec.kvHeads), k.rem(rowAndHead, spec.kvHeads),
            arith::RemUIOp::create(k.b, k.loc, tile, partitionCount)};
  }

  /// Vectors of state that each query has in scratch.
  enum Softmax {
    kRunningMaximum,
    kRunningSum,
    kMaximum,
    kSum,
    kOldFactor,
    kAddedFactor,
    kQueryScale,
    kValueScale,
    kSoftmaxVectors,
  };
  static int64_t vectorAt(Softmax which) { return which * kLanes * 4; }
  Value softmaxOf(Value query) {
    return k.ptr(softmax, k.mul(query, kSoftmaxVectors * kLanes * 4));
  }
  int64_t rowBytes() const { return floatRowBytes(spec.heads * spec.headDim); }
  /// Offset of query `i` where emitScores reads it.
  int64_t inQueries(int64_t i) const {
    return products.roundsFactors() ? i * spec.headDim * products.factorBytes()
                                    : inRows(i);
  }
  /// Offset of query `i` in rows of queries or outputs.
  int64_t inRows(int64_t i) const {
    return i / group * rowBytes() + i % group * spec.headDim * 4;
  }
  Value inRows(Value query) {
    return k.add(k.mul(k.div(query, group), rowBytes()),
                 k.mul(k.rem(query, group), spec.headDim * 4));
  }
  Value runningOf(Value query) {
    return k.ptr(running, k.mul(query, spec.headDim * 4));
  }
  /// Value `d` of a partial result: outputs, then maximum, then sum.
  int64_t partialAt(int64_t g, int64_t d) const {
    return (g * (spec.headDim + 2 * kLanes) + d) * 4;
  }

  /// Rows in blocks of `count`; those that do not belong together in halves.
  void emitBlocks(Value first, Value end, Value head, int64_t count) {
    k.loop(first, end, count, [&](Value row) {
      auto whole = [&] { emitRows(row, head, count); };
      if (count == 1)
        return whole();
      Value last = k.min(k.add(row, count), end);
      k.ifElse(areSuccessive(row, last, count), whole,
               [&] { emitBlocks(row, last, head, count / 2); });
    });
  }

  /// True if the rows [first, last) are `count` and belong together.
  Value areSuccessive(Value first, Value last, int64_t count) {
    Value full = k.equal(k.sub(last, first), k.cst(count));
    return arith::AndIOp::create(k.b, k.loc, full,
                                 k.equal(cacheRows.runEnd(first, last), last));
  }

  /// How many positions the row sees, from the first one on.
  Value seenBy(Value row) {
    if (!spec.bidirectional)
      return k.add(cacheRows.position(row), 1);
    return k.toI64(
        k.load(k.i32(), k.ptr(lengths, k.mul(cacheRows.sequence(row), 4))));
  }

  /// Offset of the queries and outputs of a row and key/value head.
  Value offsetOf(Value row, Value head) {
    return k.add(k.mul(row, rowBytes()), k.mul(head, group * spec.headDim * 4));
  }

  /// Fetches the queries of `count` rows: another core may have made them, and
  /// sums of scores would wait for each row's.
  void fetchQueries(Value first, Value head, int64_t count) {
    k.loop(first, k.add(first, count), 1, [&](Value row) {
      k.prefetch(k.ptr(q, offsetOf(row, head)), group * spec.headDim * 4);
    });
  }

  void openRows(Value row, Value head, int64_t count) {
    rows = count;
    Value rowOffset = offsetOf(row, head);
    position = cacheRows.position(row);
    end = spec.bidirectional ? seenBy(row) : k.add(position, count);
    pages = cacheRows.pages(row);
    queries = k.ptr(q, rowOffset);
    out = k.ptr(y, rowOffset);
    kvOffset = k.mul(head, spec.headStride());
    if (products.roundsFactors())
      roundQueries();
  }

  void openPartition(Value begin) {
    first = begin;
    inside = k.min(k.sub(end, first), k.cst(kPartition));
    firstPage = k.div(first, kPage);
    pageCount = k.div(k.add(inside, kPage - 1), kPage);
  }

  void roundQueries() {
    forEachQuery([&](Value query) {
      Value from = k.ptr(queries, inRows(query));
      Value to = k.ptr(rounded, k.mul(query, inQueries(1)));
      Values features;
      for (int64_t d = 0; d < spec.headDim; d += kLanes)
        features.push_back(k.load(lanes, from, d * 4));
      if (spec.hasScales()) {
        auto [scale, factor] = scalingFor(k, largestMagnitude(k, features),
                                          CacheProducts::kLargestFactor);
        k.store(k.splat(scale, kLanes), softmaxOf(query),
                vectorAt(kQueryScale));
        for (Value &v : features)
          v = k.fmul(v, k.splat(factor, kLanes));
      }
      for (auto [i, v] : llvm::enumerate(features))
        products.storeFactors(
            v, k.ptr(to, int64_t(i) * kLanes * products.factorBytes()));
    });
    queries = rounded;
  }

  void emitRows(Value row, Value head, int64_t count) {
    openRows(row, head, count);
    fetchQueries(k.add(row, count), head, count);
    forEachQuery([&](Value query) {
      Value own = softmaxOf(query);
      k.store(k.fcst(lanes, kMaskedScore), own, vectorAt(kRunningMaximum));
      k.store(k.zeros(kLanes), own, vectorAt(kRunningSum));
    });
    k.loop(k.cst(0), k.cst(rows * group * spec.headDim * 4), kLanes * 4,
           [&](Value o) { k.store(k.zeros(kLanes), k.ptr(running, o)); });
    k.loop(k.cst(0), end, kPartition, [&](Value begin) {
      openPartition(begin);
      ifVisible([&] { emitAndMerge(); });
    });
    forEachQuery([&](Value query) {
      Value sum = k.load(lanes, softmaxOf(query), vectorAt(kRunningSum));
      Value from = runningOf(query), to = k.ptr(out, inRows(query));
      for (int64_t d = 0; d < spec.headDim; d += kLanes)
        k.store(k.fdiv(k.load(lanes, from, d * 4), sum), to, d * 4);
    });
  }

  void forEachQuery(const std::function<void(Value)> &body) {
    k.loop(k.cst(0), k.cst(rows * group), 1, body);
  }

  /// Runs `body` unless neither a sink nor any row's window reaches the
  /// partition.
  void ifVisible(
      const std::function<void()> &body,
      const std::function<void()> &otherwise = [] {}) {
    if (!spec.window)
      return body();
    Value windowStart = k.add(position, 1 - *spec.window);
    Value beforeWindow =
        k.lessThan(k.add(first, inside), k.add(windowStart, 1));
    Value afterSinks = k.lessThan(k.cst(*spec.sinks - 1), first);
    Value hidden = arith::AndIOp::create(k.b, k.loc, beforeWindow, afterSinks);
    k.ifElse(hidden, otherwise, body);
  }

  Value pagePtr(Value index) { return pagePtr(pages, index, kvOffset); }
  /// Page `p` of the partition.
  Value pageOf(Value p) { return pagePtr(k.add(firstPage, p)); }
  Value pagePtr(Value table, Value index, Value offset) {
    return k.ptr(k.ptr(state, cacheRows.pageOffset(spec, table, index)),
                 offset);
  }

  void emitAndMerge() {
    emitProbabilities();
    forEachQuery([&](Value query) {
      Value own = softmaxOf(query);
      RunningSoftmax state{k.load(lanes, own, vectorAt(kRunningMaximum)),
                           k.load(lanes, own, vectorAt(kRunningSum))};
      MergeFactors factors =
          mergePartition(k, spec, state, k.load(lanes, own, vectorAt(kMaximum)),
                         k.load(lanes, own, vectorAt(kSum)));
      k.store(state.maximum, own, vectorAt(kRunningMaximum));
      k.store(state.sum, own, vectorAt(kRunningSum));
      k.store(factors.old, own, vectorAt(kOldFactor));
      k.store(factors.added, own, vectorAt(kAddedFactor));
    });
    emitOutputs([&](Value query, int64_t d, Value sum) {
      Value own = softmaxOf(query), outputs = runningOf(query);
      Value old = k.fmul(k.load(lanes, outputs, d * 4),
                         k.load(lanes, own, vectorAt(kOldFactor)));
      Value factor = k.load(lanes, own, vectorAt(kAddedFactor));
      k.store(k.fma(sum, factor, old), outputs, d * 4);
    });
  }

  void emitAndStore(Value partial) {
    emitProbabilities();
    for (int64_t g = 0; g < group; ++g)
      for (auto [i, which] : llvm::enumerate(std::array{kMaximum, kSum}))
        k.store(k.load(lanes, softmaxOf(k.cst(g)), vectorAt(which)), partial,
                partialAt(g, spec.headDim + int64_t(i) * kLanes));
    emitOutputs([&](Value query, int64_t d, Value sum) {
      k.store(sum, k.ptr(partial, k.mul(query, partialAt(1, 0))), d * 4);
    });
  }

  /// Queries whose sums fit the registers together: two vectors of them, if
  /// the schedule has room for those of all queries.
  int64_t queriesAtOnce() const {
    const KernelSchedule &schedule = k.target.schedule;
    const int64_t sums = schedule.attentionSums;
    const int64_t most =
        2 * schedule.attentionQueries <= sums ? sums / 2 : sums;
    return std::min(most, rows * group);
  }
  /// Vectors of positions or features that so many queries take at once, for
  /// which registers hold the sums: a power of two that divides `vectors`.
  int64_t vectorsAtOnce(int64_t queries, int64_t vectors) const {
    int64_t width = 1;
    while (2 * width * queries <= k.target.schedule.attentionSums &&
           vectors % (2 * width) == 0)
      width *= 2;
    return width;
  }

  /// Calls `body(first, count)` for queries whose sums fit the registers.
  void forEachGroup(const std::function<void(int64_t, int64_t)> &body) {
    const int64_t most = queriesAtOnce();
    for (int64_t first = 0; first < rows * group; first += most)
      body(first, std::min(most, rows * group - first));
  }

  /// Scores of a partition, turned into exp(score - maximum), with the maximum
  /// and the sum beside them.
  void emitProbabilities() {
    k.loop(k.cst(0), pageCount, 1, [&](Value p) {
      Value keys = pageOf(p);
      Values fetched = fetchedBeside(keys, p);
      if (spec.inTiles) {
        if (!keysAfter)
          prefetchAtOnce(fetched);
        return CacheTiles(k, spec, rows * group)
            .emitScores(keys, queries, k.ptr(k.scratch, k.mul(p, kPage * 4)),
                        kPartition * 4, [&](int64_t share, int64_t count) {
                          if (keysAfter)
                            prefetchShare(fetched.front(), share, count);
                        });
      }
      forEachGroup([&](int64_t query, int64_t count) {
        emitScores(keys, fetched, k.mul(p, kPage * 4),
                   k.sub(inside, k.mul(p, kPage)), query, count);
      });
    });
    // Tiles multiply whole pages, others no vector beyond what a row sees.
    Value vectors = spec.inTiles ? k.mul(pageCount, kPage / kLanes)
                                 : k.div(k.add(inside, kLanes - 1), kLanes);
    emitSoftmax(k.mul(vectors, kLanes * 4));
  }

  /// Keys or values, as `offset` says, of the page after page `p` of a
  /// partition, or what comes after the last one.
  Value pageAfter(Value p, int64_t offset, Value afterLast) {
    Value next = k.add(p, 1);
    Value isLast = k.equal(next, pageCount);
    Value index = arith::SelectOp::create(k.b, k.loc, isLast, p, next);
    Value page = k.ptr(pageOf(index), offset);
    return arith::SelectOp::create(k.b, k.loc, isLast, afterLast, page);
  }

  /// What is fetched while the keys of page `p` are multiplied: pages are too
  /// short for the hardware to run ahead. Where rows share what they load,
  /// caches hold a partition until its values are due: these and the next keys.
  /// Partitions come from memory: what is read a page later, as it lies there.
  Values fetchedBeside(Value keys, Value p) {
    if (keysAfter)
      return {pageAfter(p, 0, k.ptr(pageOf(k.cst(0)), spec.valuesOffset()))};
    Value lastPage = k.div(k.add(end, -1), kPage);
    Value next = k.min(k.add(k.add(firstPage, p), 1), lastPage);
    return {k.ptr(keys, spec.valuesOffset()), pagePtr(next)};
  }

  /// Keys or values of some pages, for tiles.
  void prefetchAtOnce(const Values &pages) {
    constexpr int64_t kBytes = 512;
    k.loop(k.cst(0), k.cst(spec.keysBytes()), kBytes, [&](Value at) {
      for (Value page : pages)
        k.prefetch(k.ptr(page, at), kBytes);
    });
  }
  /// One of `count` shares of them: all at once they would hold up what comes
  /// after them.
  void prefetchShare(Value page, int64_t share, int64_t count) {
    const int64_t bytes = spec.keysBytes() / count;
    k.prefetch(k.ptr(page, share * bytes), bytes);
  }

  /// scores[query][page positions] = scale * q . k, features ascending. The
  /// first queries fetch, whatever the order in which they read a page, line by
  /// line, as many with each step: the hardware only follows what ascends.
  /// `left` counts the positions that are seen from this page on: vectors
  /// beyond them are left out.
  void emitScores(Value keys, const Values &fetched, Value offset, Value left,
                  int64_t firstQuery, int64_t count) {
    const int64_t width = vectorsAtOnce(count, kPage / kLanes);
    for (int64_t vector = 0; vector < kPage / kLanes; vector += width) {
      auto emit = [&] {
        emitScoreVectors(keys, fetched, offset, vector, width, firstQuery,
                         count);
      };
      if (vector == 0)
        emit();
      else
        k.ifElse(k.lessThan(k.cst(vector * kLanes), left), emit);
    }
  }

  /// Those of `width` vectors of positions, from `vector` on.
  void emitScoreVectors(Value keys, const Values &fetched, Value offset,
                        int64_t vector, int64_t width, int64_t firstQuery,
                        int64_t count) {
    const int64_t bytes = spec.valueBytes(), step = spec.valuesAtOnce();
    const int64_t stepBytes = width * kLanes * bytes;
    auto acc = k.loop(
        k.cst(0), k.cst(spec.headDim), step,
        Values(count * width, products.zeroSum()), [&](Value d, ValueRange in) {
          Values sums(in), cached;
          Value column = k.ptr(keys, k.mul(d, kPage * bytes));
          const int64_t from = vector * kLanes * bytes * spec.headDim;
          if (firstQuery == 0)
            for (Value page : fetched)
              k.prefetch(k.ptr(k.ptr(page, k.mul(d, stepBytes)), from),
                         stepBytes * step);
          for (int64_t v = vector; v < vector + width; ++v)
            cached.push_back(
                products.loadCached(column, v * kLanes * bytes * step));
          Value at = k.ptr(queries, k.mul(d, products.factorBytes()));
          for (int64_t i = 0; i < count; ++i) {
            Values query = products.loadFactor(at, inQueries(firstQuery + i));
            for (int64_t v = 0; v < width; ++v) {
              Value &sum = sums[width * i + v];
              sum = products.multiplyAdd(query, cached[size_t(v)], sum);
            }
          }
          return sums;
        });
    for (int64_t v = 0; v < width; ++v) {
      const int64_t positions = (vector + v) * kLanes * 4;
      Value unit = k.fcst(lanes, spec.scale * scoreUnit(spec)), keyScales;
      if (spec.hasScales())
        keyScales = k.fmul(
            unit, k.load(lanes, keys, spec.keyScalesOffset() + positions));
      for (int64_t i = 0; i < count; ++i) {
        if (spec.hasScales())
          unit =
              k.fmul(keyScales, k.load(lanes, softmaxOf(k.cst(firstQuery + i)),
                                       vectorAt(kQueryScale)));
        k.store(k.fmul(products.toFloat(acc[width * i + v]), unit),
                k.ptr(k.scratch, offset),
                (firstQuery + i) * kPartition * 4 + positions);
      }
    }
  }

  /// True in the lanes that a row may see of which the last position is before
  /// `seen`; `offset` is in bytes of the scores of positions from `first` on.
  Value visible(Value offset, Value seen) {
    VectorType ints = k.vec(kLanes, k.i32());
    SmallVector<int32_t> iota;
    for (int32_t i = 0; i < kLanes; ++i)
      iota.push_back(i);
    Value lane = arith::ConstantOp::create(
        k.b, k.loc, DenseElementsAttr::get(ints, ArrayRef<int32_t>(iota)));
    auto splat32 = [&](Value v) {
      return k.splat(arith::TruncIOp::create(k.b, k.loc, k.i32(), v), kLanes);
    };
    auto less = [&](Value a, Value b) -> Value {
      return arith::CmpIOp::create(k.b, k.loc, arith::CmpIPredicate::slt, a, b);
    };
    Value absolute = k.add(lane, splat32(k.add(k.div(offset, 4), first)));
    Value result = less(absolute, splat32(seen));
    if (spec.window) {
      Value isSink = less(absolute, k.cst(ints, *spec.sinks));
      Value inWindow = less(splat32(k.add(seen, -1 - *spec.window)), absolute);
      Value either = arith::OrIOp::create(k.b, k.loc, isSink, inWindow);
      result = arith::AndIOp::create(k.b, k.loc, result, either);
    }
    return result;
  }

  /// (Tiles' sums are stored as they are.)
  Value loadScore(Value at) {
    Value score = k.load(lanes, at);
    if (!spec.inTiles)
      return score;
    return k.fmul(score, k.fcst(lanes, spec.scale * scoreUnit(spec)));
  }

  void emitSoftmax(Value bytes) {
    auto select = [&](Value mask, Value yes, Value no) -> Value {
      return arith::SelectOp::create(k.b, k.loc, mask, yes, no);
    };
    forEachQuery([&](Value query) {
      Value scores = k.ptr(k.scratch, k.mul(query, kPartition * 4));
      Value seen = spec.bidirectional
                       ? end
                       : k.add(k.add(position, k.div(query, group)), 1);
      // Whole vectors before the row's position need no mask.
      Value clear = k.cst(0);
      if (!spec.window) {
        Value here = k.max(k.sub(seen, first), k.cst(0));
        clear = k.min(k.mul(k.div(here, kLanes), kLanes * 4), bytes);
      }
      auto overScores =
          [&](Values state,
              const std::function<Values(Value, ValueRange, bool)> &body) {
            for (bool masked : {false, true})
              state =
                  k.loop(masked ? clear : k.cst(0), masked ? bytes : clear,
                         kLanes * 4, state, [&](Value offset, ValueRange in) {
                           return body(offset, in, masked);
                         });
            return state;
          };
      Value largest = overScores(
          {k.fcst(lanes, kMaskedScore)},
          [&](Value offset, ValueRange sofar, bool masked) -> Values {
            Value score = loadScore(k.ptr(scores, offset));
            if (masked)
              score = select(visible(offset, seen), score,
                             k.fcst(lanes, kMaskedScore));
            return {k.fmax(sofar[0], score)};
          })[0];
      Value maximum = k.splat(k.reduceMax(largest), kLanes);
      // Factors take the place of scores: two bytes may take that of four, none
      // ahead of those still to be read.
      auto factorAt = [&](Value offset) {
        return k.ptr(scores, k.div(k.mul(offset, products.factorBytes()), 4));
      };
      Values sums = overScores(
          {k.zeros(kLanes), k.zeros(kLanes)},
          [&](Value offset, ValueRange sofar, bool masked) -> Values {
            Value at = k.ptr(scores, offset);
            Value score = k.fsub(loadScore(at), maximum);
            Value e =
                products.roundsFactors() ? k.exp2ForBF16(score) : k.exp(score);
            auto hide = [&](Value v) {
              return masked ? select(visible(offset, seen), v, k.zeros(kLanes))
                            : v;
            };
            e = hide(e);
            // What is summed is what is multiplied; scales come in between, and
            // are rounded with.
            if (!spec.hasScales())
              return {
                  k.fadd(sofar[0], products.storeFactors(e, factorAt(offset))),
                  sofar[1]};
            Value scaled = hide(k.fmul(e, valueScales(offset)));
            k.store(scaled, at);
            return {k.fadd(sofar[0], e), k.fmax(sofar[1], scaled)};
          });
      Value state = softmaxOf(query);
      k.store(maximum, state, vectorAt(kMaximum));
      k.store(k.splat(k.reduceAdd(sums[0]), kLanes), state, vectorAt(kSum));
      if (!spec.hasScales())
        return;
      auto [scale, factor] =
          scalingFor(k, k.reduceMax(sums[1]), CacheProducts::kLargestFactor);
      k.store(k.splat(scale, kLanes), state, vectorAt(kValueScale));
      k.loop(k.cst(0), bytes, kLanes * 4, [&](Value offset) {
        Value scaled = k.load(lanes, k.ptr(scores, offset));
        products.storeFactors(k.fmul(scaled, k.splat(factor, kLanes)),
                              factorAt(offset));
      });
    });
  }

  /// The scales of the values whose probabilities stand at byte `offset` of
  /// those from position `first` on.
  Value valueScales(Value offset) {
    Value index = k.div(offset, 4);
    Value page = pagePtr(k.div(k.add(first, index), kPage));
    return k.load(lanes, k.ptr(page, k.mul(k.rem(index, kPage), 4)),
                  spec.valueScalesOffset());
  }

  Value sumOfValues(Value query, Value sum) {
    sum = products.toFloat(sum);
    if (!spec.hasScales())
      return sum;
    return k.fmul(sum, k.load(lanes, softmaxOf(query), vectorAt(kValueScale)));
  }

  /// Gives `use` the sums of probabilities * values, positions ascending, 16
  /// features of a query at a time.
  void emitOutputs(const std::function<void(Value, int64_t, Value)> &use) {
    if (spec.inTiles)
      return emitOutputsInTiles(use);
    const int64_t width = vectorsAtOnce(queriesAtOnce(), spec.headDim / kLanes);
    const Value zero = products.zeroSum();
    auto forEachPart = [&](auto body) {
      for (int64_t d = 0; d < spec.headDim; d += width * kLanes)
        forEachGroup([&](auto... queries) { body(d, queries...); });
    };
    if (!keysAfter) // What a group reads is in a cache for the next one.
      return forEachPart([&](int64_t d, int64_t query, int64_t count) {
        Values sums(count * width, zero);
        sums = k.loop(k.cst(0), pageCount, 1, sums,
                      [&](Value p, ValueRange sofar) {
                        return addOutputs(pageOf(p), {}, p, d, width, query,
                                          count, sofar);
                      });
        for (int64_t i = 0; i < count * width; ++i) {
          Value n = k.cst(query + i / width);
          use(n, d + i % width * kLanes, sumOfValues(n, sums[size_t(i)]));
        }
      });
    // Pages are read once, one after the other: sums are in memory meanwhile.
    k.loop(k.cst(0), k.cst(group * spec.headDim * 4), kLanes * 4,
           [&](Value o) { k.store(zero, k.ptr(running, o)); });
    k.loop(k.cst(0), pageCount, 1, [&](Value p) {
      Value page = pageOf(p);
      Value fetched = pageAfter(p, spec.valuesOffset(), keysAfter);
      forEachPart([&](int64_t d, int64_t query, int64_t count) {
        Values sums, places;
        for (int64_t i = 0; i < count * width; ++i) {
          const int64_t n = query + i / width;
          places.push_back(
              k.ptr(running, (n * spec.headDim + d + i % width * kLanes) * 4));
          sums.push_back(k.load(zero.getType(), places.back()));
        }
        sums = addOutputs(page, fetched, p, d, width, query, count, sums);
        for (auto [sum, place] : llvm::zip_equal(sums, places))
          k.store(sum, place);
      });
    });
    forEachQuery([&](Value query) {
      for (int64_t d = 0; d < spec.headDim; d += kLanes)
        use(query, d,
            sumOfValues(query,
                        k.load(zero.getType(), runningOf(query), d * 4)));
    });
  }

  /// Adds probabilities * values of page `p` of a partition: of `width` vectors
  /// of features from `d` on. Beside them the first queries fetch a share of
  /// another page, if any, as emitScores does.
  Values addOutputs(Value page, Value fetched, Value p, int64_t d,
                    int64_t width, int64_t query, int64_t count,
                    ValueRange sofar) {
    const int64_t bytes = spec.valueBytes(), step = spec.valuesAtOnce();
    Value values = k.ptr(page, spec.valuesOffset() + d * step * bytes);
    Value firstInPage = k.mul(p, kPage);
    Value limit = k.min(k.sub(inside, firstInPage), k.cst(kPage));
    return k.loop(
        k.cst(0), limit, step, Values(sofar), [&](Value j, ValueRange in) {
          Values sums(in), v;
          Value line = k.ptr(values, k.mul(j, spec.headDim * bytes));
          Value factors = k.ptr(
              k.scratch, k.mul(k.add(firstInPage, j), products.factorBytes()));
          if (fetched && query == 0)
            k.prefetch(k.ptr(k.ptr(fetched, k.mul(j, width * kLanes * bytes)),
                             d * kPage * bytes),
                       width * kLanes * bytes * step);
          for (int64_t i = 0; i < width; ++i)
            v.push_back(products.loadCached(line, i * kLanes * bytes * step));
          for (int64_t n = 0; n < count; ++n) {
            Values factor =
                products.loadFactor(factors, (query + n) * kPartition * 4);
            for (int64_t i = 0; i < width; ++i) {
              Value &sum = sums[n * width + i];
              sum = products.multiplyAdd(factor, v[i], sum);
            }
          }
          return sums;
        });
  }

  void
  emitOutputsInTiles(const std::function<void(Value, int64_t, Value)> &use) {
    CacheTiles tiles(k, spec, rows * group);
    auto valuesIn = [&](Value p) {
      return k.ptr(pageOf(p), spec.valuesOffset());
    };
    Value last = k.add(pageCount, -1);
    Value written = k.sub(inside, k.mul(last, kPage));
    Value isCut = k.lessThan(written, k.cst(kPage));
    k.ifElse(isCut,
             [&] { tiles.copyValues(valuesIn(last), written, lastValues); });
    Value copied = arith::SelectOp::create(k.b, k.loc, isCut, last, k.cst(-1));
    auto valuesOf = [&](Value p) -> Value {
      return arith::SelectOp::create(k.b, k.loc, k.equal(p, copied), lastValues,
                                     valuesIn(p));
    };
    auto fetch = [&](Value p, int64_t share, int64_t count) {
      if (keysAfter)
        prefetchShare(pageAfter(p, spec.valuesOffset(), keysAfter), share,
                      count);
    };
    tiles.emitOutputs(pageCount, k.scratch, kPartition * 4, valuesOf, fetch,
                      use);
  }
};
} // namespace

void isthmus::emitAttention(KernelBuilder &k, const AttentionSpec &spec) {
  if (!spec.inTiles)
    return AttentionEmitter(k, spec).emitWhole();
  for (bool inBlocks : {true, false})
    k.outline(inBlocks ? "_rows" : "_row", [&](KernelBuilder &own) {
      AttentionEmitter(own, spec).emitWholeInTiles(inBlocks);
    });
}

void isthmus::emitAttentionPartitions(KernelBuilder &k,
                                      const AttentionSpec &spec) {
  AttentionEmitter(k, spec).emitPartitions();
}
