// libFuzzer target: a PNG or JPEG, decoded and scaled.
#include "isthmus/runtime/Error.h"
#include "isthmus/runtime/Image.h"

using namespace isthmus;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bundle::ImageInput input;
  input.set_size(8);
  input.set_patch(4);
  input.set_shortest_edge(size % 2 ? 9 : 0);
  input.set_filter(bundle::ImageInput::Filter(size % 4));
  for (int i = 0; i < 3; ++i) {
    input.add_mean(0);
    input.add_deviation(1);
  }
  try {
    rt::Image image =
        rt::decodeImage(std::as_bytes(std::span(data, size)), "input");
    // Large pictures only cost time.
    if (image.pixels.size() < 1 << 20)
      rt::toPatches(image, input);
  } catch (const rt::Error &) {
  }
  return 0;
}
