//===- GatedLinear.cpp - both products of a gated unit --------------------===//
//
// A tile is two panels of outputs, 32 of them: a group of what the next product
// takes as int8, so that nothing but quantised rows leaves the kernel.
//
//===----------------------------------------------------------------------===//
#include "Product.h"
#include "RowWise.h"

using namespace mlir;
using namespace isthmus;

void isthmus::emitGatedLinear(KernelBuilder &k, const GatedLinearSpec &spec) {
  using Values = KernelBuilder::Values;
  constexpr int64_t kPanels = 2;
  const PackedLayout &layout = spec.weight;
  const QRowsLayout qrows{layout.outputs};
  Product product(k, layout);
  Value x = k.operand(0), gate = k.operand(1), up = k.operand(2),
        y = k.operand(3);

  auto panel = [&](Value weight, Value tile, int64_t p) {
    Value index = k.add(k.mul(tile, kPanels), p);
    return k.ptr(weight, k.mul(index, layout.panelBytes()));
  };
  /// The rows' 32 outputs, `values[panel]` each.
  auto store = [&](Value tile, Value row, Value low, Value high) {
    if (spec.quantize) {
      Value out = k.ptr(y, k.mul(row, qrows.rowBytes()));
      storeQuantizedGroup(k, out, tile, qrows, low, high);
      return;
    }
    Value out = k.ptr(k.ptr(y, k.mul(row, floatRowBytes(layout.outputs))),
                      k.mul(tile, kPanels * kLanes * 4));
    k.store(low, out);
    k.store(high, out, kLanes * 4);
  };

  Value rows = k.rowCount();
  k.loop(k.begin, k.end, 1, [&](Value tile) {
    k.ifElse(
        k.equal(rows, k.cst(1)),
        [&] {
          Values panels{panel(gate, tile, 0), panel(gate, tile, 1),
                        panel(up, tile, 0), panel(up, tile, 1)};
          Values sums = product.sums(panels, {x}, /*ahead=*/kPanels);
          store(tile, k.cst(0), emitSiluMul(k, sums[0], sums[2]),
                emitSiluMul(k, sums[1], sums[3]));
        },
        [&] {
          product.forEachBlock(rows, [&](Value firstRow, int64_t count) {
            Values xs, gated[kPanels];
            for (int64_t r = 0; r < count; ++r)
              xs.push_back(
                  k.ptr(x, k.mul(k.add(firstRow, r), product.rowBytes())));
            for (int64_t p = 0; p < kPanels; ++p) {
              Values g = product.sums({panel(gate, tile, p)}, xs, kPanels);
              Values u = product.sums({panel(up, tile, p)}, xs, kPanels);
              for (int64_t r = 0; r < count; ++r)
                gated[p].push_back(emitSiluMul(k, g[r], u[r]));
            }
            for (int64_t r = 0; r < count; ++r)
              store(tile, k.add(firstRow, r), gated[0][r], gated[1][r]);
          });
        });
  });
}
