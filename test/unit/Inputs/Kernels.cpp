// Two libraries with a kernel of the same name (KernelLibraryTest.cpp).
#include "isthmus/runtime/KernelABI.h"

extern "C" void which(const isthmus::rt::Args *, int64_t, int64_t,
                      void *scratch) {
  *static_cast<int64_t *>(scratch) = WHICH;
}
