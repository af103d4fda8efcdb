//===- Image.cpp - pictures as models take them ---------------------------===//
#include "isthmus/runtime/Image.h"

#include "isthmus/runtime/Error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <png.h>
#include <turbojpeg.h>

using namespace isthmus;
using namespace isthmus::rt;

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

/// What a picture of a hostile size would take: 192 MB.
static constexpr uint64_t kMostPixels = 64'000'000;

static void checkSize(const std::string &where, uint64_t width,
                      uint64_t height) {
  if (width == 0 || height == 0 || width > kMostPixels / height)
    throw Error("{}: an image of {} x {} pixels; at most {} million are read",
                where, width, height, kMostPixels / 1'000'000);
}

static Image decodePng(std::span<const std::byte> bytes,
                       const std::string &where) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  auto free = [](png_image *image) { png_image_free(image); };
  std::unique_ptr<png_image, decltype(free)> freed(&header, free);
  auto check = [&](int done) {
    if (!done)
      throw Error("{}: {}", where, header.message);
  };
  check(png_image_begin_read_from_memory(&header, bytes.data(), bytes.size()));
  checkSize(where, header.width, header.height);
  // Transparent pixels keep their colours.
  header.format = PNG_FORMAT_RGBA;
  std::vector<uint8_t> rgba(PNG_IMAGE_SIZE(header));
  check(png_image_finish_read(&header, nullptr, rgba.data(), 0, nullptr));
  Image image{header.width, header.height, {}};
  image.pixels.reserve(rgba.size() / 4 * 3);
  for (size_t i = 0; i < rgba.size(); i += 4)
    image.pixels.insert(image.pixels.end(), &rgba[i], &rgba[i] + 3);
  return image;
}

static Image decodeJpeg(std::span<const std::byte> bytes,
                        const std::string &where) {
  std::unique_ptr<void, decltype(&tjDestroy)> decoder(tjInitDecompress(),
                                                      tjDestroy);
  auto check = [&](int failed) {
    if (failed)
      throw Error("{}: {}", where, tjGetErrorStr2(decoder.get()));
  };
  const auto *data = reinterpret_cast<const unsigned char *>(bytes.data());
  int width = 0, height = 0, sampling = 0, colours = 0;
  check(tjDecompressHeader3(decoder.get(), data, bytes.size(), &width, &height,
                            &sampling, &colours));
  checkSize(where, uint64_t(width), uint64_t(height));
  if (colours == TJCS_CMYK || colours == TJCS_YCCK)
    throw Error("{}: a JPEG of inks (CMYK); save it in RGB", where);
  Image image{uint32_t(width), uint32_t(height), {}};
  image.pixels.resize(size_t(width) * size_t(height) * 3);
  check(tjDecompress2(decoder.get(), data, bytes.size(), image.pixels.data(),
                      width, 0, height, TJPF_RGB, TJFLAG_ACCURATEDCT));
  return image;
}

Image rt::decodeImage(std::span<const std::byte> bytes,
                      const std::string &where) {
  auto startsWith = [&](std::initializer_list<uint8_t> magic) {
    return bytes.size() >= magic.size() &&
           std::equal(magic.begin(), magic.end(), bytes.begin(),
                      [](uint8_t a, std::byte b) { return std::byte(a) == b; });
  };
  if (startsWith({0x89, 'P', 'N', 'G'}))
    return decodePng(bytes, where);
  if (startsWith({0xff, 0xd8}))
    return decodeJpeg(bytes, where);
  throw Error("{}: is neither a PNG nor a JPEG", where);
}

//===----------------------------------------------------------------------===//
// Scaling
//===----------------------------------------------------------------------===//

