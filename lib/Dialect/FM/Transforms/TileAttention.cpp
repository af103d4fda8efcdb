//===- TileAttention.cpp - fm-tile-attention ------------------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"

namespace isthmus::fm {
#define GEN_PASS_DEF_TILEATTENTION
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm

using namespace mlir;
using namespace isthmus::fm;

namespace {
struct TileAttention
    : public isthmus::fm::impl::TileAttentionBase<TileAttention> {
  using Base::Base;

  void runOnOperation() override {
    getOperation().walk([&](AttentionOp attention) {
      if (!attention.fitsTiles())
        return;
      attention.setInTiles(true);
      ++numTiled;
    });
  }
};
} // namespace
