//===- Cluster.cpp - 'isthmus cluster' ------------------------------------===//
#include "Commands.h"

#include "isthmus/runtime/Cluster.h"

#include <cstdio>
#include <filesystem>
#include <fmt/format.h>

using namespace isthmus;

namespace {
struct Options {
  std::string cluster, member, name, token;
  std::string address;
  double minutes = 15;
};
using Shared = std::shared_ptr<Options>;

void addCreate(CLI::App &app, const Shared &o) {
  CLI::App *command = app.add_subcommand("create", "Make a cluster");
  command->add_option("FOLDER", o->cluster)->required();
  command->callback([o] {
    rt::createCluster(o->cluster);
    fmt::print("{0}: keep authority.pem secret; add members with 'isthmus "
               "cluster add {0} FOLDER' or 'isthmus cluster invite {0}'\n",
               o->cluster);
  });
}

void addAdd(CLI::App &app, const Shared &o) {
  CLI::App *command = app.add_subcommand("add", "Add a member to a cluster");
  command->add_option("CLUSTER", o->cluster)->required();
  command->add_option("FOLDER", o->member, "what goes to the member's machine")
      ->required();
  command->callback([o] {
    rt::addMember(o->cluster, o->member,
                  std::filesystem::path(o->member).filename().string());
    fmt::print(
        "{}: copy this folder to the member and give it with --cluster\n",
        o->member);
  });
}

void addInvite(CLI::App &app, const Shared &o) {
  CLI::App *command = app.add_subcommand(
      "invite", "Let one machine join with a one-time token\n\nExample:\n"
                "  isthmus cluster invite mycluster --listen tls:0.0.0.0:7000");
  command->add_option("CLUSTER", o->cluster)->required();
  command
      ->add_option("--listen", o->address,
                   "tls:host:port that the new member can reach")
      ->default_str("tls:127.0.0.1:0");
  command->add_option("--minutes", o->minutes, "how long the token is good")
      ->check(CLI::Range(0.01, 1440.0))
      ->capture_default_str();
  command->callback([o] {
    rt::Invitation invitation(
        o->cluster,
        rt::parseAddress(o->address.empty() ? "tls:127.0.0.1:0" : o->address));
    fmt::print("within {:g} minutes, on the machine that joins:\n"
               "  isthmus cluster join FOLDER --from {} --token {}\n",
               o->minutes, invitation.address(), invitation.token());
    std::fflush(stdout);
    std::string name =
        invitation.admitOne(o->minutes * 60, [](const std::string &why) {
          fmt::print(stderr, "refused: {}\n", why);
        });
    fmt::print("'{}' has joined\n", name);
  });
}

void addJoin(CLI::App &app, const Shared &o) {
  CLI::App *command = app.add_subcommand(
      "join", "Become a member by the token of an invitation\n\nExample:\n"
              "  isthmus cluster join board --from tls:10.0.0.5:7000 "
              "--token 3f...");
  command
      ->add_option("FOLDER", o->member,
                   "to be made; give it with --cluster afterwards")
      ->required();
  command->add_option("--from", o->address, "the invitation's address")
      ->required();
  command->add_option("--token", o->token, "the invitation's token")
      ->required();
  command->add_option("--name", o->name,
                      "this member's name (default: the folder's)");
  command->callback([o] {
    std::string name =
        o->name.empty() ? std::filesystem::path(o->member).filename().string()
                        : o->name;
    rt::joinCluster(o->member, name, rt::parseAddress(o->address), o->token);
    fmt::print("{}: joined as '{}'\n", o->member, name);
  });
}
} // namespace

void cli::addCluster(CLI::App &app) {
  CLI::App *command = app.add_subcommand(
      "cluster",
      "Make certificates by which workers on different hosts know one "
      "another\n\nExample:\n  isthmus cluster create mycluster\n"
      "  isthmus cluster add mycluster board-member\n");
  command->require_subcommand(1);
  auto options = std::make_shared<Options>();
  addCreate(*command, options);
  addAdd(*command, options);
  addInvite(*command, options);
  addJoin(*command, options);
}
