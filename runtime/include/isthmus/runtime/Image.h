//===- Image.h - pictures as models take them -------------------*- C++ -*-===//
#pragma once

#include "bundle.pb.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace isthmus::rt {

/// Lines from the top, in each pixels from the left, in each red, green, blue.
struct Image {
  uint32_t width = 0, height = 0;
  std::vector<uint8_t> pixels;
};

/// Reads a PNG or a JPEG; transparency is dropped, grey becomes colour. Throws
/// Error that begins with `where` if it is neither, damaged, or has more than
/// 64 million pixels.
Image decodeImage(std::span<const std::byte> bytes, const std::string &where);

/// Scales an image as Pillow does: the filter is stretched where the image
/// shrinks, columns come before lines, and both round to bytes.
Image resize(const Image &image, uint32_t width, uint32_t height,
             bundle::ImageInput::Filter filter);

/// The rows that a program takes of an image: [positions][input features]. The
/// row of a class token is zero.
std::vector<float> toPatches(const Image &image,
                             const bundle::ImageInput &input);

} // namespace isthmus::rt
