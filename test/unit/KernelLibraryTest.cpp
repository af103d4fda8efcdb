#include "isthmus/runtime/KernelLibrary.h"
#include "LeastManifest.h"
#include "TemporaryFolder.h"
#include "isthmus/Bundle/BundleWriter.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

using namespace isthmus;
using namespace isthmus::rt;
namespace fs = std::filesystem;

namespace {
#if defined(__aarch64__)
constexpr const char *kTriple = "aarch64-unknown-linux-gnu";
#else
constexpr const char *kTriple = "x86_64-unknown-linux-gnu";
#endif

class KernelLibraryTest : public testing::Test {
protected:
  struct Entry {
    std::string target, flags, library;
  };

  Bundle write(const std::string &name, const std::vector<Entry> &entries) {
    bundle::Manifest m = leastManifest();
    KeyStore keys(folder / "keys");
    BundleWriter writer(folder / name);
    for (const Entry &entry : entries) {
      auto *kernels = m.add_kernels();
      kernels->set_target(entry.target);
      kernels->set_triple(kTriple);
      kernels->set_required_cpu_flags(entry.flags);
      kernels->set_abi(kKernelABI);
      kernels->set_blob(writer.beginBlob(entry.target));
      writer.append(MappedFile(entry.library).bytes());
      writer.endBlob();
    }
    writer.finish(m, keys);
    return Bundle(folder / name);
  }

  static int64_t call(const KernelLibrary &library) {
    int64_t result = 0;
    library.lookup("which")(nullptr, 0, 0, &result);
    return result;
  }

  TemporaryFolder temporary;
  const fs::path &folder = temporary.path;
};
} // namespace

TEST_F(KernelLibraryTest, TwoBundlesInOneProcess) {
  Bundle a = write("a", {{"any", "", KERNELS_1}});
  Bundle b = write("b", {{"any", "", KERNELS_2}});
  KernelLibrary first(a), second(b);
  EXPECT_EQ(call(first), 1);
  EXPECT_EQ(call(second), 2);
}

TEST_F(KernelLibraryTest, TakesTheFirstThatRuns) {
  Bundle bundle =
      write("c", {{"future", "telepathy", KERNELS_1}, {"any", "", KERNELS_2}});
  KernelLibrary library(bundle);
  EXPECT_EQ(library.target(), "any");
  EXPECT_EQ(call(library), 2);
  EXPECT_THROW((void)library.lookup("whichever"), Error);
}

TEST_F(KernelLibraryTest, RefusesWithWhatIsMissing) {
  Bundle bundle = write("d", {{"future", "telepathy", KERNELS_1}});
  try {
    KernelLibrary library(bundle);
    FAIL();
  } catch (const Error &error) {
    EXPECT_NE(std::string(error.what()).find("lacks telepathy"),
              std::string::npos);
  }
}
