//===- Cluster.h - how members come into a cluster --------------*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Transport.h"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

namespace isthmus::rt {

/// Makes a cluster: `folder` gets the authority (authority.pem, its private
/// key, mode 0600; ca.pem). Throws Error if the folder has one already.
void createCluster(const std::filesystem::path &folder);

/// Makes a member: `member` gets ca.pem, and a certificate and key of its own
/// (cert.pem, key.pem). Only this folder goes to the member's machine.
void addMember(const std::filesystem::path &cluster,
               const std::filesystem::path &member, const std::string &name);

/// A one-time way into a cluster for a machine that no folder can be copied to:
/// listens until one member has come with the token.
class Invitation {
public:
  /// `cluster` holds the authority; `address` is of the kind tls. Throws Error.
  Invitation(const std::filesystem::path &cluster, const Address &address);
  ~Invitation();

  std::string address() const; ///< with the real port
  /// 96 hex digits: a secret, and the digest of the certificate that this
  /// invitation shows. To be handed over by a way that others do not read.
  std::string token() const;
  /// Waits for the one member and returns its name. Peers without the token are
  /// refused and reported. Throws Error when `seconds` are over.
  std::string
  admitOne(double seconds,
           const std::function<void(const std::string &)> &onRefused);

private:
  struct State;
  std::unique_ptr<State> state;
};

/// Answers an invitation: makes a key in `member` and has it certified under
/// `name`. The private key stays here. Throws Error, and then writes nothing.
void joinCluster(const std::filesystem::path &member, const std::string &name,
                 const Address &from, const std::string &token);

} // namespace isthmus::rt
