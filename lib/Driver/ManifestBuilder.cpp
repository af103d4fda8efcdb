//===- ManifestBuilder.cpp - IR to the bundle's manifest ------------------===//
#include "isthmus/Driver/ManifestBuilder.h"

#include "llvm/ADT/StringMap.h"

using namespace mlir;
using namespace isthmus;

static bundle::RowKind rowKind(sched::RowKind kind) {
  return kind == sched::RowKind::Tokens ? bundle::TOKENS : bundle::OUTPUTS;
}

static void translateCost(sched::CostAttr cost, bundle::Cost &out) {
  out.set_bytes(uint64_t(cost.getBytes()));
  out.set_bytes_per_row(uint64_t(cost.getRowBytes()));
  out.set_bytes_per_position(uint64_t(cost.getPositionBytes()));
  out.set_ops_per_row(uint64_t(cost.getRowOps()));
  out.set_ops_per_position(uint64_t(cost.getPositionOps()));
  out.set_bidirectional(cost.getBidirectional());
  // The two enumerations list the kinds in the same order.
  out.set_arithmetic(
      static_cast<bundle::Cost::Arithmetic>(cost.getArithmetic()));
}

void isthmus::translateTemplate(sched::TemplateOp op, bundle::Template &out) {
  out.set_name(op.getSymName().str());
  llvm::DenseMap<Value, bundle::Operand> operands;
  auto addBuffer = [&](Value value, bool perThread = false) {
    auto type = cast<sched::BufferType>(value.getType());
    bundle::Operand operand;
    operand.set_kind(bundle::Operand::BUFFER);
    operand.set_index(uint32_t(out.buffers_size()));
    operands[value] = operand;
    bundle::Buffer *buffer = out.add_buffers();
    buffer->set_row_bytes(uint64_t(type.getRowBytes()));
    buffer->set_rows(rowKind(type.getRows()));
    buffer->set_per_thread(perThread);
  };
  uint32_t bufferArguments = 0, weights = 0;
  for (BlockArgument argument : op.getBody().getArguments()) {
    if (isa<sched::BufferType>(argument.getType())) {
      addBuffer(argument);
      ++bufferArguments;
      continue;
    }
    bool weight = isa<sched::WeightType>(argument.getType());
    operands[argument].set_kind(weight ? bundle::Operand::WEIGHT
                                       : bundle::Operand::STATE);
    operands[argument].set_index(weight ? weights++ : 0);
  }
  // Input (if any) and output are the buffer arguments, in this order.
  out.set_has_input(bufferArguments == 2);
  out.set_output(bufferArguments - 1);
  out.set_weights(weights);
  if (auto bytes = op->getAttrOfType<IntegerAttr>("kv_page_bytes"))
    out.set_kv_page_bytes(uint64_t(bytes.getInt()));
  for (Operation &inner : op.getBody().front()) {
    if (auto buffer = dyn_cast<sched::BufferOp>(inner)) {
      addBuffer(buffer, buffer.getPerThread());
      continue;
    }
    auto launch = cast<sched::LaunchOp>(inner);
    bundle::Launch *message = out.add_launches();
    message->set_kernel(launch.getKernel().str());
    for (Value operand : launch.getOperands())
      *message->add_operands() = operands.lookup(operand);
    message->set_tiles(launch.getTiles());
    message->set_rows(rowKind(launch.getRows()));
    message->set_wait(launch.getWait() || launch.getWaitLarge());
    message->set_wait_large_only(launch.getWaitLarge());
    message->set_replicate(launch.getReplicate());
    message->set_rows_per_tile(launch.getRowsPerTile());
    message->set_per_partition(launch.getPerPartition());
    message->set_steps(launch.getSteps() == sched::Steps::Small ? bundle::SMALL
                       : launch.getSteps() == sched::Steps::Large
                           ? bundle::LARGE
                           : bundle::ANY);
    message->set_scratch_bytes(launch.getScratch());
    if (sched::CostAttr cost = launch.getCostAttr())
      translateCost(cost, *message->mutable_cost());
  }
}

