//===- CompileGraph.cpp - from an ONNX file to a bundle -------------------===//
#include "CompileParts.h"
#include "isthmus/Conversion/GraphToKernels.h"
#include "isthmus/Conversion/Passes.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"
#include "isthmus/Driver/HostGraphs.h"
#include "isthmus/Import/OnnxImport.h"
#include "isthmus/runtime/Error.h"

#include "mlir/Pass/PassManager.h"

#include <chrono>
#include <set>

using namespace mlir;
using namespace isthmus;
using rt::Error;

namespace {
class GraphCompilation {
public:
  GraphCompilation(import::OnnxModel &model, const Topology &topology,
                   const CompileOptions &options)
      : model(model), topology(topology), options(options),
        where(model.path.string()) {}

  CompileReport run(const std::filesystem::path &output) {
    const auto start = std::chrono::steady_clock::now();
    report("import", 0);
    build();
    CompileReport result;
    if (!options.asGraph) {
      RaisedModel raised = raiseToFM(program, hostGraphCompiler(),
                                     {import::contextLengthBeside(model.path)});
      if (raised.module)
        result = compileRaised(std::move(raised.module), output);
      else if (takesTokens())
        result.notRaised = raised.reason;
    }
    if (result.bundleBytes == 0) {
      if (topology.devices.size() != 1)
        throw Error("{}: an ONNX graph runs on one device, the topology has {}",
                    where, topology.devices.size());
      replaceUnsupported(result.notRaised);
      runPasses();
      rt::KeyStore keys;
      if (!writeGraph(program, model.path.stem().string(), topology, options,
                      keys, output))
        parts.fail(where, "compiling kernels");
      measure(output, result);
    }
    result.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
            .count();
    return result;
  }

private:
  import::OnnxModel &model;
  const Topology &topology;
  const CompileOptions &options;
  const std::string where;
  CompileContext parts;
  OwningOpRef<ModuleOp> module;
  graph::ProgramOp program;

  void report(const std::string &stage, double fraction) {
    if (options.progress)
      options.progress(stage, fraction);
  }

  void build() {
    module = import::buildGraph(parts.context, model);
    if (failed(module->verify()))
      parts.fail(where, "building the graph");
    program = *module->getOps<graph::ProgramOp>().begin();
  }

  bool takesTokens() {
    return llvm::is_contained(
        program.getArgumentNames().getAsValueRange<StringAttr>(), "input_ids");
  }

  void runPasses() {
    PassManager passes(&parts.context);
    passes.addPass(graph::createHoistConstants());
    passes.addPass(graph::createExpandPowers());
    passes.addPass(graph::createRaiseGelu());
    passes.addPass(graph::createFoldQDQ());
    passes.addPass(graph::createPackProducts());
    passes.addPass(createFuseElementwise());
    if (failed(passes.run(*module)))
      parts.fail(where, "a pass");
    dump();
  }

  CompileReport compileRaised(OwningOpRef<ModuleOp> raised,
                              const std::filesystem::path &output) {
    if (failed(raised->verify()))
      parts.fail(where, "raising the graph");
    auto main = *raised->getOps<fm::ProgramOp>().begin();
    const int64_t vocabulary =
        main->getAttrOfType<IntegerAttr>("fm.vocab_size").getInt();
    // "model.onnx" says less than its folder.
    std::string name = model.path.stem().string();
    if (name == "model")
      name = std::filesystem::absolute(model.path)
                 .parent_path()
                 .filename()
                 .string();
    return compileModel(
        parts, std::move(raised),
        {name, "onnx", import::tokenizerBeside(model.path, vocabulary)},
        topology, options, output);
  }

  /// Operators without code become what they are defined as, as long as that
  /// helps.
  void replaceUnsupported(const std::string &notRaised) {
    std::vector<UnsupportedNode> unsupported;
    std::string inlining;
    for (int round = 0;; ++round) {
      unsupported = findUnsupported(program);
      std::set<std::string> names;
      for (const UnsupportedNode &node : unsupported)
        names.insert(node.op);
      constexpr int kMostRounds = 8;
      if (unsupported.empty() || round == kMostRounds)
        break;
      try {
        if (!import::inlineOperators(model, [&](const std::string &op) {
              return names.contains(op);
            }))
          break;
        build();
      } catch (const Error &error) {
        // What cannot be run counts more than why it cannot be replaced.
        inlining = error.what();
        break;
      }
    }
    if (unsupported.empty())
      return;
    dump(); // also of what cannot be run
    std::string list;
    for (const UnsupportedNode &node : unsupported)
      list += fmt::format("\n  {} (node '{}'): {}", node.op, node.name,
                          node.reason);
    if (!inlining.empty())
      list += "\n" + inlining;
    if (!notRaised.empty())
      list += "\nand it is no decoder: " + notRaised;
    throw Error("{}: {} nodes cannot be run (operators of opset {}):{}", where,
                unsupported.size(), import::kOpset, list);
  }

  void dump() {
    if (options.dumpIR.empty())
      return;
    std::error_code error;
    llvm::raw_fd_ostream file(options.dumpIR, error);
    if (error)
      throw Error("{}: {}", options.dumpIR, error.message());
    module->print(file);
  }
};
} // namespace

CompileReport isthmus::compile(import::OnnxModel &model,
                               const Topology &topology,
                               const CompileOptions &options,
                               const std::filesystem::path &output) {
  return GraphCompilation(model, topology, options).run(output);
}
