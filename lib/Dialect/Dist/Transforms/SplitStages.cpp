//===- SplitStages.cpp - dist-split-stages --------------------------------===//
#include "isthmus/Dialect/Dist/IR/Dist.h"
#include "isthmus/Dialect/Dist/Transforms/Passes.h"
#include "isthmus/Dialect/FM/IR/FM.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/IRMapping.h"

namespace isthmus::dist {
#define GEN_PASS_DEF_SPLITSTAGES
#include "isthmus/Dialect/Dist/Transforms/Passes.h.inc"
} // namespace isthmus::dist

using namespace mlir;
using namespace isthmus;

namespace {
struct SplitStages : public dist::impl::SplitStagesBase<SplitStages> {
  using Base::Base;

  void runOnOperation() override {
    SmallVector<fm::ProgramOp> programs(getOperation().getOps<fm::ProgramOp>());
    for (fm::ProgramOp program : programs)
      if (failed(split(program)))
        return signalPassFailure();
  }

private:
  /// One stage under construction: a program with the inputs of the original.
  struct Stage {
    fm::ProgramOp program;
    IRMapping mapping;
  };

  Stage open(fm::ProgramOp program, OpBuilder &builder, StringAttr device,
             unsigned number) {
    builder.setInsertionPoint(program);
    auto stage = dist::StageOp::create(
        builder, program.getLoc(),
        (program.getSymName() + "_" + Twine(number)).str(), device.getValue());
    builder.setInsertionPointToStart(&stage.getBody().emplaceBlock());
    auto part = cast<fm::ProgramOp>(builder.cloneWithoutRegions(*program));
    Block &body = part.getBody().emplaceBlock();
    Stage result{part, {}};
    for (BlockArgument argument : program.getBody().getArguments())
      result.mapping.map(
          argument, body.addArgument(argument.getType(), argument.getLoc()));
    builder.setInsertionPointToStart(&body);
    return result;
  }

  /// Ends a stage that sends its value on: it returns nothing.
  void close(Stage &stage, OpBuilder &builder) {
    stage.program.setFunctionType(
        builder.getFunctionType(stage.program.getArgumentTypes(), TypeRange()));
    fm::ReturnOp::create(builder, stage.program.getLoc(), ValueRange());
  }

  LogicalResult split(fm::ProgramOp program) {
    OpBuilder builder(program);
    std::optional<Stage> stage;
    unsigned number = 0;
    for (Operation &op : program.getBody().front()) {
      if (auto call = dyn_cast<fm::CallOp>(op); call && !stage) {
        if (!call.getDevice())
          return call.emitError("is on no device: run dist-partition first");
        stage =
            open(program, builder, call.getDeviceAttr().getAttr(), number++);
      }
      if (!stage)
        return op.emitError("a program starts with a call");
      auto transfer = dyn_cast<dist::TransferOp>(op);
      if (!transfer) {
        builder.clone(op, stage->mapping);
        continue;
      }
      dist::SendOp::create(builder, op.getLoc(),
                           stage->mapping.lookup(transfer.getValue()),
                           transfer.getDestination());
      close(*stage, builder);
      stage = open(program, builder, transfer.getDestinationAttr().getAttr(),
                   number++);
      Value received = dist::RecvOp::create(
          builder, op.getLoc(), transfer.getType(), transfer.getSource());
      stage->mapping.map(transfer.getResult(), received);
    }
    program.erase();
    return success();
  }
};
} // namespace
