//===- TunedSchedule.cpp - what 'isthmus tune' keeps ----------------------===//
#include "isthmus/Driver/TunedSchedule.h"

#include "isthmus/runtime/Crypto.h"
#include "isthmus/runtime/Error.h"

#include <fstream>
#include <nlohmann/json.hpp>

using namespace isthmus;
using nlohmann::json;
using rt::Error;

std::filesystem::path isthmus::tunedSchedulePath(const std::string &target) {
  return rt::KeyStore().path() / "schedules" / (target + ".json");
}

std::optional<ScheduleSearch>
isthmus::readTunedSchedule(const std::filesystem::path &path,
                           const TargetDescription &target) {
  std::ifstream file(path);
  if (!file)
    return std::nullopt;
  ScheduleSearch search;
  search.best = target.schedule;
  try {
    json stored = json::parse(file);
    if (stored.at("target") != target.name)
      throw Error("it was made for {}", stored.at("target").dump());
    parseSchedule(stored.at("schedule").get<std::string>(), search.best);
    for (const json &trial : stored.at("trials"))
      search.trials.push_back(
          {trial.at("field"), trial.at("value"), trial.at("time_ratio")});
    search.finished = stored.at("finished");
  } catch (const std::exception &error) {
    throw Error("{} is no tuned schedule for {}: {}. 'isthmus tune --restart' "
                "makes it anew",
                path.string(), target.name, error.what());
  }
  return search;
}

void isthmus::writeTunedSchedule(const std::filesystem::path &path,
                                 const TargetDescription &target,
                                 const ScheduleSearch &search) {
  json trials = json::array();
  for (const ScheduleTrial &trial : search.trials)
    trials.push_back({{"field", trial.field},
                      {"value", trial.value},
                      {"time_ratio", trial.ratio}});
  json out = {{"target", target.name},
              {"schedule", toString(search.best)},
              {"finished", search.finished},
              {"trials", trials}};
  if (path.has_parent_path())
    std::filesystem::create_directories(path.parent_path());
  std::filesystem::path part = path;
  part += ".part";
  if (!(std::ofstream(part) << out.dump(1) << "\n").flush())
    throw Error("{}: cannot write", part.string());
  std::filesystem::rename(part, path);
}
