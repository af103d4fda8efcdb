//===- HostGraphs.cpp - runs graphs while compiling -----------------------===//
#include "isthmus/Driver/HostGraphs.h"

#include "CompileParts.h"
#include "isthmus/Conversion/GraphToKernels.h"
#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/GraphExecutor.h"
#include "isthmus/runtime/KernelLibrary.h"
#include "isthmus/runtime/ThreadPool.h"

#include "llvm/Support/FileSystem.h"

using namespace mlir;
using namespace isthmus;

namespace {
/// A bundle in a folder that goes with it, signed by a key that nobody keeps.
class HostGraph {
public:
  explicit HostGraph(ModuleOp module) {
    llvm::SmallString<128> name;
    if (auto error = llvm::sys::fs::createUniqueDirectory("isthmus", name))
      throw rt::Error("a temporary folder: {}", error.message());
    folder.path = name.str().str();
    rt::KeyStore keys(folder.path / "keys");
    auto program = *module.getOps<graph::ProgramOp>().begin();
    if (const auto unsupported = findUnsupported(program); !unsupported.empty())
      throw rt::Error("{}: {}", unsupported[0].op, unsupported[0].reason);
    if (!writeGraph(program, "part", hostTopology(), {}, keys,
                    folder.path / "part.isth"))
      throw rt::Error("compiling a part of the graph failed");
    bundle.emplace(folder.path / "part.isth");
    kernels.emplace(*bundle);
    executor.emplace(*bundle, bundle->manifest().programs(0), *kernels, pool);
  }

  std::vector<rt::Value> run(std::span<const rt::Value> inputs) {
    return executor->run(inputs);
  }

private:
  struct Folder {
    std::filesystem::path path;
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  Folder folder; ///< the last to go
  rt::ThreadPool pool{1};
  std::optional<rt::Bundle> bundle;
  std::optional<rt::KernelLibrary> kernels;
  std::optional<rt::GraphExecutor> executor;
};
} // namespace

GraphCompiler isthmus::hostGraphCompiler() {
  return [](ModuleOp module) -> GraphFunction {
    auto graph = std::make_shared<HostGraph>(module);
    return [graph](std::span<const rt::Value> inputs) {
      return graph->run(inputs);
    };
  };
}