/// What stands on a program beside its sizes.
static void translateProgram(fm::ProgramOp op, bundle::Program &out) {
  auto input = cast<RankedTensorType>(op.getArgumentTypes()[0]);
  if (input.getRank() == 2)
    out.set_input_features(uint64_t(input.getDimSize(1)));
  if (auto task = op->getAttrOfType<StringAttr>("fm.task"))
    out.set_task(task.getValue() == "classify" ? bundle::CLASSIFY
                                               : bundle::EMBED);
  if (op->hasAttr("fm.result_at_first"))
    out.set_result_row(bundle::FIRST);
  if (auto labels = op->getAttrOfType<ArrayAttr>("fm.labels"))
    for (StringRef label : labels.getAsValueRange<StringAttr>())
      out.add_labels(label.str());
  auto image = op->getAttrOfType<DictionaryAttr>("fm.image");
  if (!image)
    return;
  auto integer = [&](StringRef name) {
    return uint32_t(image.getAs<IntegerAttr>(name).getInt());
  };
  bundle::ImageInput *target = out.mutable_image();
  target->set_size(integer("size"));
  target->set_patch(integer("patch"));
  target->set_shortest_edge(integer("shortest_edge"));
  // Numbered as in the message.
  target->set_filter(bundle::ImageInput::Filter(integer("filter")));
  target->set_scale(float(image.getAs<FloatAttr>("scale").getValueAsDouble()));
  target->set_class_token(image.getAs<BoolAttr>("class_token").getValue());
  auto numbers = [&](StringRef name) {
    return image.getAs<ArrayAttr>(name).getAsValueRange<FloatAttr>();
  };
  for (const llvm::APFloat &value : numbers("mean"))
    target->add_mean(float(value.convertToDouble()));
  for (const llvm::APFloat &value : numbers("deviation"))
    target->add_deviation(float(value.convertToDouble()));
}

LogicalResult isthmus::translateModule(ModuleOp module,
                                       bundle::Manifest &manifest) {
  llvm::StringMap<uint32_t> templates, weights, devices;
  auto schedule = module.lookupSymbol<ModuleOp>("schedule");
  if (!schedule)
    return module.emitError("has no schedule: run convert-fm-to-sched first");
  for (auto op : schedule.getOps<sched::TemplateOp>()) {
    templates[op.getSymName()] = uint32_t(manifest.templates_size());
    translateTemplate(op, *manifest.add_templates());
  }
  for (int i = 0; i < manifest.weights_size(); ++i)
    weights[manifest.weights(i).name()] = uint32_t(i);
  for (int i = 0; i < manifest.devices_size(); ++i)
    devices[manifest.devices(i).name()] = uint32_t(i);

  // The stages of a program stand in the order of the pipeline.
  llvm::StringMap<std::pair<bundle::Program *, bundle::Plan *>> programs;
  for (auto op : module.getOps<dist::StageOp>()) {
    auto part = *op.getOps<fm::ProgramOp>().begin();
    auto &[program, plan] = programs[part.getSymName()];
    if (!program) {
      plan = manifest.add_plans();
      plan->set_name("compiled");
      plan->set_program(uint32_t(manifest.programs_size()));
      program = manifest.add_programs();
      program->set_name(part.getSymName().str());
      auto size = [&](StringRef name) {
        auto attribute = part->getAttrOfType<IntegerAttr>(name);
        return attribute ? uint64_t(attribute.getInt()) : 0;
      };
      program->set_context_length(size("fm.context_length"));
      program->set_vocab_size(size("fm.vocab_size"));
      translateProgram(part, *program);
    }
    // The result comes from the last stage.
    if (!part.getResultTypes().empty())
      program->set_output_features(
          uint64_t(fm::getFeatures(part.getResultTypes()[0])));
    bundle::Stage *stage = plan->add_stages();
    stage->set_device(devices.lookup(op.getDevice()));
    stage->set_first_call(uint32_t(program->calls_size()));
    for (auto call : part.getOps<fm::CallOp>()) {
      bundle::Call *message = program->add_calls();
      message->set_template_(templates.lookup(call.getCallee()));
      for (auto param : call.getParams().getAsRange<FlatSymbolRefAttr>())
        message->add_weights(weights.lookup(param.getValue()));
      message->set_state(call.getState() ? int32_t(*call.getState()) : -1);
    }
    stage->set_calls(uint32_t(program->calls_size()) - stage->first_call());
  }
  if (auto scale = module->getAttrOfType<FloatAttr>("fm.similarity_scale"))
    manifest.set_similarity_scale(scale.getValueAsDouble());
  if (programs.empty())
    return module.emitError("has no stages: run dist-split-stages first");
  return success();
}
