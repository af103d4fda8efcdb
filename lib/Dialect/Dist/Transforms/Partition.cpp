//===- Partition.cpp - dist-partition -------------------------------------===//
#include "isthmus/Dialect/Dist/IR/Dist.h"
#include "isthmus/Dialect/Dist/Transforms/Passes.h"
#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Dialect/Topo/IR/Topo.h"
#include "isthmus/Plan/Pipeline.h"
#include "isthmus/Weights/KVLayout.h"
#include "isthmus/Weights/PackedLayout.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/MapVector.h"

namespace isthmus::dist {
#define GEN_PASS_DEF_PARTITION
#include "isthmus/Dialect/Dist/Transforms/Passes.h.inc"
} // namespace isthmus::dist

using namespace mlir;
using namespace isthmus;

/// Rows of the largest step that a runtime runs by default.
static constexpr uint64_t kStepTokens = 512, kStepOutputs = 64;

namespace {
struct Partition : public dist::impl::PartitionBase<Partition> {
  using Base::Base;

  void runOnOperation() override {
    auto topologies = getOperation().getOps<topo::TopologyOp>();
    if (topologies.empty()) {
      getOperation().emitError("dist-partition: the module has no "
                               "topo.topology to place the model on");
      return signalPassFailure();
    }
    readTopology(*topologies.begin());
    for (fm::ProgramOp program : getOperation().getOps<fm::ProgramOp>())
      if (failed(place(program)))
        return signalPassFailure();
  }

private:
  plan::Problem topology;

  void readTopology(topo::TopologyOp op) {
    topology = {};
    llvm::DenseMap<StringRef, size_t> index;
    for (auto device : op.getOps<topo::DeviceOp>()) {
      index[device.getSymName()] = topology.devices.size();
      topology.devices.push_back({device.getSymName().str(), device.getMemory(),
                                  device.getBandwidth().convertToDouble(),
                                  device.getOps().convertToDouble()});
    }
    for (auto link : op.getOps<topo::LinkOp>())
      topology.links.push_back({index[link.getA()], index[link.getB()],
                                link.getLatency().convertToDouble(),
                                link.getBandwidth().convertToDouble()});
  }

  LogicalResult place(fm::ProgramOp program) {
    SymbolTable symbols(getOperation());
    plan::Problem problem = topology;
    SmallVector<fm::CallOp> calls(program.getOps<fm::CallOp>());
    llvm::DenseMap<StringRef, size_t> ids;
    for (fm::CallOp call : calls)
      problem.layers.push_back(measure(call, symbols, ids, problem));
    plan::Result result = plan::splitPipeline(problem);
    if (result.runs.empty())
      return program.emitError("does not fit the topology: ") << result.reason;

    OpBuilder builder(program);
    for (auto [i, run] : llvm::enumerate(result.runs)) {
      StringRef name = problem.devices[run.device].name;
      for (size_t c = run.first; c < run.first + run.count; ++c)
        calls[c].setDevice(name);
      if (i == 0)
        continue;
      StringRef previous = problem.devices[result.runs[i - 1].device].name;
      Value value = calls[run.first - 1].getResult();
      builder.setInsertionPointAfterValue(value);
      auto transfer = dist::TransferOp::create(
          builder, value.getLoc(), value.getType(), value, previous, name);
      value.replaceAllUsesExcept(transfer.getResult(), transfer);
    }
    return success();
  }

  plan::Layer measure(fm::CallOp call, SymbolTable &symbols,
                      llvm::DenseMap<StringRef, size_t> &ids,
                      plan::Problem &problem) {
    plan::Layer layer{};
    auto block = symbols.lookup<fm::BlockOp>(call.getCallee());
    unsigned first = call.getInputs().size() + (call.getState() ? 1 : 0);
    for (auto [i, ref] :
         llvm::enumerate(call.getParams().getAsRange<FlatSymbolRefAttr>())) {
      auto param = symbols.lookup<fm::ParamOp>(ref.getValue());
      fm::WeightType type = param.getWeightType();
      bool matrix = type.getShape().size() == 2;
      const PackedLayout layout = type.getPackedLayout();
      auto [it, isNew] = ids.try_emplace(param.getSymName(), ids.size());
      if (isNew)
        problem.weightSizes.push_back(layout.bytes());
      layer.weightIds.push_back(it->second);
      // A lookup reads one row, a product the whole matrix.
      for (OpOperand &use : block.getBody().getArgument(first + i).getUses())
        if (fm::isProductWeight(use)) {
          layer.weightBytes += layout.bytes();
          if (matrix)
            layer.opsPerToken += 2.0 * double(layout.outputs * layout.inputs);
        }
    }
    block.walk([&](fm::AttentionOp attention) {
      const auto kvHeads = int64_t(attention.getKvHeads());
      KVLayout cache{static_cast<PackedFormat>(attention.getKvFormat()),
                     kvHeads,
                     fm::getFeatures(attention.getK().getType()) / kvHeads};
      layer.stateBytes += uint64_t(contextTokens * cache.positionBytes());
    });
    // An upper bound: every value of the block at once, for a full step, and
    // the two slots between calls. The linker's own figure is smaller.
    uint64_t rows = kStepTokens;
    for (Operation &op : block.getBody().front()) {
      if (fm::choosesRows(op))
        rows = kStepOutputs;
      for (Type type : op.getResultTypes())
        layer.workBytes += rows * 4 * uint64_t(fm::getFeatures(type));
    }
    layer.workBytes +=
        2 * rows * 4 * uint64_t(fm::getFeatures(call.getResult().getType()));
    layer.outputBytes =
        uint64_t(fm::getFeatures(call.getResult().getType())) * 4;
    return layer;
  }
};
} // namespace
