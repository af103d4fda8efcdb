#include "isthmus/runtime/Transport.h"
#include "TemporaryFolder.h"
#include "isthmus/runtime/Cluster.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <optional>
#include <thread>

using namespace isthmus::rt;
namespace fs = std::filesystem;

namespace {
class TransportTest : public testing::TestWithParam<const char *> {
protected:
  TransportTest() {
    createCluster(folder / "cluster");
    addMember(folder / "cluster", folder / "one", "one");
    addMember(folder / "cluster", folder / "two", "two");
    createCluster(folder / "foreign");
    addMember(folder / "foreign", folder / "stranger", "stranger");
  }

  std::string address() const {
    return std::string(GetParam()) == "unix"
               ? "unix:" + (folder / "socket").string()
               : "tls:127.0.0.1:0";
  }
  TemporaryFolder temporary;
  const fs::path &folder = temporary.path;
};

std::vector<std::byte> pattern(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = std::byte(i * 131 + i / 251);
  return bytes;
}
} // namespace

TEST_P(TransportTest, CarriesFramesOfAnySizeBothWays) {
  auto listener = listen(parseAddress(address()), folder / "one");
  std::thread echo([&] {
    auto channel = listener->accept();
    std::vector<std::byte> frame;
    for (int i = 0; i < 5; ++i) {
      channel->receive(frame);
      std::span<const std::byte> part(frame);
      channel->send({&part, 1});
    }
  });
  auto channel = connect(parseAddress(listener->address()), folder / "two", 5);
  std::vector<std::byte> frame;
  for (size_t size : {size_t(0), size_t(1), size_t(5000), size_t(4 << 20),
                      size_t(9'000'001)}) {
    auto bytes = pattern(size);
    // In two parts, as messages with a payload go.
    std::span<const std::byte> parts[] = {std::span(bytes).first(size / 3),
                                          std::span(bytes).subspan(size / 3)};
    channel->send(parts);
    channel->receive(frame, 20);
    EXPECT_EQ(frame, bytes);
  }
  echo.join();
}

TEST_P(TransportTest, NoticesThatThePeerIsGone) {
  auto listener = listen(parseAddress(address()), folder / "one");
  std::thread peer([&] { auto channel = listener->accept(); });
  auto channel = connect(parseAddress(listener->address()), folder / "two", 5);
  peer.join();
  std::vector<std::byte> frame;
  EXPECT_THROW(channel->receive(frame, 20), Error);
}

TEST_P(TransportTest, TimesOut) {
  auto listener = listen(parseAddress(address()), folder / "one");
  std::unique_ptr<Channel> held;
  std::thread peer([&] { held = listener->accept(); });
  auto channel = connect(parseAddress(listener->address()), folder / "two", 5);
  peer.join();
  std::vector<std::byte> frame;
  EXPECT_THROW(channel->receive(frame, 0.2), Error);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TransportTest, testing::Values("unix", "tls"));

using TlsTest = TransportTest;
TEST_P(TlsTest, RefusesMembersOfOtherClusters) {
  auto listener = listen(parseAddress("tls:127.0.0.1:0"), folder / "one");
  int refused = 0;
  listener->onRefused = [&](const std::string &) { ++refused; };
  std::thread door([&] { EXPECT_EQ(listener->accept(), nullptr); });
  // In TLS 1.3 the client learns of its refusal at its first read.
  EXPECT_THROW(
      {
        auto channel =
            connect(parseAddress(listener->address()), folder / "stranger", 5);
        std::vector<std::byte> frame;
        channel->receive(frame, 5);
      },
      Error);
  EXPECT_THROW(connect(parseAddress(listener->address()), "", 5), Error);
  listener->close();
  door.join();
  EXPECT_EQ(refused, 1);
}
INSTANTIATE_TEST_SUITE_P(Tls, TlsTest, testing::Values("tls"));

TEST(Address, RejectsWhatItDoesNotKnow) {
  for (const char *text : {"", "unix:", "tcp:1.2.3.4:5", "tls:host",
                           "tls::", "tls:h:99999", "tls:h:1x"})
    EXPECT_THROW(parseAddress(text), Error) << text;
  EXPECT_EQ(parseAddress("tls:[::1]:80").port, "80");
}

