//===- HostGraphs.cpp - runs graphs while compiling -----------------------===//
#include "CompileParts.h"
#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/GraphExecutor.h"
#include "isthmus/runtime/KernelLibrary.h"
#include "isthmus/runtime/ThreadPool.h"

#include "llvm/Support/FileSystem.h"

using namespace mlir;
using namespace isthmus;

namespace {
/// A bundle in a file that goes with it.
class HostGraph {
public:
  HostGraph(CompileContext &parts, ModuleOp module) {
    llvm::SmallString<128> name;
    if (auto error =
            llvm::sys::fs::createTemporaryFile("isthmus", "isth", name))
      throw rt::Error("a temporary file: {}", error.message());
    path = name.str().str();
    try {
      auto program = *module.getOps<graph::ProgramOp>().begin();
      writeGraph(parts, program, "part", hostTopology(), {}, path);
      bundle.emplace(path);
      kernels.emplace(*bundle);
      executor.emplace(*bundle, bundle->manifest().programs(0), *kernels, pool);
    } catch (...) {
      std::filesystem::remove(path);
      throw;
    }
  }
  ~HostGraph() { std::filesystem::remove(path); }
  HostGraph(const HostGraph &) = delete;
  HostGraph &operator=(const HostGraph &) = delete;

  std::vector<rt::Value> run(std::span<const rt::Value> inputs) {
    return executor->run(inputs);
  }

private:
  std::filesystem::path path;
  rt::ThreadPool pool{1};
  std::optional<rt::Bundle> bundle;
  std::optional<rt::KernelLibrary> kernels;
  std::optional<rt::GraphExecutor> executor;
};
} // namespace

GraphCompiler isthmus::hostGraphCompiler(CompileContext &parts) {
  return [&parts](ModuleOp module) -> GraphFunction {
    auto graph = std::make_shared<HostGraph>(parts, module);
    return [graph](std::span<const rt::Value> inputs) {
      return graph->run(inputs);
    };
  };
}
