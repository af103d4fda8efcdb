//===- Encoders.h - what makes vectors of texts and images ------*- C++ -*-===//
#pragma once

#include "Session.h"

#include "isthmus/runtime/Encoder.h"

namespace isthmus::cli {

/// True if the bundle continues texts, which Session runs; else it has
/// encoders.
bool isGenerator(const rt::Bundle &bundle);

/// The encoders of a bundle: one for texts, one for images, or both (CLIP).
/// Throws rt::Error.
class Encoders {
public:
  /// `bundle` is trusted.
  Encoders(rt::Bundle bundle, const SessionOptions &options);

  rt::Bundle bundle;
  std::unique_ptr<rt::Encoder> text, image; ///< or null

  /// The encoder, or an error that says what the model takes instead.
  rt::Encoder &needText();
  rt::Encoder &needImage();

  rt::Encoder::Sequence ofText(const std::string &text) const;
  rt::Encoder::Sequence ofImage(std::span<const std::byte> file,
                                const std::string &where) const;

private:
  std::optional<rt::Tokenizer> tokenizer;
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
