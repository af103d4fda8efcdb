//===- CompileParts.cpp - what all compilations do ------------------------===//
#include "CompileParts.h"

#include "isthmus/InitAll.h"
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/KernelABI.h"

#include <sys/resource.h>

using namespace isthmus;

CompileContext::CompileContext() {
  mlir::DialectRegistry registry;
  registerAllDialects(registry);
  context.appendDialectRegistry(registry);
  context.loadAllAvailableDialects();
  context.getDiagEngine().registerHandler([this](mlir::Diagnostic &diagnostic) {
    if (diagnostic.getSeverity() == mlir::DiagnosticSeverity::Error)
      diagnostics += (diagnostics.empty() ? "" : "\n") + diagnostic.str();
    return mlir::success();
  });
}

void CompileContext::fail(const std::string &model, const std::string &what) {
  throw rt::Error("{}: {}", model,
                  diagnostics.empty() ? what + " failed" : diagnostics);
}

void isthmus::describeTopology(const Topology &topology,
                               bundle::Manifest &manifest) {
  manifest.set_producer("isthmus 0.1");
  for (size_t i = 0; i < topology.devices.size(); ++i) {
    const plan::Device &d = topology.devices[i];
    bundle::Device *device = manifest.add_devices();
    device->set_name(d.name);
    device->set_memory_bytes(d.memoryBytes);
    device->set_bandwidth(d.bandwidth);
    device->set_ops(d.ops);
    device->set_target(topology.targets[i]);
  }
  for (const plan::Link &l : topology.links) {
    bundle::Link *link = manifest.add_links();
    link->set_a(uint32_t(l.a));
    link->set_b(uint32_t(l.b));
    link->set_latency(l.latency);
    link->set_bandwidth(l.bandwidth);
  }
}

void isthmus::addKernelLibrary(BundleWriter &writer, bundle::Manifest &manifest,
                               const TargetDescription &target,
                               const std::string &schedule,
                               const std::string &library) {
  bundle::KernelLibrary *entry = manifest.add_kernels();
  entry->set_target(target.name);
  entry->set_triple(target.triple);
  entry->set_required_cpu_flags(target.requiredCpuFlags);
  entry->set_abi(rt::kKernelABI);
  entry->set_schedule(schedule);
  entry->set_blob(writer.beginBlob("kernels/" + target.name));
  writer.append(std::as_bytes(std::span(library)));
  writer.endBlob();
}

void isthmus::measure(const std::filesystem::path &output,
                      CompileReport &report) {
  report.bundleBytes = std::filesystem::file_size(output);
  struct rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  report.peakResidentBytes = uint64_t(usage.ru_maxrss) * 1024;
}
