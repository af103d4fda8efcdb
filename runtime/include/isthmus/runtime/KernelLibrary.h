//===- KernelLibrary.h - loads a bundle's native code -----------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Bundle.h"
#include "isthmus/runtime/KernelABI.h"

#include <string>

namespace isthmus::rt {

/// The kernels of a bundle for this processor. Checks the library's digests,
/// then maps it from memory; no temporary file is visible to others.
class KernelLibrary {
public:
  /// Picks the first library of the bundle that this processor can run. Throws
  /// Error naming what is missing if none fits. The caller has checked trust.
  explicit KernelLibrary(const Bundle &bundle);
  ~KernelLibrary();
  KernelLibrary(const KernelLibrary &) = delete;
  KernelLibrary &operator=(const KernelLibrary &) = delete;

  /// Throws Error if the library has no such kernel.
  Kernel lookup(const std::string &name) const;
  /// The same, or nullptr.
  Kernel find(const std::string &name) const;
  const std::string &target() const { return targetName; }

private:
  void unload();

  std::string where, targetName;
  /// Open as long as the library: dlopen takes files of one name for one file,
  /// and the number is the name.
  int file = -1;
  void *handle = nullptr;
};

} // namespace isthmus::rt
