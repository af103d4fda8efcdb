//===- CompileParts.h - what all compilations do ----------------*- C++ -*-===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/Bundle/BundleWriter.h"
#include "isthmus/Dialect/Graph/IR/Graph.h"
#include "isthmus/Driver/Compile.h"

#include "isthmus/Import/Checkpoint.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"

namespace isthmus {

/// What a model is compiled in: all dialects, and diagnostics that become
/// messages of exceptions.
class CompileContext {
public:
  CompileContext();
  mlir::MLIRContext context;
  /// Throws rt::Error with the diagnostics so far, or that `what` failed.
  [[noreturn]] void fail(const std::string &model, const std::string &what);

private:
  std::string diagnostics;
};

/// What a bundle says of a model of fm, beside its module.
struct ModelInfo {
  std::string name, architecture;
  import::TokenizerFiles tokenizer;
};

/// Compiles a module of fm; `parts` is what it was built in.
CompileReport compileModel(CompileContext &parts,
                           mlir::OwningOpRef<mlir::ModuleOp> module,
                           const ModelInfo &model, const Topology &topology,
                           const CompileOptions &options,
                           const std::filesystem::path &output);

/// Writes a bundle of a graph, signed by `keys`. False, after diagnostics, if
/// kernels cannot be compiled.
bool writeGraph(graph::ProgramOp program, const std::string &name,
                const Topology &topology, const CompileOptions &options,
                rt::KeyStore &keys, const std::filesystem::path &output);

/// Devices, links and who made the bundle.
void describeTopology(const Topology &topology, bundle::Manifest &manifest);

/// Writes a library of kernels as a blob of its own.
void addKernelLibrary(BundleWriter &writer, bundle::Manifest &manifest,
                      const TargetDescription &target,
                      const std::string &schedule, const std::string &library);

/// Size of the bundle and peak of memory so far.
void measure(const std::filesystem::path &output, CompileReport &report);

} // namespace isthmus
