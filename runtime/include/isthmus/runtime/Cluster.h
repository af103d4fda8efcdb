//===- Cluster.h - certificates of a cluster's members ----------*- C++ -*-===//
#pragma once

#include <filesystem>
#include <string>

namespace isthmus::rt {

/// Makes a cluster: `folder` gets the authority (authority.pem, its private
/// key, mode 0600; ca.pem). Throws Error if the folder has one already.
void createCluster(const std::filesystem::path &folder);

/// Makes a member: `member` gets ca.pem, and a certificate and key of its own
/// (cert.pem, key.pem). Only this folder goes to the member's machine.
void addMember(const std::filesystem::path &cluster,
               const std::filesystem::path &member, const std::string &name);

} // namespace isthmus::rt
