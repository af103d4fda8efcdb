#include "isthmus/runtime/Crypto.h"

#include <cstring>
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
    ASSERT_EQ(back->size(), std::strlen(plain));
    EXPECT_EQ(std::memcmp(back->data(), plain, back->size()), 0);
  }
}

TEST(Base64, RefusesWhatIsNone) {
  for (const char *text : {"Z", "Zg=", "====", "Z===", "Zg==Zg==", "Z g=",
                           "Zm9v\n", " Zm9vYmFy  ", "Zm9*"})
    EXPECT_FALSE(fromBase64(text)) << text;
}
