// Pillow's results are the reference in test/e2e/test_encoders.py; here is what
// needs no picture.
#include "isthmus/runtime/Image.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

using namespace isthmus;
using namespace isthmus::rt;

static Image gradient(uint32_t width, uint32_t height) {
  Image image{width, height, {}};
  for (uint32_t y = 0; y < height; ++y)
    for (uint32_t x = 0; x < width; ++x)
      for (uint32_t channel = 0; channel < 3; ++channel)
        image.pixels.push_back(uint8_t(16 * y + 4 * x + channel));
  return image;
}

static bundle::ImageInput input(uint32_t size, uint32_t patch) {
  bundle::ImageInput in;
  in.set_size(size);
  in.set_patch(patch);
  in.set_scale(1);
  for (int i = 0; i < 3; ++i) {
    in.add_mean(1);
    in.add_deviation(2);
  }
  return in;
}

TEST(Image, PatchesAreChannelsThenLinesThenColumns) {
  auto rows = toPatches(gradient(4, 4), input(4, 2));
  ASSERT_EQ(rows.size(), 4 * 12u);
  // The second patch: columns 2 and 3 of lines 0 and 1, red first.
  const float expected[] = {8, 12, 24, 28, 9, 13, 25, 29, 10, 14, 26, 30};
  for (size_t i = 0; i < 12; ++i)
    EXPECT_EQ(rows[12 + i], (expected[i] - 1) / 2);
}

TEST(Image, AClassTokenHasARowOfZeros) {
  bundle::ImageInput in = input(4, 2);
  in.set_class_token(true);
  auto rows = toPatches(gradient(4, 4), in);
  ASSERT_EQ(rows.size(), 5 * 12u);
  for (size_t i = 0; i < 12; ++i)
    EXPECT_EQ(rows[i], 0);
}

TEST(Image, TheMiddleIsCropped) {
  bundle::ImageInput in = input(2, 1);
  in.set_shortest_edge(4);
  in.set_filter(bundle::ImageInput::BILINEAR);
  auto rows = toPatches(gradient(6, 4), in);
  EXPECT_EQ(rows[0], (16 * 1 + 4 * 2 - 1) / 2.0f);
}

TEST(Image, ThinImagesAreNotBlownUp) {
  bundle::ImageInput in = input(200, 20);
  in.set_shortest_edge(200);
  EXPECT_THROW(toPatches(gradient(1, 2000), in), Error);
}

TEST(Image, AnEvenColourStaysItself) {
  Image image{9, 5, std::vector<uint8_t>(9 * 5 * 3, 200)};
  for (int filter = 0; filter < 4; ++filter)
    for (auto [width, height] : {std::pair(3u, 2u), {20u, 31u}, {9u, 5u}})
      for (uint8_t value :
           resize(image, width, height, bundle::ImageInput::Filter(filter))
               .pixels)
        EXPECT_EQ(value, 200);
}

TEST(Image, RefusesWhatIsNoPicture) {
  const std::string_view texts[] = {"", "GIF89a", "\x89PNG", "\xff\xd8\xff"};
  for (std::string_view text : texts)
    EXPECT_THROW(decodeImage(std::as_bytes(std::span(text)), "test"), Error);
}
