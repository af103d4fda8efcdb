//===- KernelLibrary.cpp - loads a bundle's native code -------------------===//
#include "isthmus/runtime/KernelLibrary.h"

#include "isthmus/runtime/CpuFeatures.h"
#include "isthmus/runtime/Error.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

using namespace isthmus::rt;

KernelLibrary::KernelLibrary(const Bundle &bundle)
    : where(bundle.path().string()) {
  std::string offered;
  for (const auto &library : bundle.manifest().kernels()) {
    std::string missing;
    if (library.abi() != kKernelABI) {
      offered += fmt::format(" {} (kernel ABI {}, this program has {})",
                             library.target(), library.abi(), kKernelABI);
      continue;
    }
    if (!cpuSupports(library.triple(), library.required_cpu_flags(),
                     &missing)) {
      offered +=
          fmt::format(" {} (this machine lacks {})", library.target(), missing);
      continue;
    }
    if (!requestCpuFeatures(library.required_cpu_flags())) {
      offered += fmt::format(" {} (the system refuses its registers)",
                             library.target());
      continue;
    }
    auto code = bundle.blob(library.blob());
    Bundle::Range whole{library.blob(), 0, code.size()};
    bundle.verify({&whole, 1}, 1);
    file = memfd_create("isthmus-kernels", MFD_CLOEXEC);
    if (file < 0 ||
        write(file, code.data(), code.size()) != ssize_t(code.size())) {
      unload();
      throw Error("{}: no memory for kernels", where);
    }
    std::string path = fmt::format("/proc/self/fd/{}", file);
    handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      std::string reason = dlerror();
      unload();
      throw Error("{}: kernels for {} cannot be loaded: {}", where,
                  library.target(), reason);
    }
    targetName = library.target();
    return;
  }
  throw Error(
      "{}: no kernels for this processor; the bundle has:{}. Compile it "
      "for this machine (isthmus compile --target)",
      where, offered);
}

KernelLibrary::~KernelLibrary() { unload(); }

void KernelLibrary::unload() {
  if (handle)
    dlclose(handle);
  if (file >= 0)
    close(file);
}

Kernel KernelLibrary::find(const std::string &name) const {
  return reinterpret_cast<Kernel>(dlsym(handle, name.c_str()));
}

Kernel KernelLibrary::lookup(const std::string &name) const {
  Kernel kernel = find(name);
  if (!kernel)
    throw Error("{}: the kernel library has no '{}'", where, name);
  return kernel;
}
