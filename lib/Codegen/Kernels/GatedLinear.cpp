//===- GatedLinear.cpp - both products of a gated unit --------------------===//
//
// A tile is as many panels of outputs as make a group of what the next product
// takes as int8, so that nothing but quantised rows leaves the kernel, and a
// run of rows that stays in a cache.
//
//===----------------------------------------------------------------------===//
#include "Functions.h"
#include "RowWise.h"
#include "TileProduct.h"

#include <numeric>

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

class GatedLinearEmitter {
public:
  GatedLinearEmitter(KernelBuilder &k, const GatedLinearSpec &spec)
      : k(k), spec(spec), layout(spec.weight), product(k, layout),
        tilePanels(spec.tileOutputs() / PackedLayout::kPanel),
        lanes(k.vec(kLanes, k.f32())), x(k.operand(0)), gate(k.operand(1)),
        up(k.operand(2)), y(k.operand(3)) {}

  /// (Groups are quantised when all of their outputs are there: not in tiles.)
  static bool usesTiles(const GatedLinearSpec &spec,
                        const TargetDescription &target) {
    return takesTiles(spec.weight, target) && spec.result != RowFormat::Int8;
  }

  void emitOneRow() {
    k.loop(k.begin, k.end, 1, [&](Value tile) {
      Values gated;
      // As many panels of each weight, and none beyond those of the tile.
      const int64_t atOnce =
          std::gcd(tilePanels, std::max<int64_t>(1, product.panelsOfRow() / 2));
      for (int64_t p = 0; p < tilePanels; p += atOnce) {
        Values panels;
        for (Value weight : {gate, up})
          for (int64_t i = 0; i < atOnce; ++i)
            panels.push_back(panel(weight, tile, p + i));
        Values sums = product.sums(panels, {x}, /*ahead=*/atOnce);
        for (int64_t i = 0; i < atOnce; ++i) {
          gated.push_back(apply(sums[size_t(i)], sums[size_t(atOnce + i)]));
          store(tile, p + i, k.cst(0), gated);
        }
      }
    });
  }

  void emitManyRows() {
    // Both products at once, where panels need not wait for others.
    const bool together =
        product.panelsAtOnce() > 1 && spec.result != RowFormat::Int8;
    if (!together)
      waiting = k.stackBuffer(product.mostRows() * rowBytes());
    product.forEachChunk(layout.outputs / spec.tileOutputs(),
                         [&](const Product::Chunk &chunk) {
                           k.loop(chunk.begin, chunk.end, 1, [&](Value tile) {
                             if (together)
                               multiplyTogether(tile, chunk);
                             else
                               multiply(tile, chunk);
                           });
                         });
  }

  /// A pair is a panel of each weight.
  void emitInTiles(bool few) {
    TileProduct tiles(k, layout, /*ahead=*/1, few);
    tiles.forEachChunk(
        layout.outputs / spec.tileOutputs(), [&](const Product::Chunk &chunk) {
          Value first = k.mul(chunk.begin, tilePanels);
          tiles.multiply(
              chunk, x, k.mul(k.sub(chunk.end, chunk.begin), tilePanels),
              [&](Value pair) {
                Value at = k.mul(k.add(first, pair), layout.panelBytes());
                return Values{k.ptr(gate, at), k.ptr(up, at)};
              },
              [&](Value pair, Value row, const Values &sums) {
                storePanel(k.add(first, pair), row, apply(sums[0], sums[1]));
              });
        });
  }

private:
  KernelBuilder &k;
  const GatedLinearSpec &spec;
  const PackedLayout &layout;
  Product product;
  const int64_t tilePanels;
  VectorType lanes;
  Value x, gate, up, y;
  Value waiting; ///< results of a tile, in memory until a group is whole

  int64_t rowBytes() const { return tilePanels * kLanes * 4; } ///< waiting

  Value apply(Value gated, Value value) {
    return k.fmul(emitFunction(k, spec.function, gated), value);
  }

  Value panel(Value weight, Value tile, int64_t p) {
    Value index = k.add(k.mul(tile, tilePanels), p);
    return k.ptr(weight, k.mul(index, layout.panelBytes()));
  }

  /// A panel of the outputs of one row, not quantised.
  void storePanel(Value panel, Value row, Value gated) {
    Value out =
        k.ptr(y, k.mul(row, isthmus::rowBytes(spec.result, layout.outputs)));
    if (spec.result == RowFormat::F32)
      return void(k.store(gated, k.ptr(out, k.mul(panel, kLanes * 4))));
    if (spec.result != RowFormat::BF16x3)
      return storeRounded(k, spec.result, gated, out, k.mul(panel, kLanes * 4));
    constexpr int64_t kPanels = kPartsGroup / kLanes;
    Value group = k.mul(k.div(panel, kPanels), kPartsGroup * kFloatParts * 2);
    storeSplit(
        k, gated,
        k.ptr(out, k.add(group, k.mul(k.rem(panel, kPanels), kLanes * 2))));
  }

  /// Panel `p` of the outputs of one row, the last of `gated`; a group is
  /// quantised when it is whole.
  void store(Value tile, int64_t p, Value row, const Values &gated) {
    if (spec.result != RowFormat::Int8)
      return storePanel(k.add(k.mul(tile, tilePanels), p), row, gated.back());
    Value out =
        k.ptr(y, k.mul(row, isthmus::rowBytes(spec.result, layout.outputs)));
    if (p + 1 == tilePanels)
      storeQuantizedGroup(k, out, tile, {layout.outputs}, gated);
  }

  void multiplyTogether(Value tile, const Product::Chunk &chunk) {
    for (int64_t p = 0; p < tilePanels; ++p)
      product.multiply(chunk, x, {panel(gate, tile, p), panel(up, tile, p)},
                       tilePanels, [&](Value row, const Values &sums) {
                         store(tile, p, row, {apply(sums[0], sums[1])});
                       });
  }

  void multiply(Value tile, const Product::Chunk &chunk) {
    product.withPanels(
        chunk, {panel(gate, tile, 0), panel(up, tile, 0)}, tilePanels,
        [&](Product &own, const Values &firsts, int64_t stride) {
          own.forEachBlock(chunk, [&](const Product::Block &block) {
            multiplyBlock(own, firsts, stride, tile, block);
          });
        });
  }

  /// Panel after panel, from `firsts` on, `stride` bytes apart.
  void multiplyBlock(Product &own, const Values &firsts, int64_t stride,
                     Value tile, const Product::Block &block) {
    Values xs = own.rowsOf(block, x);
    k.loop(k.cst(0), k.cst(tilePanels), 1, [&](Value p) {
      Values sums[2];
      for (auto [part, first] : llvm::zip_equal(sums, firsts))
        part =
            own.sums({k.ptr(first, k.mul(p, stride))}, xs, tilePanels, &block);
      Value to = k.ptr(waiting, k.mul(p, kLanes * 4));
      for (int64_t r = 0; r < block.rows; ++r)
        k.store(apply(sums[0][size_t(r)], sums[1][size_t(r)]), to,
                r * rowBytes());
    });
    k.loop(k.cst(0), k.cst(block.rows), 1, [&](Value r) {
      Value from = k.ptr(waiting, k.mul(r, rowBytes()));
      Values gated;
      for (int64_t p = 0; p < tilePanels; ++p) {
        gated.push_back(k.load(lanes, from, p * kLanes * 4));
        store(tile, p, k.add(block.firstRow, r), gated);
      }
    });
  }
};
} // namespace

void isthmus::emitGatedLinear(KernelBuilder &k, const GatedLinearSpec &spec) {
  emitByRows<GatedLinearEmitter>(k, spec);
}
