//===- Transport.cpp - addresses and the choice of a channel --------------===//
#include "Channels.h"

#include "isthmus/runtime/Error.h"

#include <charconv>

using namespace isthmus::rt;

Address isthmus::rt::parseAddress(const std::string &text) {
  Address address{};
  address.text = text;
  if (text.starts_with("unix:") && text.size() > 5) {
    address.kind = Address::Kind::SharedMemory;
    address.path = text.substr(5);
    return address;
  }
  size_t colon = text.rfind(':');
  if (text.starts_with("tls:") && colon > 4 && colon != std::string::npos) {
    address.kind = Address::Kind::Tls;
    address.host = text.substr(4, colon - 4);
    address.port = text.substr(colon + 1);
    unsigned port = 0;
    auto [end, error] = std::from_chars(
        address.port.data(), address.port.data() + address.port.size(), port);
    if (error == std::errc() && *end == '\0' && port <= 65535)
      return address;
  }
  throw Error("'{}' is not an address; write unix:/path/to/socket or "
              "tls:host:port",
              text);
}

std::unique_ptr<Listener>
isthmus::rt::listen(const Address &address, const std::string &clusterFolder) {
  return address.kind == Address::Kind::SharedMemory
             ? listenSharedMemory(address)
             : listenTls(address, clusterFolder);
}

std::unique_ptr<Channel> isthmus::rt::connect(const Address &address,
                                              const std::string &clusterFolder,
                                              double timeoutSeconds) {
  return address.kind == Address::Kind::SharedMemory
             ? connectSharedMemory(address, timeoutSeconds)
             : connectTls(address, clusterFolder, timeoutSeconds);
}
