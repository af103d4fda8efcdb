//===- LimitKV.cpp - fm-limit-kv ------------------------------------------===//
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/FM/Transforms/Passes.h"

namespace isthmus::fm {
#define GEN_PASS_DEF_LIMITKV
#include "isthmus/Dialect/FM/Transforms/Passes.h.inc"
} // namespace isthmus::fm

using namespace mlir;
using namespace isthmus::fm;

namespace {
struct LimitKV : public isthmus::fm::impl::LimitKVBase<LimitKV> {
  using Base::Base;

  void runOnOperation() override {
    if (sinks < 0 || budget <= sinks) {
      getOperation().emitError("fm-limit-kv: the budget must exceed the ")
          << int64_t(sinks) << " sinks, got " << int64_t(budget);
      return signalPassFailure();
    }
    getOperation().walk([&](AttentionOp attention) {
      // What encoders keep lasts for one step.
      if (attention.getBidirectional())
        return;
      // A model's own window may be smaller: it was trained with it.
      if (attention.getWindow() &&
          int64_t(*attention.getSinks() + *attention.getWindow()) <= budget)
        return;
      attention.setSinks(sinks);
      attention.setWindow(budget - sinks);
    });
  }
};
} // namespace
