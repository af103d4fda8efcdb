//===- Linear.cpp - matrix products ---------------------------------------===//
//
// A tile is a panel of 16 outputs and a run of rows that stays in a cache. The
// number of rows decides the shape of the inner loop: one row takes several
// panels at once, to have enough independent sums in flight; many rows take one
// panel and as many rows as the registers hold. A row's result does not depend
// on its company (Product.h).
//
//===----------------------------------------------------------------------===//
#include "TileProduct.h"

using namespace mlir;
using namespace isthmus;

namespace {
using Values = KernelBuilder::Values;

class LinearEmitter {
public:
  LinearEmitter(KernelBuilder &k, const LinearSpec &spec)
      : k(k), spec(spec), layout(spec.weight), product(k, spec.weight),
        yRowBytes(floatRowBytes(layout.outputs)) {
    unsigned index = 0;
    x = k.operand(index++);
    weight = k.operand(index++);
    if (spec.bias)
      bias = k.operand(index++);
    if (spec.residual)
      residual = k.operand(index++);
    y = k.operand(index++);
  }

  static bool usesTiles(const LinearSpec &spec,
                        const TargetDescription &target) {
    return takesTiles(spec.weight, target);
  }

  void emitOneRow() {
    forEachPanels(k.begin, k.end, product.panelsOfRow(),
                  [&](Value tile, int64_t panels) {
                    Values sums = product.sums(panelsFrom(tile, panels), {x},
                                               /*ahead=*/panels);
                    finish(tile, k.cst(0), sums);
                  });
  }

  void emitManyRows() {
    product.forEachChunk(layout.panels(), [&](const Product::Chunk &chunk) {
      forEachPanels(
          chunk.begin, chunk.end, product.panelsAtOnce(),
          [&](Value tile, int64_t panels) {
            auto fetch = [&](Value row) {
              k.prefetch(k.ptr(residual, offsetOf(tile, row)),
                         panels * kLanes * 4);
            };
            product.multiply(
                chunk, x, panelsFrom(tile, panels),
                /*ahead=*/panels,
                [&](Value row, const Values &sums) { finish(tile, row, sums); },
                residual ? fetch : Product::Fetch());
          });
    });
  }

  void emitInTiles(bool few) {
    TileProduct tiles(k, layout, /*ahead=*/2, few);
    tiles.forEachChunk(spec.tiles(), [&](const Product::Chunk &chunk) {
      Value first = k.mul(chunk.begin, spec.tilePanels());
      Value end =
          k.min(k.mul(chunk.end, spec.tilePanels()), k.cst(layout.panels()));
      // The last pair shares a panel with the one before, if their number is
      // odd; a single panel is both of its pair.
      auto panelsOf = [&](Value pair) {
        Value last = k.max(k.add(end, -2), first);
        Value panel = k.min(k.add(first, k.mul(pair, 2)), last);
        return Values{panel, k.min(k.add(panel, 1), k.add(end, -1))};
      };
      tiles.multiply(
          chunk, x, k.div(k.add(k.sub(end, first), 1), 2),
          [&](Value pair) {
            Values panels = panelsOf(pair);
            return Values{panelAt(panels[0]), panelAt(panels[1])};
          },
          [&](Value pair, Value row, const Values &sums) {
            for (auto [panel, sum] : llvm::zip_equal(panelsOf(pair), sums))
              finish(panel, row, {sum});
          });
    });
  }

private:
  KernelBuilder &k;
  const LinearSpec &spec;
  const PackedLayout &layout;
  Product product;
  int64_t yRowBytes;
  Value x, weight, bias, residual, y;

  /// Calls `body(first, count)` for all panels [from, end): `most` at once
  /// while there are so many, then half of it.
  void forEachPanels(Value from, Value end, int64_t most,
                     const std::function<void(Value, int64_t)> &body) {
    for (int64_t panels = most; panels >= 1; panels /= 2) {
      Value count = k.sub(end, from);
      Value to = k.add(from, k.mul(k.div(count, panels), panels));
      k.loop(from, to, panels, [&](Value tile) { body(tile, panels); });
      from = to;
    }
  }

  Values panelsFrom(Value tile, int64_t count) {
    Values panels;
    for (int64_t p = 0; p < count; ++p)
      panels.push_back(panelAt(k.add(tile, p)));
    return panels;
  }
  Value panelAt(Value tile) {
    return k.ptr(weight, k.mul(tile, layout.panelBytes()));
  }

  /// Of outputs of a row, from the first of panel `tile` on.
  Value offsetOf(Value tile, Value row) {
    return k.add(k.mul(row, yRowBytes), k.mul(tile, kLanes * 4));
  }

  /// Outputs of a row, from the first of panel `tile` on.
  void finish(Value tile, Value row, const Values &sums) {
    VectorType lanes = k.vec(kLanes, k.f32());
    for (auto [p, sum] : llvm::enumerate(sums)) {
      Value column = k.mul(k.add(tile, int64_t(p)), kLanes * 4);
      Value offset = offsetOf(k.add(tile, int64_t(p)), row), result = sum;
      if (bias)
        result = k.fadd(result, k.load(lanes, k.ptr(bias, column)));
      if (residual)
        result = k.fadd(result, k.load(lanes, k.ptr(residual, offset)));
      k.store(result, k.ptr(y, offset));
    }
  }
};
} // namespace

void isthmus::emitLinear(KernelBuilder &k, const LinearSpec &spec) {
  emitByRows<LinearEmitter>(k, spec);
}
