//===- WriteGraph.cpp - a graph as a bundle -------------------------------===//
#include "CompileParts.h"
#include "isthmus/Codegen/ObjectEmitter.h"
#include "isthmus/Conversion/GraphToKernels.h"
#include "isthmus/Driver/HostGraphs.h"
#include "isthmus/Weights/GraphPacking.h"
#include "isthmus/runtime/MappedFile.h"

#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/SetVector.h"

#include <map>

using namespace mlir;
using namespace isthmus;

namespace {
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
  std::vector<Operation *> constants; ///< in the order of their weights
  std::map<const void *, uint32_t> weights;
  std::map<std::string, rt::MappedFile> files;

  void report(const std::string &stage, double fraction) {
    if (options.progress)
      options.progress(stage, fraction);
  }

  bool writeKernels(BundleWriter &writer, bundle::Manifest &manifest,
                    bundle::Graph &graph) {
    const auto targets = targetsOf(topology);
    auto addWeight = [&](Operation *op) {
      auto [found, fresh] = weights.try_emplace(op, uint32_t(constants.size()));
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

  const rt::MappedFile &fileOf(graph::ConstantOp op) {
    const std::string path = op.getFile()->str();
    return files.try_emplace(path, path).first->second;
  }

  void writeConstant(graph::ConstantOp op, uint64_t bytes,
                     const std::string &name, BundleWriter &writer) {
    if (op.getValue()) {
      const std::vector<char> values = graph::toBytes(*op.getValue());
      writer.append(std::as_bytes(std::span(values)));
      return;
    }
    auto type = cast<RankedTensorType>(op.getType());
    const auto offset = uint64_t(*op.getOffset());
    const rt::DataType dtype = graph::dataTypeOf(type.getElementType());
    if (rt::packedBits(dtype) < 8)
      unpack(fileOf(op), offset, uint64_t(type.getNumElements()), dtype, name,
             writer);
    else
      copy(fileOf(op), offset, bytes, name, writer);
  }

  /// The elements of a constant, or of what follows from constants.
  struct Elements {
    std::span<const std::byte> bytes;
    std::vector<char> values; ///< if they are not in a file
    rt::Value computed;       ///< if they are not in the graph
    std::function<void()> release = [] {};
  };

  Elements elementsOf(Value value) {
    Elements result;
    auto constant = value.getDefiningOp<graph::ConstantOp>();
    if (constant && constant.getValue()) {
      result.values = graph::toBytes(*constant.getValue());
      result.bytes = std::as_bytes(std::span(result.values));
    } else if (constant) {
      auto type = cast<RankedTensorType>(constant.getType());
      const uint64_t bytes =
          uint64_t(type.getNumElements()) *
          rt::bytesOf(graph::dataTypeOf(type.getElementType()));
      const auto offset = uint64_t(*constant.getOffset());
      const rt::MappedFile &file = fileOf(constant);
      result.bytes = file.slice(offset, bytes, "a constant");
      result.release = [&file, offset, bytes] { file.release(offset, bytes); };
    } else {
      result.computed = compute(value);
      const rt::Tensor &tensor = result.computed.needTensor();
      result.bytes = {tensor.data.get(), tensor.bytes()};
    }
    return result;
  }

  /// Runs, on this machine, what a value that hangs on constants alone comes
  /// from.
  static rt::Value compute(Value value) {
    llvm::SetVector<Operation *> slice;
    std::function<void(Operation *)> add = [&](Operation *op) {
      if (slice.contains(op))
        return;
      for (Value operand : op->getOperands())
        add(operand.getDefiningOp());
      slice.insert(op);
    };
    add(value.getDefiningOp());
    OpBuilder b(value.getContext());
    OwningOpRef<ModuleOp> module = ModuleOp::create(value.getLoc());
    b.setInsertionPointToStart(module->getBody());
    auto part = graph::ProgramOp::create(b, value.getLoc(), "part",
                                         b.getStrArrayAttr({}),
                                         b.getStrArrayAttr({"result"}));
    b.setInsertionPointToStart(&part.getBody().emplaceBlock());
    IRMapping mapping;
    for (Operation *op : slice)
      b.clone(*op, mapping);
    graph::ReturnOp::create(b, value.getLoc(), {mapping.lookup(value)});
    return hostGraphCompiler()(*module)({}).at(0);
  }

  /// Whether a node exchanges the rows and columns of a matrix.
  static bool isTurned(graph::NodeOp node) {
    auto order = node.getOnnxAttributes().getAs<DenseI64ArrayAttr>("perm");
    return node.getOp() == "Transpose" &&
           (!order || order.asArrayRef() == ArrayRef<int64_t>({1, 0}));
  }

  void writePacked(graph::NodeOp node, BundleWriter &writer) {
    const PackSink sink = [&](std::span<const std::byte> bytes) {
      writer.append(bytes);
    };
    const StringRef op = node.getOp();
    Value source = node.getInputs()[0];
    if (op == "isthmus.PackedSums")
      source = source.getDefiningOp<graph::NodeOp>().getInputs()[0];
    bool turned = false;
    if (auto turn = source.getDefiningOp<graph::NodeOp>();
        turn && isTurned(turn) && op != "isthmus.PackFilters") {
      source = turn.getInputs()[0];
      turned = true;
    }
    auto type = cast<RankedTensorType>(source.getType());
    const rt::DataType dtype = graph::dataTypeOf(type.getElementType());
    const Elements elements = elementsOf(source);
    if (op == "isthmus.PackFilters") {
      int64_t taps = 1;
      for (int64_t size : type.getShape().drop_front(2))
        taps *= size;
      packFilters(elements.bytes, dtype, type.getDimSize(0), type.getDimSize(1),
                  taps, zeroPoints(node.getInputs()[1]), sink);
    } else {
      const MatrixView matrix{elements.bytes, dtype,
                              type.getDimSize(turned ? 1 : 0),
                              type.getDimSize(turned ? 0 : 1), turned};
      if (op == "isthmus.PackFloats")
        packFloats(matrix, sink);
      else if (op == "isthmus.PackIntegers")
        packIntegers(matrix, sink);
      else
        packSums(matrix, sink);
    }
    elements.release();
  }

  std::vector<int32_t> zeroPoints(Value value) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    if (!type)
      return {0};
    const Elements elements = elementsOf(value);
    const bool isUnsigned =
        graph::dataTypeOf(type.getElementType()) == rt::DataType::U8;
    std::vector<int32_t> result;
    for (std::byte raw : elements.bytes)
      result.push_back(isUnsigned ? int32_t(uint8_t(raw))
                                  : int32_t(int8_t(raw)));
    return result;
  }

  void writeConstants(BundleWriter &writer, bundle::Manifest &manifest) {
    const uint32_t blob = writer.beginBlob("weights");
    for (size_t i = 0; i < constants.size(); ++i) {
      Operation *op = constants[i];
      report("weights", double(i) / double(constants.size()));
      auto type = cast<RankedTensorType>(op->getResult(0).getType());
      bundle::Weight *weight = manifest.add_weights();
      auto name = dyn_cast<NameLoc>(op->getLoc());
      weight->set_name(name ? name.getName().str() : "");
      weight->set_blob(blob);
      weight->set_offset(writer.align(64));
      weight->set_format(
          std::string(rt::nameOf(graph::dataTypeOf(type.getElementType()))));
      const uint64_t bytes =
          uint64_t(type.getNumElements()) *
          rt::bytesOf(graph::dataTypeOf(type.getElementType()));
      weight->set_size(bytes);
      if (auto node = dyn_cast<graph::NodeOp>(op))
        writePacked(node, writer);
      else
        writeConstant(cast<graph::ConstantOp>(op), bytes, weight->name(),
                      writer);
    }
    // Kernels may read a vector beyond the last element.
    writer.append(std::vector<std::byte>(64));
    writer.endBlob();
    report("weights", 1);
  }
};
} // namespace

bool isthmus::writeGraph(graph::ProgramOp program, const std::string &name,
                         const Topology &topology,
                         const CompileOptions &options, rt::KeyStore &keys,
                         const std::filesystem::path &output) {
  return GraphWriter(program, name, topology, options).run(keys, output);
}
