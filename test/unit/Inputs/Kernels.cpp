// Two libraries with a kernel of the same name (KernelLibraryTest.cpp).
#include <cstdint>

extern "C" void which(const void *, int64_t, int64_t, void *scratch) {
  *static_cast<int64_t *>(scratch) = WHICH;
}
