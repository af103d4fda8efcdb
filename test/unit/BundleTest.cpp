#include "LeastManifest.h"
#include "TemporaryFolder.h"
#include "isthmus/Bundle/BundleWriter.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

#include <fstream>

using namespace isthmus;
using namespace isthmus::rt;
namespace fs = std::filesystem;

namespace {
class BundleTest : public testing::Test {
protected:
  fs::path write() {
    bundle::Manifest m = leastManifest();
    KeyStore keys(folder / "keys");
    BundleWriter writer(folder / "out.isth");
    uint32_t blob = writer.beginBlob("weights");
    std::vector<std::byte> bytes(10000, std::byte(7));
    writer.append(bytes);
    EXPECT_EQ(writer.align(64), 10048u);
    writer.append(bytes);
    writer.endBlob();
    auto *weight = m.add_weights();
    weight->set_blob(blob);
    weight->set_offset(10048);
    weight->set_size(10000);
    writer.finish(m, keys);
    return folder / "out.isth";
  }

  void flip(const fs::path &path, uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(int64_t(offset));
    char c = char(file.get());
    file.seekp(int64_t(offset));
    file.put(char(c ^ 1));
  }

  TemporaryFolder temporary;
  const fs::path &folder = temporary.path;
};
} // namespace

TEST_F(BundleTest, RoundTrip) {
  Bundle bundle(write());
  EXPECT_EQ(bundle.weight(0).size(), 10000u);
  EXPECT_EQ(bundle.weight(0)[5], std::byte(7));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bundle.weight(0).data()) % 64, 0u);
  Bundle::Range all{0, 0, bundle.blob(0).size()};
  EXPECT_NO_THROW(bundle.verify({&all, 1}, 2));
}

TEST_F(BundleTest, NothingStaysOfAFailedWrite) {
  {
    BundleWriter writer(folder / "half.isth");
    writer.beginBlob("weights");
  }
  EXPECT_FALSE(fs::exists(folder / "half.isth"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 0);
}

TEST_F(BundleTest, AFolderIsRefusedBeforeAnythingIsWritten) {
  try {
    BundleWriter writer{folder};
    FAIL() << "a folder was taken for a file";
  } catch (const Error &error) {
    EXPECT_NE(std::string(error.what()).find("is a folder"), std::string::npos);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 0);
}

TEST_F(BundleTest, ChangedWeightByteIsFoundByItsDigest) {
  fs::path path = write();
  flip(path, kBundleAlignment + 12000);
  Bundle bundle(path);
  Bundle::Range weight{0, 10048, 10000};
  try {
    bundle.verify({&weight, 1}, 1);
    FAIL() << "damage was not found";
  } catch (const Error &error) {
    EXPECT_NE(std::string(error.what()).find("'weights' is damaged"),
              std::string::npos);
  }
}

TEST_F(BundleTest, EveryChangedHeaderOrManifestByteIsFound) {
  fs::path path = write();
  auto size = fs::file_size(path);
  BundleHeader header;
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char *>(&header), sizeof(header));
  for (uint64_t at = 0; at < sizeof(header); ++at) {
    flip(path, at);
    EXPECT_THROW(Bundle{path}, Error) << "header byte " << at;
    flip(path, at);
  }
  for (uint64_t at = header.manifestOffset; at < size; at += 3) {
    flip(path, at);
    EXPECT_THROW(Bundle{path}, Error) << "manifest byte " << at;
    flip(path, at);
  }
  EXPECT_NO_THROW(Bundle{path});
}

TEST_F(BundleTest, TruncationIsFound) {
  fs::path path = write();
  auto size = fs::file_size(path);
  for (uint64_t left :
       {uint64_t(0), uint64_t(10), uint64_t(135), size / 2, size - 1}) {
    fs::copy_file(path, folder / "cut", fs::copy_options::overwrite_existing);
    fs::resize_file(folder / "cut", left);
    EXPECT_THROW(Bundle{folder / "cut"}, Error) << left << " bytes";
  }
}

TEST_F(BundleTest, ForeignSignerIsNotTrustedUntilTold) {
  Bundle bundle(write());
  KeyStore stranger(folder / "other-keys");
  EXPECT_THROW(bundle.requireTrust(stranger), Error);
  stranger.trust(bundle.signer());
  EXPECT_NO_THROW(bundle.requireTrust(stranger));
  EXPECT_NO_THROW(bundle.requireTrust(KeyStore(folder / "keys")));
}
