#include "isthmus/Import/Settings.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

using namespace isthmus;
using import::Settings;

namespace {
Settings some() {
  Settings s("config.json");
  s.set("hidden_size", int64_t(64));
  s.set("rms_norm_eps", 1e-5);
  s.set("factor", int64_t(8));
  s.set("hidden_act", std::string("silu"));
  s.set("layer_types", std::vector<std::string>{"a", "b"});
  return s;
}

/// What the call throws.
template <typename Call> std::string errorOf(Call call) {
  try {
    call();
  } catch (const rt::Error &error) {
    return error.what();
  }
  return "";
}
} // namespace

TEST(SettingsTest, GivesWhatIsThere) {
  Settings s = some();
  EXPECT_EQ(s.size("hidden_size"), 64);
  EXPECT_EQ(s.size("head_dim", 100, 16), 16);
  EXPECT_EQ(s.number("rms_norm_eps", 0, 1), 1e-5);
  EXPECT_EQ(s.number("factor", 1, 10), 8);
  EXPECT_EQ(s.text("hidden_act", ""), "silu");
  EXPECT_EQ(s.texts("layer_types").size(), 2u);
  EXPECT_TRUE(s.texts("none").empty());
  EXPECT_TRUE(s.flag("none", true));
}

TEST(SettingsTest, NamesTheFileAndTheSetting) {
  Settings s = some();
  for (const std::string &error : {errorOf([&] { s.size("hidden_size", 63); }),
                                   errorOf([&] { s.size("layers"); }),
                                   errorOf([&] { s.size("hidden_act"); }),
                                   errorOf([&] { s.size("none", 10, 0); }),
                                   errorOf([&] { s.number("factor", 1, 7); }),
                                   errorOf([&] { s.number("none", 1, 7); }),
                                   errorOf([&] { s.flag("hidden_act", true); }),
                                   errorOf([&] { s.texts("hidden_act"); })})
    EXPECT_TRUE(error.starts_with("config.json: '")) << error;
  EXPECT_EQ(errorOf([&] { s.reject("hidden_act", "gelu is"); }),
            "config.json: 'hidden_act' is silu, which is not supported; gelu "
            "is");
}
