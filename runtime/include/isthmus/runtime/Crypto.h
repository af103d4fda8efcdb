//===- Crypto.h - digests, signatures, and whom this user trusts -*- C++
//-*-===//
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::rt {

using Digest = std::array<uint8_t, 32>;    ///< SHA-256
using PublicKey = std::array<uint8_t, 32>; ///< Ed25519
using Signature = std::array<uint8_t, 64>; ///< Ed25519

Digest sha256(std::span<const std::byte> bytes);
std::string toHex(std::span<const uint8_t> bytes);
std::string toBase64(std::span<const std::byte> bytes);
/// Nothing if the text is not base64 (RFC 4648, with padding).
std::optional<std::vector<std::byte>> fromBase64(std::string_view text);
/// Fills from the operating system's random source.
void randomBytes(std::span<uint8_t> out);
bool verifySignature(const PublicKey &key, std::span<const std::byte> message,
                     const Signature &signature);

/// A user's keys: the one that signs what this user compiles, and the public
/// keys whose bundles may run here. Lives in $ISTHMUS_HOME, else
/// $XDG_CONFIG_HOME/isthmus, else ~/.config/isthmus.
class KeyStore {
public:
  KeyStore();
  explicit KeyStore(std::filesystem::path folder) : folder(std::move(folder)) {}

  /// Signs with the user's key, creating it (mode 0600) at the first call.
  /// Returns the signature and the public half.
  std::pair<Signature, PublicKey> sign(std::span<const std::byte> message);

  bool trusts(const PublicKey &key) const;
  void trust(const PublicKey &key);

  const std::filesystem::path &path() const { return folder; }

private:
  std::filesystem::path folder;
};

} // namespace isthmus::rt
