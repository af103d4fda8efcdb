#include "isthmus/runtime/Crypto.h"

#include <algorithm>
#include <gtest/gtest.h>

using namespace isthmus::rt;

static std::span<const std::byte> bytesOf(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Base64, GoesThereAndBack) {
  // RFC 4648, section 10.
  for (auto [plain, coded] : {std::pair("", ""),
                              {"f", "Zg=="},
                              {"fo", "Zm8="},
                              {"foobar", "Zm9vYmFy"}}) {
    EXPECT_EQ(toBase64(bytesOf(plain)), coded);
    auto back = fromBase64(coded);
    ASSERT_TRUE(back);
    EXPECT_TRUE(std::ranges::equal(*back, bytesOf(plain)));
  }
}

TEST(Base64, RefusesWhatIsNone) {
  for (const char *text : {"Z", "Zg=", "====", "Z===", "Zg==Zg==", "Z g=",
                           "Zm9v\n", " Zm9vYmFy  ", "Zm9*"})
    EXPECT_FALSE(fromBase64(text)) << text;
}
