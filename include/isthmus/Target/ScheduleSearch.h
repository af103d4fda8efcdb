//===- ScheduleSearch.h - finds a kernel schedule ---------------*- C++ -*-===//
#pragma once

#include "isthmus/Target/TargetDescription.h"

#include <functional>
#include <string>
#include <vector>

namespace isthmus {

/// What a candidate took, as a part of the time of the best one before it.
struct ScheduleTrial {
  std::string field;
  int64_t value;
  double ratio;
};

/// How far a search has come.
struct ScheduleSearch {
  KernelSchedule best;
  std::vector<ScheduleTrial> trials;
  std::vector<std::string> finished; ///< fields
};

/// Returns the time of `candidate` over that of `best`, which differ in
/// `field`.
using CompareSchedules =
    std::function<double(const ScheduleField &field, const KernelSchedule &best,
                         const KernelSchedule &candidate)>;

/// True if the cost model expects the inner loop of `field` to fit the
/// registers of the target.
bool fitsRegisters(const TargetDescription &target, const ScheduleField &field,
                   const KernelSchedule &schedule);

/// Goes through the fields that `search` has not finished, one after another,
/// and through the candidates that fit the registers; a candidate that takes
/// less than 98 % of the time becomes the best. Calls `progress` with the
/// candidates of a field before they are compared, and with none when it is
/// finished.
void searchSchedule(
    const TargetDescription &target, ScheduleSearch &search,
    const CompareSchedules &compare,
    const std::function<void(const ScheduleField &,
                             const std::vector<int64_t> &)> &progress);

} // namespace isthmus
