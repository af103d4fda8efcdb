//===- isthmus-translate.cpp - between IR and everything else -------------===//
#include "isthmus/Codegen/ObjectEmitter.h"
#include "isthmus/Dialect/FM/Interpreter/Interpreter.h"
#include "isthmus/Driver/HostGraphs.h"
#include "isthmus/Driver/ManifestBuilder.h"
#include "isthmus/Import/Architecture.h"
#include "isthmus/InitAll.h"
#include "isthmus/runtime/Error.h"

#include "mlir/Tools/mlir-translate/MlirTranslateMain.h"
#include "mlir/Tools/mlir-translate/Translation.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/SourceMgr.h"

using namespace mlir;
using namespace isthmus;

static llvm::cl::opt<std::string>
    model("model", llvm::cl::desc("model file or folder for --import-model"));
static llvm::cl::list<int> tokens("tokens", llvm::cl::CommaSeparated,
                                  llvm::cl::desc("token ids for --interpret"));
static llvm::cl::opt<std::string>
    programName("program", llvm::cl::desc("program for --interpret (default: "
                                          "the first)"));
static llvm::cl::opt<std::string>
    rowsFile("rows", llvm::cl::desc("file of raw f32 rows for --interpret, of "
                                    "a program that takes values"));

/// The input that the options name, for `program`.
static FailureOr<fm::SequenceInput> readInput(fm::ProgramOp program) {
  fm::SequenceInput input{{tokens.begin(), tokens.end()}};
  if (rowsFile.empty())
    return input;
  auto file = llvm::MemoryBuffer::getFile(rowsFile);
  if (!file)
    return program.emitError(rowsFile + ": " + file.getError().message());
  auto type = cast<RankedTensorType>(program.getArgumentTypes()[0]);
  input.rows.columns = type.getShape().back();
  input.rows.values.resize((*file)->getBufferSize() / sizeof(float));
  std::memcpy(input.rows.values.data(), (*file)->getBufferStart(),
              input.rows.values.size() * sizeof(float));
  input.rows.rows = int64_t(input.rows.values.size()) /
                    std::max<int64_t>(1, input.rows.columns);
  return input;
}

static void registerIn(DialectRegistry &registry) {
  isthmus::registerAllDialects(registry);
}

/// Reads the checkpoint named by --model (the input file is not used: a
/// checkpoint may be a folder, and is mapped, not read).
static TranslateToMLIRRegistration importModel(
    "import-model", "checkpoint named by --model to fm",
    [](llvm::SourceMgr &, MLIRContext *context) -> OwningOpRef<Operation *> {
      try {
        return import::buildModel(*context,
                                  import::openCheckpoint(model.getValue()));
      } catch (const rt::Error &error) {
        emitError(UnknownLoc::get(context)) << error.what();
        return nullptr;
      }
    });

static TranslateFromMLIRRegistration kernelsToAssembly(
    "kernels-to-asm", "kernels of a converted module to assembly",
    [](ModuleOp module, llvm::raw_ostream &out) -> LogicalResult {
      auto kernels = module.lookupSymbol<ModuleOp>("kernels");
      if (!kernels)
        return module.emitError(
            "has no module of kernels: run convert-fm-to-sched first");
      auto name = kernels->getAttrOfType<StringAttr>("isthmus.target");
      const TargetDescription *target =
          name ? findTarget(name.getValue().str()) : nullptr;
      if (!target)
        return kernels.emitError("has no known 'isthmus.target'");
      std::string text;
      if (failed(emitKernelLibrary(kernels, *target, nullptr, &text)))
        return failure();
      out << text;
      return success();
    },
    registerIn);

static TranslateFromMLIRRegistration templatesToText(
    "templates-to-text", "schedule templates to the bundle's message as text",
    [](ModuleOp module, llvm::raw_ostream &out) {
      module.walk([&](sched::TemplateOp op) {
        bundle::Template message;
        translateTemplate(op, message);
        out << message.Utf8DebugString();
      });
      return success();
    },
    registerIn);

static TranslateFromMLIRRegistration raiseGraph(
    "raise-graph", "a graph of a decoder to the model of fm that it is",
    [](ModuleOp module, llvm::raw_ostream &out) -> LogicalResult {
      // Parts of the graph are compiled while it is read.
      module.getContext()->loadAllAvailableDialects();
      for (auto program : module.getOps<graph::ProgramOp>()) {
        RaisedModel raised = raiseToFM(program, hostGraphCompiler(), {});
        if (!raised.module)
          return program.emitError(raised.reason);
        out << *raised.module << "\n";
      }
      return success();
    },
    registerIn);

static TranslateFromMLIRRegistration interpretProgram(
    "interpret", "run a program on --tokens or --rows; raw f32 results",
    [](ModuleOp module, llvm::raw_ostream &out) -> LogicalResult {
      auto programs = module.getOps<fm::ProgramOp>();
      auto named = llvm::find_if(programs, [](fm::ProgramOp program) {
        return programName.empty() || program.getSymName() == programName;
      });
      if (named == programs.end() || (tokens.empty() && rowsFile.empty()))
        return module.emitError("needs an fm.program, and --tokens or --rows");
      FailureOr<fm::SequenceInput> input = readInput(*named);
      if (failed(input))
        return failure();
      weights::Sources sources;
      auto logits = fm::interpret(*named, *input, sources);
      if (failed(logits))
        return failure();
      out.write(reinterpret_cast<const char *>(logits->values.data()),
                logits->values.size() * sizeof(float));
      return success();
    },
    registerIn);

int main(int argc, char **argv) {
  return failed(mlirTranslateMain(argc, argv, "isthmus translations"));
}
