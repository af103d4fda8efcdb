//===- Product.h - the sums inside matrix products --------------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Kernels.h"

namespace isthmus {

/// Whether kTileRows rows and more of integers are multiplied with such a
/// weight in a matrix unit, as a TileProduct: those with one scale, whose sums
/// leave it once.
bool takesTiles(const PackedLayout &weight, const TargetDescription &target);

/// Emits sums of products between rows of activations and panels of a packed
/// weight. Each output has one accumulator, and its inputs come in ascending
/// order, however many rows and panels are summed at once.
class Product {
public:
  using Values = KernelBuilder::Values;

  Product(KernelBuilder &k, const PackedLayout &weight)
      : Product(k, weight, /*isUnpacked=*/false) {}

  /// Bytes of a row of activations.
  int64_t rowBytes() const;
  /// Rows and panels whose sums fit the registers.
  int64_t rowsAtOnce() const;
  /// Rows of the largest block.
  int64_t mostRows() const { return std::max(rowsAtOnce(), kTileRows); }
  int64_t panelsAtOnce() const;

  /// The part of a launch whose rows stay in a cache.
  struct Chunk {
    mlir::Value begin, end;        ///< tiles of outputs
    mlir::Value firstRow, lastRow; ///< [first, last)
  };
  /// Goes through the launch's tiles: `outputTiles` for each run of
  /// productRowsPerTile rows, or `rowsPerTile`.
  void forEachChunk(int64_t outputTiles,
                    const std::function<void(const Chunk &)> &body);
  static void forEachChunk(KernelBuilder &k, int64_t outputTiles,
                           int64_t rowsPerTile,
                           const std::function<void(const Chunk &)> &body);

  using Finish = std::function<void(mlir::Value row, const Values &sums)>;
  using Fetch = std::function<void(mlir::Value row)>;

  /// Multiplies the rows of a chunk with panels.
  ///
  /// \param x      the first row of activations of the step.
  /// \param panels pointers to panels of the layout, at most panelsAtOnce().
  /// \param ahead  as for sums.
  /// \param finish is given each row and its sums, one a panel. A row may come
  ///               again, the last time with its sums.
  /// \param fetch  is given each row before its sums are made, to fetch what
  ///               `finish` loads; or null.
  void multiply(const Chunk &chunk, mlir::Value x, const Values &panels,
                int64_t ahead, const Finish &finish,
                const Fetch &fetch = nullptr);

  /// Rows that are multiplied at once.
  struct Block {
    mlir::Value firstRow;
    int64_t rows;
    mlir::Value index; ///< of the block in its chunk
  };
  /// Cuts the rows of a chunk into blocks: the largest that fit first, then
  /// halves. A block may begin among rows of the one before, and gives those
  /// the same results again.
  void forEachBlock(const Chunk &chunk,
                    const std::function<void(const Block &)> &body);
  /// Pointers to the rows of a block, of which `x` is the step's first.
  Values rowsOf(const Block &block, mlir::Value x);

  /// Gives `body` the product, the first panels of each of some runs of `count`
  /// panels, and the bytes from one to the next: this product and the panels as
  /// they are; or, of int4 where a matrix unit could take int8 or all has one
  /// scale, and the chunk has rows enough, a product of unpacked panels, and
  /// copies of them. Emits code for both.
  using WithPanels = std::function<void(Product &product, const Values &firsts,
                                        int64_t stride)>;
  void withPanels(const Chunk &chunk, const Values &firsts, int64_t count,
                  const WithPanels &body);

  /// How a panel lies of which nibbles became bytes: as an int4 panel but for
  /// them, or as one of int8 where all has one scale; and its bytes.
  PackedLayout unpackedLayout() const;
  int64_t unpackedBytes() const;
  void unpack(mlir::Value panel, mlir::Value to);

  /// Panels that one row takes at once. (Sums of f32 come one multiply-add
  /// after another: those of a single panel would wait for each other.)
  int64_t panelsOfRow() const {
    const bool isLong = layout.format == PackedFormat::F32 ||
                        layout.format == PackedFormat::F16;
    return std::max<int64_t>(isLong ? 2 : 1, k.target.schedule.panels);
  }

  /// Sums of all rows with all panels, vector<16xf32> each, indexed
  /// [panel * rows + row].
  ///
  /// \param panels pointers to panels of the layout.
  /// \param rows   pointers to rows of activations.
  /// \param ahead  panels between these and the ones that the caller takes
  ///               next, to be fetched meanwhile.
  /// \param block  the rows, where several blocks share the panels.
  Values sums(const Values &panels, const Values &rows, int64_t ahead,
              const Block *block = nullptr);

private:
  Product(KernelBuilder &k, const PackedLayout &weight, bool isUnpacked);

  /// What values stand in panels as.
  PackedFormat valueFormat() const {
    return isUnpacked ? PackedFormat::Int8 : layout.format;
  }

