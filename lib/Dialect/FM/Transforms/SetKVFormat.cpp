//===- SetKVFormat.cpp - fm-set-kv-format ---------------------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"

namespace isthmus::fm {
#define GEN_PASS_DEF_SETKVFORMAT
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm

using namespace mlir;
using namespace isthmus::fm;

namespace {
struct SetKVFormat : public isthmus::fm::impl::SetKVFormatBase<SetKVFormat> {
  using Base::Base;

  void runOnOperation() override {
    auto chosen = symbolizeWeightFormat(format);
    if (!chosen || !isKVFormat(*chosen)) {
      getOperation().emitError("fm-set-kv-format: format must be f32, f16, "
                               "bf16 or int8, got '")
          << format << "'";
      return signalPassFailure();
    }
    getOperation().walk(
        [&](AttentionOp attention) { attention.setKvFormat(*chosen); });
  }
};
} // namespace
