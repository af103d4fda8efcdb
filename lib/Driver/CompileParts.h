//===- CompileParts.h - what all compilations do ----------------*- C++ -*-===//
#pragma once

#include "bundle.pb.h"
#include "isthmus/Bundle/BundleWriter.h"
#include "isthmus/Driver/Compile.h"

namespace isthmus {

/// Devices, links and who made the bundle.
void describeTopology(const Topology &topology, bundle::Manifest &manifest);

/// Writes a library of kernels as a blob of its own.
void addKernelLibrary(BundleWriter &writer, bundle::Manifest &manifest,
                      const TargetDescription &target,
                      const std::string &schedule, const std::string &library);

/// Size of the bundle and peak of memory so far.
void measure(const std::filesystem::path &output, CompileReport &report);

} // namespace isthmus
