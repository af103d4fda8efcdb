//===- GatedLinear.cpp - both products of a gated unit --------------------===//
//
// A tile is as many panels of outputs as make a group of what the next product
// takes as int8, so that nothing but quantised rows leaves the kernel, and a
// run of rows that stays in a cache.
//
//===----------------------------------------------------------------------===//
#include "Functions.h"
#include "Product.h"
#include "RowWise.h"

using namespace mlir;
using namespace isthmus;

void isthmus::emitGatedLinear(KernelBuilder &k, const GatedLinearSpec &spec) {
  using Values = KernelBuilder::Values;
  const int64_t tilePanels = spec.tileOutputs() / PackedLayout::kPanel;
  const PackedLayout &layout = spec.weight;
  Product product(k, layout);
  Value x = k.operand(0), gate = k.operand(1), up = k.operand(2),
        y = k.operand(3);

  auto apply = [&](Value gated, Value value) {
    return k.fmul(emitFunction(k, spec.function, gated), value);
  };
  auto panel = [&](Value weight, Value tile, int64_t p) {
    Value index = k.add(k.mul(tile, tilePanels), p);
    return k.ptr(weight, k.mul(index, layout.panelBytes()));
  };
  /// Panel `p` of the outputs of one row, the last of `gated`. At once, since
  /// what waits in registers pushes the next sums out of them; but a group is
  /// quantised when it is whole.
  auto store = [&](Value tile, int64_t p, Value row, Values &gated) {
    Value out = k.ptr(y, k.mul(row, rowBytes(spec.result, layout.outputs)));
    if (spec.result == RowFormat::Int8) {
      if (p + 1 == tilePanels)
        storeQuantizedGroup(k, out, tile, {layout.outputs}, gated);
      return;
    }
    const bool bf16 = spec.result == RowFormat::BF16;
    const int64_t panelBytes = kLanes * (bf16 ? 2 : 4);
    out = k.ptr(out, k.mul(tile, tilePanels * panelBytes));
    if (bf16)
      k.storeBF16(gated.back(), out, p * panelBytes);
    else
      k.store(gated.back(), out, p * panelBytes);
  };

  auto oneRow = [&](Value tile) {
    // Two panels of each weight at once.
    Values gated;
    for (int64_t p = 0; p < tilePanels; p += 2) {
      Values panels{panel(gate, tile, p), panel(gate, tile, p + 1),
                    panel(up, tile, p), panel(up, tile, p + 1)};
      Values sums = product.sums(panels, {x}, /*ahead=*/2);
      for (int64_t i = 0; i < 2; ++i) {
        gated.push_back(apply(sums[i], sums[2 + i]));
        store(tile, p + i, k.cst(0), gated);
      }
    }
  };
  auto emitBlock = [&](Value tile, const Product::Block &block) {
    const auto [firstRow, count, index] = block;
    Values xs;
    llvm::SmallVector<Values> gated(count);
    for (int64_t r = 0; r < count; ++r)
      xs.push_back(k.ptr(x, k.mul(k.add(firstRow, r), product.rowBytes())));
    for (int64_t p = 0; p < tilePanels; ++p) {
      Values g = product.sums({panel(gate, tile, p)}, xs, tilePanels);
      Values u = product.sums({panel(up, tile, p)}, xs, tilePanels);
      for (int64_t r = 0; r < count; ++r) {
        gated[r].push_back(apply(g[r], u[r]));
        store(tile, p, k.add(firstRow, r), gated[r]);
      }
    }
  };

  /// Both products at once, where panels need not wait for others.
  auto multiply = [&](Value tile, const Product::Chunk &chunk) {
    for (int64_t p = 0; p < tilePanels; ++p)
      product.multiply(chunk, x, {panel(gate, tile, p), panel(up, tile, p)},
                       tilePanels, [&](Value row, const Values &sums) {
                         Values gated{apply(sums[0], sums[1])};
                         store(tile, p, row, gated);
                       });
  };
  const bool together =
      product.panelsAtOnce() > 1 && spec.result != RowFormat::Int8;

  k.ifElse(
      k.equal(k.rowCount(), k.cst(1)),
      [&] { k.loop(k.begin, k.end, 1, oneRow); },
      [&] {
        product.forEachChunk(
            layout.outputs / spec.tileOutputs(),
            [&](const Product::Chunk &chunk) {
              k.loop(chunk.begin, chunk.end, 1, [&](Value tile) {
                if (together)
                  return multiply(tile, chunk);
                product.forEachBlock(chunk, [&](const Product::Block &block) {
                  emitBlock(tile, block);
                });
              });
            });
      });
}
