//===- TunedSchedule.h - what 'isthmus tune' keeps --------------*- C++ -*-===//
#pragma once

#include "isthmus/Target/ScheduleSearch.h"

#include <filesystem>
#include <optional>

namespace isthmus {

/// Where the schedule of a target is kept for this user: schedules/TARGET.json
/// beside the keys (rt::KeyStore).
std::filesystem::path tunedSchedulePath(const std::string &target);

/// Reads such a file, of a search that may not be finished; none if there is no
/// file. Throws rt::Error if it is damaged or made for another target.
std::optional<ScheduleSearch>
readTunedSchedule(const std::filesystem::path &path,
                  const TargetDescription &target);

/// Replaces the file in one step.
void writeTunedSchedule(const std::filesystem::path &path,
                        const TargetDescription &target,
                        const ScheduleSearch &search);

} // namespace isthmus
