//===- Compile.cpp - from a model file to a bundle ------------------------===//
#include "isthmus/Driver/Compile.h"

#include "CompileParts.h"
#include "isthmus/Bundle/BundleWriter.h"
#include "isthmus/Codegen/ObjectEmitter.h"
#include "isthmus/Driver/ManifestBuilder.h"
#include "isthmus/Import/Architecture.h"
#include "isthmus/InitAll.h"
#include "isthmus/Weights/WeightProgram.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/KernelABI.h"
#include "isthmus/runtime/Tokenizer.h"

#include "mlir/Pass/PassManager.h"
#include "mlir/Transforms/Passes.h"

#include <chrono>
#include <fstream>
#include <thread>

using namespace mlir;
using namespace isthmus;
using rt::Error;

namespace {
class ModelCompilation {
public:
  ModelCompilation(CompileContext &parts, OwningOpRef<ModuleOp> module,
                   const ModelInfo &model, const Topology &topology,
                   const CompileOptions &options)
      : parts(parts), module(std::move(module)), model(model),
        topology(topology), options(options) {}

  CompileReport run(const std::filesystem::path &output) {
    auto start = std::chrono::steady_clock::now();
    auto seconds = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                           start)
          .count();
    };
    contextTokens = options.contextTokens
                        ? options.contextTokens
                        : std::min<uint64_t>(4096, modelContext());
    addTopology();
    report("passes", 0);
    runPasses();

    BundleWriter writer(output);
    bundle::Manifest manifest;
    manifest.set_model(model.name);
    manifest.set_architecture(model.architecture);
    describeTopology(topology, manifest);
    writeKernels(writer, manifest);
    CompileReport result;
    double before = seconds();
    writeWeights(writer, manifest);
    result.weightSeconds = seconds() - before;
    writeTokenizer(writer, manifest);
    if (failed(translateModule(*module, manifest)))
      fail("translating the schedule");
    for (bundle::Plan &plan : *manifest.mutable_plans())
      plan.set_context_tokens(contextTokens);
    rt::KeyStore keys;
    writer.finish(manifest, keys);
    result.seconds = seconds();
    measure(output, result);
    return result;
  }

