//===- Channels.h - the kinds of channels, behind Transport.h ---*- C++ -*-===//
#pragma once

#include "isthmus/runtime/Transport.h"

namespace isthmus::rt {

std::unique_ptr<Listener> listenSharedMemory(const Address &address);
std::unique_ptr<Channel> connectSharedMemory(const Address &address,
                                             double timeoutSeconds);
std::unique_ptr<Listener> listenTls(const Address &address,
                                    const std::string &clusterFolder);
std::unique_ptr<Channel> connectTls(const Address &address,
                                    const std::string &clusterFolder,
                                    double timeoutSeconds);

} // namespace isthmus::rt
