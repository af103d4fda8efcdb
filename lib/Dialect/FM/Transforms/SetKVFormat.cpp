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
    auto generating = parse(format);
    auto encoding = encoders.empty() ? generating : parse(encoders);
    if (!generating || !encoding)
      return signalPassFailure();
    auto set = [](Operation *op, WeightFormat chosen) {
      op->walk([&](AttentionOp attention) { attention.setKvFormat(chosen); });
    };
    set(getOperation(), *generating);
    SymbolTable symbols(getOperation());
    // A block that generates too stays as it is.
    for (bool encodes : {true, false})
      for (auto program : getOperation().getOps<ProgramOp>())
        for (auto call : program.getOps<CallOp>())
          if (program->hasAttr("fm.task") == encodes)
            set(symbols.lookup(call.getCallee()),
                encodes ? *encoding : *generating);
  }

private:
  std::optional<WeightFormat> parse(const std::string &name) {
    auto chosen = symbolizeWeightFormat(name);
    if (chosen && isKVFormat(*chosen))
      return chosen;
    getOperation().emitError("fm-set-kv-format: format must be f32, f16, "
                             "bf16 or int8, got '")
        << name << "'";
    return std::nullopt;
  }
};
} // namespace