namespace {
double sinc(double x) { return x == 0 ? 1 : std::sin(M_PI * x) / (M_PI * x); }

/// A filter's reach, in pixels of the smaller image, and its weight at x.
struct Filter {
  double reach;
  double (*weight)(double x);
};

Filter filterOf(bundle::ImageInput::Filter kind) {
  switch (kind) {
  case bundle::ImageInput::LANCZOS:
    return {3, [](double x) {
              return std::fabs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
            }};
  case bundle::ImageInput::BICUBIC: // Keys (1981) with a = -0.5
    return {2, [](double x) {
              constexpr double a = -0.5;
              x = std::fabs(x);
              if (x < 1)
                return ((a + 2) * x - (a + 3)) * x * x + 1;
              return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
            }};
  default:
    return {1, [](double x) { return std::max(0.0, 1 - std::fabs(x)); }};
  }
}

/// Which pixels of the source a pixel of the result is made of, and how: fixed
/// point of `kBits`, as Pillow has it.
constexpr int kBits = 22;
struct Taps {
  size_t first;
  std::vector<int32_t> weights;
};

std::vector<Taps> tapsFor(uint32_t from, uint32_t to, const Filter &filter) {
  const double scale = double(from) / double(to);
  const double stretch = std::max(scale, 1.0);
  const double reach = filter.reach * stretch;
  std::vector<Taps> taps(to);
  std::vector<double> weights;
  for (uint32_t i = 0; i < to; ++i) {
    const double centre = (double(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, int64_t(centre - reach + 0.5));
    const int64_t last =
        std::min<int64_t>(int64_t(from), int64_t(centre + reach + 0.5));
    weights.clear();
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      weights.push_back(
          filter.weight((double(x) - centre + 0.5) * (1.0 / stretch)));
      sum += weights.back();
    }
    taps[i].first = size_t(first);
    for (double weight : weights) {
      const double fixed = (sum != 0 ? weight / sum : weight) * (1 << kBits);
      taps[i].weights.push_back(int32_t(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return taps;
}

/// Replaces one dimension. Pixels of a line lie `step` bytes apart, of which
/// there are `lines`, `lineStep` apart.
void scaleLines(const std::vector<uint8_t> &from, std::vector<uint8_t> &to,
                const std::vector<Taps> &taps, size_t lines, size_t fromStep,
                size_t fromLine, size_t toStep, size_t toLine) {
  for (size_t line = 0; line < lines; ++line)
    for (size_t i = 0; i < taps.size(); ++i)
      for (size_t channel = 0; channel < 3; ++channel) {
        int32_t sum = 1 << (kBits - 1);
        size_t at = line * fromLine + taps[i].first * fromStep + channel;
        for (int32_t weight : taps[i].weights) {
          sum += int32_t(from[at]) * weight;
          at += fromStep;
        }
        to[line * toLine + i * toStep + channel] =
            uint8_t(std::clamp(sum >> kBits, 0, 255));
      }
}

Image resizeNearest(const Image &image, uint32_t width, uint32_t height) {
  Image out{width, height, {}};
  out.pixels.reserve(size_t(width) * height * 3);
  auto source = [](uint32_t i, uint32_t from, uint32_t to) {
    return size_t((double(i) + 0.5) * double(from) / double(to));
  };
  for (uint32_t y = 0; y < height; ++y)
    for (uint32_t x = 0; x < width; ++x) {
      const uint8_t *pixel =
          &image.pixels[(source(y, image.height, height) * image.width +
                         source(x, image.width, width)) *
                        3];
      out.pixels.insert(out.pixels.end(), pixel, pixel + 3);
    }
  return out;
}
} // namespace

Image rt::resize(const Image &image, uint32_t width, uint32_t height,
                 bundle::ImageInput::Filter kind) {
  if (kind == bundle::ImageInput::NEAREST)
    return resizeNearest(image, width, height);
  const Filter filter = filterOf(kind);
  Image wide = image;
  if (width != image.width) {
    wide = {width, image.height, {}};
    wide.pixels.resize(size_t(width) * image.height * 3);
    scaleLines(image.pixels, wide.pixels, tapsFor(image.width, width, filter),
               image.height, 3, size_t(image.width) * 3, 3, size_t(width) * 3);
  }
  if (height == image.height)
    return wide;
  Image out{width, height, {}};
  out.pixels.resize(size_t(width) * height * 3);
  scaleLines(wide.pixels, out.pixels, tapsFor(image.height, height, filter),
             width, size_t(width) * 3, 3, size_t(width) * 3, 3);
  return out;
}

//===----------------------------------------------------------------------===//
// Patches
//===----------------------------------------------------------------------===//

/// The middle of an image that is at least as large.
static Image crop(const Image &image, uint32_t size) {
  Image out{size, size, std::vector<uint8_t>(size_t(size) * size * 3)};
  const int64_t left = (int64_t(image.width) - size) / 2;
  const int64_t top = (int64_t(image.height) - size) / 2;
  for (uint32_t y = 0; y < size; ++y)
    std::copy_n(&image.pixels[size_t((top + y) * image.width + left) * 3],
                size_t(size) * 3, &out.pixels[size_t(y) * size * 3]);
  return out;
}

std::vector<float> rt::toPatches(const Image &image,
                                 const bundle::ImageInput &input) {
  const uint32_t size = input.size(), patch = input.patch();
  Image fitted;
  if (const uint64_t edge = input.shortest_edge()) {
    const bool tall = image.height > image.width;
    const uint64_t shorter = tall ? image.width : image.height;
    const uint64_t longer = tall ? image.height : image.width;
    const uint64_t other = edge * longer / shorter;
    constexpr uint64_t kLongest = 1 << 16;
    if (other > kLongest)
      throw Error("an image of {} x {} pixels is too narrow to be scaled",
                  image.width, image.height);
    fitted = crop(resize(image, uint32_t(tall ? edge : other),
                         uint32_t(tall ? other : edge), input.filter()),
                  size);
  } else {
    fitted = resize(image, size, size, input.filter());
  }
  // A pixel has 256 values: what becomes of each is worked out once.
  std::array<std::array<float, 256>, 3> scaled;
  for (size_t channel = 0; channel < 3; ++channel)
    for (size_t value = 0; value < 256; ++value)
      scaled[channel][value] =
          (float(value) * input.scale() - input.mean(int(channel))) /
          input.deviation(int(channel));
  const size_t side = size / patch, features = 3 * size_t(patch) * patch;
  std::vector<float> rows;
  rows.reserve((side * side + 1) * features);
  if (input.class_token())
    rows.resize(features, 0.0f);
  for (size_t row = 0; row < side; ++row)
    for (size_t column = 0; column < side; ++column)
      for (size_t channel = 0; channel < 3; ++channel)
        for (size_t y = row * patch; y < (row + 1) * patch; ++y)
          for (size_t x = column * patch; x < (column + 1) * patch; ++x)
            rows.push_back(
                scaled[channel][fitted.pixels[(y * size + x) * 3 + channel]]);
  return rows;
}