TEST(Cluster, DoesNotOverwriteAnAuthority) {
  TemporaryFolder temporary;
  const fs::path &folder = temporary.path;
  createCluster(folder);
  EXPECT_THROW(createCluster(folder), Error);
  EXPECT_EQ(fs::status(folder / "authority.pem").permissions(),
            fs::perms::owner_read | fs::perms::owner_write);
}

namespace {
class InvitationTest : public testing::Test {
protected:
  InvitationTest() {
    createCluster(folder / "cluster");
    invitation.emplace(folder / "cluster", parseAddress("tls:127.0.0.1:0"));
    address = parseAddress(invitation->address());
  }

  /// Waits for one member beside what the test does.
  std::future<std::string> door(double seconds = 20) {
    return std::async(std::launch::async, [this, seconds] {
      return invitation->admitOne(
          seconds, [this](const std::string &why) { refusals.push_back(why); });
    });
  }

  TemporaryFolder temporary;
  const fs::path &folder = temporary.path;
  std::optional<Invitation> invitation;
  Address address;
  std::vector<std::string> refusals;
};
} // namespace

TEST_F(InvitationTest, AMemberThatJoinedIsAMember) {
  auto name = door();
  joinCluster(folder / "new", "board-1", address, invitation->token());
  EXPECT_EQ(name.get(), "board-1");
  EXPECT_TRUE(refusals.empty());
  EXPECT_EQ(fs::status(folder / "new" / "key.pem").permissions(),
            fs::perms::owner_read | fs::perms::owner_write);
  addMember(folder / "cluster", folder / "old", "old");
  auto listener = listen(parseAddress("tls:127.0.0.1:0"), folder / "old");
  std::thread peer([&] { EXPECT_NE(listener->accept(), nullptr); });
  EXPECT_NO_THROW(
      connect(parseAddress(listener->address()), folder / "new", 5));
  peer.join();
}

TEST_F(InvitationTest, ATokenIsGoodOnce) {
  auto name = door();
  joinCluster(folder / "first", "first", address, invitation->token());
  name.get();
  std::string token = invitation->token();
  invitation.reset();
  EXPECT_THROW(joinCluster(folder / "second", "second", address, token), Error);
  EXPECT_FALSE(fs::exists(folder / "second"));
}

TEST_F(InvitationTest, RefusesAWrongSecret) {
  auto name = door();
  std::string token = invitation->token();
  token[0] = token[0] == '0' ? '1' : '0';
  EXPECT_THROW(joinCluster(folder / "bad", "bad", address, token), Error);
  EXPECT_FALSE(fs::exists(folder / "bad"));
  // The door is still open for the right one.
  joinCluster(folder / "good", "good", address, invitation->token());
  EXPECT_EQ(name.get(), "good");
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_NE(refusals[0].find("wrong token"), std::string::npos);
}

TEST_F(InvitationTest, TheJoiningSideKnowsWhomItAsks) {
  // Another invitation at this address, as somebody in between would make it.
  auto name = door(0.5);
  createCluster(folder / "foreign");
  Invitation other(folder / "foreign", parseAddress("tls:127.0.0.1:0"));
  EXPECT_THROW(joinCluster(folder / "bad", "bad", address, other.token()),
               Error);
  EXPECT_THROW(name.get(), Error); // nobody came in time
}

TEST_F(InvitationTest, RejectsMalformedTokensAndNames) {
  for (const char *token : {"", "12", "zz"})
    EXPECT_THROW(joinCluster(folder / "bad", "bad", address, token), Error);
  for (const char *name : {"", "a/b", "a b", "\xc3\xa4"})
    EXPECT_THROW(
        joinCluster(folder / "bad", name, address, invitation->token()), Error);
  EXPECT_THROW(Invitation(folder / "cluster", parseAddress("unix:/tmp/x")),
               Error);
  EXPECT_THROW(Invitation(folder / "none", address), Error);
}
