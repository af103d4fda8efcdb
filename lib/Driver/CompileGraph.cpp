//===- CompileGraph.cpp - from an ONNX file to a bundle -------------------===//
#include "CompileParts.h"
#include "isthmus/Codegen/ObjectEmitter.h"
#include "isthmus/Conversion/GraphToKernels.h"
#include "isthmus/Dialect/Graph/Transforms/Passes.h"
#include "isthmus/Driver/HostGraphs.h"
#include "isthmus/Import/OnnxImport.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/MappedFile.h"

#include "mlir/Pass/PassManager.h"

#include <chrono>
#include <map>
#include <set>

using namespace mlir;
using namespace isthmus;
using rt::Error;

namespace {
/// Writes a graph as a bundle.
class GraphWriter {
public:
  GraphWriter(graph::ProgramOp program, const std::string &name,
              const Topology &topology, const CompileOptions &options)
      : program(program), name(name), topology(topology), options(options) {}

  bool run(rt::KeyStore &keys, const std::filesystem::path &output) {
    BundleWriter writer(output);
    bundle::Manifest manifest;
    manifest.set_model(name);
    manifest.set_architecture("onnx");
    describeTopology(topology, manifest);
    bundle::Program *out = manifest.add_programs();
    out->set_name("main");
    if (!writeKernels(writer, manifest, *out->mutable_graph()))
      return false;
    writeConstants(writer, manifest);
    bundle::Plan *plan = manifest.add_plans();
    plan->set_name("compiled");
    plan->add_stages();
    writer.finish(manifest, keys);
    return true;
  }

private:
  graph::ProgramOp program;
  const std::string &name;
  const Topology &topology;
  const CompileOptions &options;
  std::vector<graph::ConstantOp> constants; ///< in the order of their weights
  std::map<const void *, uint32_t> weights;

  void report(const std::string &stage, double fraction) {
    if (options.progress)
      options.progress(stage, fraction);
  }

  bool writeKernels(BundleWriter &writer, bundle::Manifest &manifest,
                    bundle::Graph &graph) {
    const auto targets = targetsOf(topology);
    auto addWeight = [&](graph::ConstantOp op) {
      auto [found, fresh] = weights.try_emplace(op.getAsOpaquePointer(),
                                                uint32_t(constants.size()));
      if (fresh)
        constants.push_back(op);
      return found->second;
    };
    for (size_t i = 0; i < targets.size(); ++i) {
      report("kernels", double(i) / double(targets.size()));
      OwningOpRef<ModuleOp> kernels =
          ModuleOp::create(program.getLoc(), "kernels");
      graph.Clear();
      convertGraph(program, *kernels, *targets[i], addWeight, graph);
      std::string library;
      if (failed(approximateMath(*kernels)) ||
          failed(emitKernelLibrary(*kernels, *targets[i], &library, nullptr,
                                   true)))
        return false;
      addKernelLibrary(writer, manifest, *targets[i], "", library);
    }
    return true;
  }

  /// Copies a part of a file piece by piece, so that memory does not follow it.
  static void copy(const rt::MappedFile &file, uint64_t offset, uint64_t bytes,
                   const std::string &name, BundleWriter &writer) {
    constexpr uint64_t kPiece = 16 << 20;
    const auto whole = file.slice(offset, bytes, name);
    for (uint64_t at = 0; at < bytes; at += kPiece) {
      const uint64_t piece = std::min(kPiece, bytes - at);
      writer.append(whole.subspan(at, piece));
      file.release(offset + at, piece);
    }
  }

  /// The same for elements of less than eight bits: in memory each has a byte.
  static void unpack(const rt::MappedFile &file, uint64_t offset,
                     uint64_t count, rt::DataType type, const std::string &name,
                     BundleWriter &writer) {
    constexpr uint64_t kPiece = 4 << 20;
    const uint64_t perByte = 8 / rt::packedBits(type);
    const uint64_t bytes = (count + perByte - 1) / perByte;
    const auto whole = file.slice(offset, bytes, name);
    for (uint64_t at = 0; at < bytes; at += kPiece) {
      const auto piece = whole.subspan(at, std::min(kPiece, bytes - at));
      const std::vector<char> values = rt::unpack(
          piece, type, std::min(piece.size() * perByte, count - at * perByte));
      writer.append(std::as_bytes(std::span(values)));
      file.release(offset + at, piece.size());
    }
  }

  void writeConstants(BundleWriter &writer, bundle::Manifest &manifest) {
    const uint32_t blob = writer.beginBlob("weights");
    std::map<std::string, rt::MappedFile> files;
    for (size_t i = 0; i < constants.size(); ++i) {
      graph::ConstantOp op = constants[i];
      report("weights", double(i) / double(constants.size()));
      auto type = cast<RankedTensorType>(op.getType());
      bundle::Weight *weight = manifest.add_weights();
      auto name = dyn_cast<NameLoc>(op.getLoc());
      weight->set_name(name ? name.getName().str() : "");
      weight->set_blob(blob);
      weight->set_offset(writer.align(64));
      weight->set_format(
          std::string(rt::nameOf(graph::dataTypeOf(type.getElementType()))));
      const uint64_t bytes =
          uint64_t(type.getNumElements()) *
          rt::bytesOf(graph::dataTypeOf(type.getElementType()));
      weight->set_size(bytes);
      if (op.getValue()) {
        const std::vector<char> values = graph::toBytes(*op.getValue());
        writer.append(std::as_bytes(std::span(values)));
        continue;
      }
      const std::string path = op.getFile()->str();
      const rt::MappedFile &file = files.try_emplace(path, path).first->second;
      const auto offset = uint64_t(*op.getOffset());
      const rt::DataType dtype = graph::dataTypeOf(type.getElementType());
      if (rt::packedBits(dtype) < 8)
        unpack(file, offset, uint64_t(type.getNumElements()), dtype,
               weight->name(), writer);
      else
        copy(file, offset, bytes, weight->name(), writer);
    }
    // Kernels may read a vector beyond the last element.
    writer.append(std::vector<std::byte>(64));
    writer.endBlob();
    report("weights", 1);
  }
};

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
    passes.addPass(graph::createExpandPowers());
    passes.addPass(graph::createRaiseGelu());
    passes.addPass(graph::createFoldQDQ());
    passes.addPass(graph::createPackProducts());
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

bool isthmus::writeGraph(graph::ProgramOp program, const std::string &name,
                         const Topology &topology,
                         const CompileOptions &options, rt::KeyStore &keys,
                         const std::filesystem::path &output) {
  return GraphWriter(program, name, topology, options).run(keys, output);
}

CompileReport isthmus::compile(import::OnnxModel &model,
                               const Topology &topology,
                               const CompileOptions &options,
                               const std::filesystem::path &output) {
  return GraphCompilation(model, topology, options).run(output);
}
