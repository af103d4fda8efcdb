//===- ScheduleSearch.cpp - finds a kernel schedule -----------------------===//
#include "isthmus/Target/ScheduleSearch.h"

#include <algorithm>

using namespace isthmus;

bool isthmus::fitsRegisters(const TargetDescription &target,
                            const ScheduleField &field,
                            const KernelSchedule &schedule) {
  constexpr int64_t kBitsOfVector = 512; // 16 lanes
  const int64_t tiles =
      target.tileRegisters && field.tiles ? field.tiles(schedule) : 0;
  if (tiles)
    return tiles <= target.tileRegisters;
  return field.vectors(schedule) * kBitsOfVector <=
         target.vectorRegisters * target.vectorBits;
}

void isthmus::searchSchedule(
    const TargetDescription &target, ScheduleSearch &search,
    const CompareSchedules &compare,
    const std::function<void(const ScheduleField &,
                             const std::vector<int64_t> &)> &progress) {
  // Below this a gain is noise, or not worth a schedule of its own.
  constexpr double kWorthwhile = 0.98;
  for (const ScheduleField &field : scheduleFields()) {
    if (std::ranges::find(search.finished, field.name) != search.finished.end())
      continue;
    const int64_t present = search.best.*field.value;
    std::vector<int64_t> candidates;
    // (What fills tiles in a prompt has their shape, whatever this says: there
    // is nothing to measure.)
    const bool isMeasured = !(target.tileRegisters && field.tiles);
    for (int64_t value : field.candidates) {
      KernelSchedule candidate = search.best;
      candidate.*field.value = value;
      if (isMeasured && value != present &&
          fitsRegisters(target, field, candidate))
        candidates.push_back(value);
    }
    if (!candidates.empty())
      progress(field, candidates);
    for (int64_t value : candidates) {
      KernelSchedule candidate = search.best;
      candidate.*field.value = value;
      const double ratio = compare(field, search.best, candidate);
      search.trials.push_back({field.name, value, ratio});
      if (ratio < kWorthwhile)
        search.best = candidate;
    }
    search.finished.push_back(field.name);
    progress(field, {});
  }
}