private:
  CompileContext &parts;
  MLIRContext &context = parts.context;
  OwningOpRef<ModuleOp> module;
  const ModelInfo &model;
  const Topology &topology;
  const CompileOptions &options;
  uint64_t contextTokens = 0;

  [[noreturn]] void fail(const std::string &what) {
    parts.fail(model.name, what);
  }

  void report(const std::string &stage, double fraction) {
    if (options.progress)
      options.progress(stage, fraction);
  }

  /// The longest sequence of the model's programs.
  uint64_t modelContext() {
    int64_t longest = 1;
    module->walk([&](fm::ProgramOp program) {
      if (auto length =
              program->getAttrOfType<IntegerAttr>("fm.context_length"))
        longest = std::max(longest, length.getInt());
    });
    return uint64_t(longest);
  }

  void addTopology() {
    OpBuilder b = OpBuilder::atBlockBegin(module->getBody());
    Location loc = b.getUnknownLoc();
    auto op = topo::TopologyOp::create(b, loc, "topology");
    b.setInsertionPointToStart(&op.getBody().emplaceBlock());
    for (size_t i = 0; i < topology.devices.size(); ++i) {
      const plan::Device &d = topology.devices[i];
      topo::DeviceOp::create(b, loc, d.name, d.memoryBytes,
                             llvm::APFloat(d.bandwidth), llvm::APFloat(d.ops),
                             topology.targets[i]);
    }
    for (const plan::Link &link : topology.links)
      topo::LinkOp::create(
          b, loc, topology.devices[link.a].name, topology.devices[link.b].name,
          llvm::APFloat(link.latency), llvm::APFloat(link.bandwidth));
  }

  /// Whether all devices multiply bf16 in a matrix unit.
  bool haveMatrixUnits() {
    return llvm::all_of(targetsOf(topology),
                        [](const TargetDescription *target) {
                          return target->tileRegisters > 0;
                        });
  }

  /// Whether a product of floats is made in one.
  bool usesMatrixUnit() {
    return module
        ->walk([](Operation *op) {
          auto attention = dyn_cast<fm::AttentionOp>(op);
          const bool uses = (attention && attention.getInTiles()) ||
                            llvm::any_of(op->getOperandTypes(), [](Type type) {
                              return fm::getParts(type) > 0;
                            });
          return uses ? WalkResult::interrupt() : WalkResult::advance();
        })
        .wasInterrupted();
  }

  void runPasses() {
    PassManager passes(&context);
    if (!options.prune.empty()) {
      fm::PruneWeightsOptions prune;
      prune.pattern = options.prune;
      prune.sparsity = options.sparsity;
      passes.addPass(fm::createPruneWeights(prune));
    }
    if (options.weights != "f32") {
      fm::QuantizeWeightsOptions quantize;
      StringRef format = options.weights;
      quantize.scales = format.consume_back("-row") ? "row" : "group";
      quantize.format = format.str();
      passes.addPass(fm::createQuantizeWeights(quantize));
    }
    const bool isAsked = options.products == "matrix";
    const bool inMatrixUnit =
        isAsked || (options.products == "auto" && haveMatrixUnits());
    if (inMatrixUnit) {
      fm::SplitRowsOptions split;
      // f32 weights are split once for a run of rows: measured, 50 of CLIP's
      // are too few, and 197 of ViT-B/16 enough.
      const bool hasF32 = options.weights == "f32" || options.weights == "file";
      split.leastImageRows = hasF32 && !isAsked ? 128 : 0;
      passes.addPass(fm::createSplitRows(split));
    }
    fm::SetKVFormatOptions kv;
    kv.format = !options.kv.empty() ? options.kv
                : options.weights == "f32" || options.weights == "f16"
                    ? options.weights
                    : "bf16";
    // Where rows are quantised anyway and no error outlasts the step.
    if (options.kv.empty() && StringRef(options.weights).starts_with("int"))
      kv.encoders = "int8";
    passes.addPass(fm::createSetKVFormat(kv));
    if (inMatrixUnit)
      passes.addPass(fm::createTileAttention());
    if (options.kvBudget > 0) {
      fm::LimitKVOptions limit;
      limit.budget = options.kvBudget;
      passes.addPass(fm::createLimitKV(limit));
    }
    passes.addPass(createCanonicalizerPass());
    dist::PartitionOptions partition;
    partition.contextTokens = int64_t(contextTokens);
    passes.addPass(dist::createPartition(partition));
    passes.addPass(dist::createSplitStages());
    if (failed(passes.run(*module)))
      fail("a pass");
    if (isAsked && !usesMatrixUnit())
      throw Error("nothing of this model goes in a matrix unit of floats "
                  "(--products matrix): neither {} weights nor its cache; add "
                  "--weights bf16 or --kv bf16, or leave --products out",
                  options.weights);
    if (!options.dumpIR.empty()) {
      std::error_code error;
      llvm::raw_fd_ostream file(options.dumpIR, error);
      if (error)
        throw Error("{}: {}", options.dumpIR, error.message());
      module->print(file);
    }
  }

  /// One library for each distinct target of the topology, the preferred ones
  /// first: a device loads the first that it can run. Templates must be
  /// the same for all: they are taken from the last conversion, which stays in
  /// the module.
  void writeKernels(BundleWriter &writer, bundle::Manifest &manifest) {
    const std::vector<const TargetDescription *> targets = targetsOf(topology);
    std::string templates;
    std::optional<int64_t> tileBytes;
    for (size_t i = 0; i < targets.size(); ++i) {
      report("kernels", double(i) / double(targets.size()));
      const TargetDescription &target = *targets[i];
      KernelSchedule schedule = target.schedule;
      if (auto chosen = options.schedules.find(target.name);
          chosen != options.schedules.end())
        parseSchedule(chosen->second, schedule);
      schedule.tileBytes =
          *(tileBytes = tileBytes.value_or(schedule.tileBytes));
      bool last = i + 1 == targets.size();
      OwningOpRef<ModuleOp> clone;
      if (!last)
        clone = module->clone();
      ModuleOp converted = last ? *module : *clone;
      PassManager passes(&context);
      ConvertFMToSchedOptions convert;
      convert.target = target.name;
      convert.schedule = toString(schedule);
      passes.addPass(createConvertFMToSched(convert));
      if (failed(passes.run(converted)))
        fail("generating kernels");
      std::string text;
      llvm::raw_string_ostream(text)
          << *converted.lookupSymbol<ModuleOp>("schedule");
      if (i > 0 && text != templates)
        throw Error("internal error: the schedules for {} and {} differ, and a "
                    "bundle holds one",
                    targets[0]->name, target.name);
      templates = std::move(text);
      auto kernels = converted.lookupSymbol<ModuleOp>("kernels");
      std::string library;
      if (failed(emitKernelLibrary(kernels, target, &library)))
        fail("compiling kernels");
      addKernelLibrary(writer, manifest, target, toString(schedule), library);
    }
  }

  void writeWeights(BundleWriter &writer, bundle::Manifest &manifest) {
    weights::Sources sources;
    uint32_t blob = writer.beginBlob("weights");
    unsigned threads = options.threads
                           ? options.threads
                           : std::max(1u, std::thread::hardware_concurrency());
    uint64_t total = 0, done = 0;
    for (auto param : module->getOps<fm::ParamOp>())
      total += uint64_t(
          ShapedType::getNumElements(param.getWeightType().getShape()));
    for (auto param : module->getOps<fm::ParamOp>()) {
      report("weights", double(done) / double(total));
      auto program = weights::WeightProgram::build(param, sources);
      if (failed(program))
        fail("weight program of " + param.getSymName().str());
      const PackedLayout &layout = program->layout();
      bundle::Weight *weight = manifest.add_weights();
      weight->set_name(param.getSymName().str());
      weight->set_blob(blob);
      weight->set_offset(writer.align(64));
      weight->set_size(uint64_t(layout.bytes()));
      weight->set_format(
          fm::stringifyWeightFormat(param.getWeightType().getFormat()).str());
      weight->set_outputs(uint64_t(layout.outputs));
      weight->set_inputs(uint64_t(layout.inputs));
      program->run(threads, [&](std::span<const std::byte> bytes) {
        writer.append(bytes);
      });
      done += uint64_t(
          ShapedType::getNumElements(param.getWeightType().getShape()));
    }
    writer.endBlob();
    report("weights", 1);
  }

  void writeTokenizer(BundleWriter &writer, bundle::Manifest &manifest) {
    const import::TokenizerFiles &files = model.tokenizer;
    if (files.json.empty())
      return;
    rt::CompiledTokenizer compiled = rt::compileTokenizer(files.json);
    // Throws now what it would throw whoever opens the bundle.
    rt::Tokenizer(compiled.config, compiled.vocabulary);
    bundle::Tokenizer *tokenizer = manifest.mutable_tokenizer();
    tokenizer->set_blob(writer.beginBlob("tokenizer.json"));
    writer.append(std::as_bytes(std::span(compiled.config)));
    writer.endBlob();
    tokenizer->set_vocabulary(writer.beginBlob("vocabulary"));
    writer.append(compiled.vocabulary);
    writer.endBlob();
    tokenizer->set_chat_template(files.chatTemplate);
    tokenizer->set_bos(files.bos);
    for (uint32_t eos : files.eos)
      tokenizer->add_eos(eos);
    for (uint32_t id : files.prefix)
      tokenizer->add_prefix(id);
    for (uint32_t id : files.suffix)
      tokenizer->add_suffix(id);
  }
};
} // namespace

CompileReport isthmus::compileModel(CompileContext &parts,
                                    OwningOpRef<ModuleOp> module,
                                    const ModelInfo &model,
                                    const Topology &topology,
                                    const CompileOptions &options,
                                    const std::filesystem::path &output) {
  return ModelCompilation(parts, std::move(module), model, topology, options)
      .run(output);
}

CompileReport isthmus::compile(const import::Checkpoint &checkpoint,
                               const Topology &topology,
                               const CompileOptions &options,
                               const std::filesystem::path &output) {
  const auto start = std::chrono::steady_clock::now();
  if (options.progress)
    options.progress("import", 0);
  CompileContext parts;
  CompileReport report = compileModel(
      parts, import::buildModel(parts.context, checkpoint),
      {checkpoint.name, checkpoint.architecture, checkpoint.tokenizer},
      topology, options, output);
  report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return report;
}
