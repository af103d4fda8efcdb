#include "isthmus/Import/Checkpoint.h"
#include "TemporaryFolder.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

#include <fstream>
#include <unistd.h>

using namespace isthmus;
using namespace isthmus::import;
namespace fs = std::filesystem;

namespace {
class CheckpointTest : public testing::Test {
protected:
  fs::path safetensors(const std::string &header, size_t dataBytes,
                       const std::string &name = "model.safetensors") {
    std::ofstream file(folder / name, std::ios::binary);
    uint64_t size = header.size();
    file.write(reinterpret_cast<const char *>(&size), 8);
    file << header << std::string(dataBytes, '\0');
    return folder / name;
  }

  std::string errorOf(const fs::path &path) {
    std::map<std::string, Tensor> tensors;
    try {
      readSafetensors(path, tensors);
    } catch (const rt::Error &error) {
      return error.what();
    }
    return "";
  }
  TemporaryFolder temporary;
  const fs::path &folder = temporary.path;
};
} // namespace

TEST_F(CheckpointTest, ReadsSafetensors) {
  std::map<std::string, Tensor> tensors;
  readSafetensors(
      safetensors(
          R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24),
      tensors);
  EXPECT_EQ(tensors.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors.at("a").bytes, 24u);
}

TEST_F(CheckpointTest, RejectsLyingSafetensors) {
  const std::pair<const char *, const char *> cases[] = {
      {R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
       "outside the file"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,24]}})",
       "do not hold"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
       "impossible shape"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})",
       "impossible shape"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551616]}})",
       "data_offsets"},
      {R"({"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}})",
       "dtype I32"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", "data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
       "overlap"},
      {R"({"a":{"dtype":"F32","shape":[1.9e82],"data_offsets":[0,4]}})",
       "must be an integer"},
      {R"([1,2])", "not a JSON object"},
      {R"({"a":)", "not JSON"}};
  for (auto [header, expected] : cases) {
    std::string error = errorOf(safetensors(header, 8));
    EXPECT_NE(error.find(expected), std::string::npos) << header << "\n"
                                                       << error;
  }
}

TEST_F(CheckpointTest, RejectsHeaderLargerThanTheFile) {
  std::ofstream(folder / "x", std::ios::binary)
      << "\xff\xff\xff\xff\xff\xff\xff\x7f";
  EXPECT_NE(errorOf(folder / "x").find("outside the file"), std::string::npos);
  std::ofstream(folder / "y", std::ios::binary) << "abc";
  EXPECT_NE(errorOf(folder / "y").find("outside the file"), std::string::npos);
}

TEST_F(CheckpointTest, ShardNamesCannotLeaveTheFolder) {
  std::ofstream(folder / "config.json")
      << R"({"model_type":"llama","num_hidden_layers":1,"hidden_size":32,)"
         R"("intermediate_size":32,"vocab_size":32,"num_attention_heads":1})";
  for (const char *name : {"../evil.safetensors", "/etc/passwd", ".."}) {
    std::ofstream(folder / "model.safetensors.index.json")
        << R"({"weight_map":{"a":")" << name << R"("}})";
    try {
      readHuggingFace(folder);
      FAIL() << name;
    } catch (const rt::Error &error) {
      EXPECT_NE(std::string(error.what()).find("not a plain file name"),
                std::string::npos);
    }
  }
  std::ofstream(folder / "model.safetensors.index.json")
      << R"({"weight_map":{"a":"link.safetensors"}})";
  fs::create_symlink("/etc/passwd", folder / "link.safetensors");
  try {
    readHuggingFace(folder);
    FAIL();
  } catch (const rt::Error &error) {
    EXPECT_NE(std::string(error.what()).find("leaves the model's folder"),
              std::string::npos);
  }
}

TEST_F(CheckpointTest, RejectsImpossibleConfigs) {
  for (
      const char *config :
      {R"({"model_type":"llama"})", R"({"model_type":"gpt5"})", R"([])",
       R"({"model_type":"llama","num_hidden_layers":1,"hidden_size":32,"intermediate_size":32,"vocab_size":32,"num_attention_heads":0})",
       R"({"model_type":"llama","num_hidden_layers":"x","hidden_size":32})"}) {
    std::ofstream(folder / "config.json") << config;
    EXPECT_THROW(readHuggingFace(folder), rt::Error) << config;
  }
}

TEST_F(CheckpointTest, RejectsWhatIsNoGGUF) {
  for (const std::string &bytes :
       {std::string(""), std::string("GG"), std::string("GGUF"),
        std::string(
            "GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
            24)}) {
    std::ofstream(folder / "m.gguf", std::ios::binary) << bytes;
    EXPECT_THROW(readGGUF(folder / "m.gguf"), rt::Error);
  }
}
