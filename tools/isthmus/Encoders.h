//===- Encoders.h - what makes vectors of texts and images ------*- C++ -*-===//
#pragma once

#include "Session.h"

#include "isthmus/runtime/Encoder.h"

namespace isthmus::cli {

/// True if the bundle continues texts, which Session runs; else it has
/// encoders.
bool isGenerator(const rt::Bundle &bundle);

/// The encoders of a bundle: one for texts, one for images, or both (CLIP).
/// Each is opened when it is needed first. Throws rt::Error.
class Encoders {
public:
  /// `bundle` is trusted.
  Encoders(rt::Bundle bundle, const SessionOptions &options);

  const rt::Bundle bundle;

  bool takesTexts() const { return textPlan >= 0; }
  bool takesImages() const { return imagePlan >= 0; }
  /// The encoder, or an error that says what the model takes instead.
  rt::Encoder &text();
  rt::Encoder &image();

  rt::Encoder::Sequence ofText(const std::string &text);
  rt::Encoder::Sequence ofImage(std::span<const std::byte> file,
                                const std::string &where);

private:
  SessionOptions options;
  int textPlan, imagePlan; ///< -1: none
  std::optional<rt::Tokenizer> tokenizer;
  std::unique_ptr<rt::Encoder> opened[2];

  rt::Encoder &open(bool takesImages);
};

/// What 'isthmus run' is given for an encoder.
struct EncodeOptions {
  std::vector<std::string> texts, images, inputs;
  std::string output;
  bool json = false;

  void addTo(CLI::App &app);
  bool any() const {
    return !texts.empty() || !images.empty() || !inputs.empty();
  }
};

void runEncoders(Encoders &encoders, const EncodeOptions &options);

} // namespace isthmus::cli