  /// Blocks of equally many rows, one after another; the last may begin among
  /// rows of the one before.
  struct Run {
    mlir::Value first, last; ///< rows
    mlir::Value count;       ///< of blocks
    int64_t rows;            ///< of a block
  };
  void forEachRun(const Chunk &chunk,
                  const std::function<void(const Run &)> &body);
  Block blockOf(const Chunk &chunk, const Run &run, mlir::Value index);
  /// multiply, of panels as they are.
  void multiplyPanels(const Chunk &chunk, mlir::Value x, const Values &panels,
                      int64_t ahead, const Finish &finish, const Fetch &fetch);

  /// What turns a group's integer sums into values, for 16 outputs.
  struct GroupFactors {
    mlir::Value scale, offset; ///< offset: where groups have one
  };

  Values sumFloats(const Values &panels, const Values &rows, int64_t ahead,
                   const Block *block);
  Values sumInt8(const Values &panels, const Values &rows, int64_t ahead);
  Values sumInt8Rows(const Values &panels, const Values &rows, int64_t ahead);
  Values sumGroups(const Values &panels, const Values &rows, int64_t ahead);
  Values sumInt4Rows(const Values &panels, const Values &rows, int64_t ahead);
  /// Whole sums of integers, by the scales of both sides.
  Values scaled(const Values &panels, const Values &rows, Values sums);
  /// As sumInt8 and sumGroups, of one panel with as many rows as make a tile.
  Values sumGroupsInTiles(mlir::Value panel, const Values &rows, int64_t ahead,
                          const Block *block);
  bool unrolls(size_t rows) const;
  /// `state` after `body(part, state)` for the parts of a group.
  Values overParts(int64_t parts, bool unroll, Values state,
                   const std::function<Values(mlir::Value, Values)> &body);
  /// The f32 entry `index` of the table at `offset` of a row, in all lanes.
  mlir::Value splatEntry(mlir::Value row, mlir::Value index, int64_t offset);
  mlir::Value toFloat(mlir::Value integers);
  /// The values of a group of inputs in a panel, and its factors.
  mlir::Value valuesOf(mlir::Value panel, mlir::Value group);
  mlir::Value factorsOf(mlir::Value panel, mlir::Value group);
  mlir::Value superFactorsOf(mlir::Value panel, mlir::Value group);
  GroupFactors loadFactors(mlir::Value panel, mlir::Value group);
  /// What sums of a group of the weight start from, that its integers count
  /// from their zero.
  mlir::Value startOf(mlir::Value row, mlir::Value group, size_t rows);
  void prefetchNext(const Values &panels, mlir::Value offset, int64_t bytes,
                    int64_t ahead, size_t rows);
  void prefetchFactors(const Values &panels, mlir::Value group, int64_t ahead,
                       size_t rows);
  void prefetchGroup(const Values &panels, mlir::Value index, int64_t parts,
                     int64_t ahead, size_t rows);
  void prefetchShare(const Values &panels, mlir::Value at, int64_t bytes,
                     int64_t ahead, const Block *block);

  KernelBuilder &k;
  const PackedLayout layout;
  const RowFormat format; ///< of the activations
  const bool isUnpacked;  ///< copies, in which nibbles stand in bytes
};

/// Emits `Emitter(k, spec).emitOneRow()`, and emitManyRows() as a function of
/// its own: a single row sets up neither its registers nor a matrix unit. Where
/// `Emitter::usesTiles(spec, target)`, as many rows as make tiles have
/// emitInTiles(few = false) as another one. For floats in tiles
/// emitInTiles(few) stands for all, as two functions.
template <typename Emitter, typename Spec>
void emitByRows(KernelBuilder &k, const Spec &spec) {
  auto outline = [&](const char *suffix, auto emit) {
    k.outline(suffix, [&](KernelBuilder &own) { emit(Emitter(own, spec)); });
  };
  auto emitTiles = [&] {
    outline("_rows", [](auto emitter) { emitter.emitInTiles(false); });
  };
  auto isBelow = [&](int64_t rows) {
    return k.lessThan(k.rowCount(), k.cst(rows));
  };
  if (spec.inTiles)
    return k.ifElse(
        isBelow(kTileRows),
        [&] {
          outline("_few", [](auto emitter) { emitter.emitInTiles(true); });
        },
        emitTiles);
  k.ifElse(
      isBelow(2), [&] { Emitter(k, spec).emitOneRow(); },
      [&] {
        auto emitMany = [](auto emitter) { emitter.emitManyRows(); };
        if (!Emitter::usesTiles(spec, k.target))
          return outline("_rows", emitMany);
        k.ifElse(
            isBelow(kTileRows), [&] { outline("_few", emitMany); }, emitTiles);
      });
}

} // namespace isthmus
