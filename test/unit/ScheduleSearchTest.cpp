#include "isthmus/Target/ScheduleSearch.h"
#include "isthmus/runtime/Error.h"

#include <gtest/gtest.h>

using namespace isthmus;

namespace {
const TargetDescription &avx2() { return *findTarget("x86-64-avx2"); }
auto quiet = [](const ScheduleField &, const std::vector<int64_t> &) {};

const ScheduleField &field(std::string_view name) {
  for (const ScheduleField &candidate : scheduleFields())
    if (candidate.name == name)
      return candidate;
  throw std::runtime_error("no such field");
}
} // namespace

TEST(KernelScheduleTest, TextAndBack) {
  KernelSchedule schedule = avx2().schedule, other;
  schedule.dotRows = 3;
  schedule.prefetchNear = 4096;
  parseSchedule(toString(schedule), other);
  EXPECT_EQ(schedule, other);
  parseSchedule("", other);
  EXPECT_EQ(schedule, other);
}

TEST(KernelScheduleTest, RefusesWhatIsNoSchedule) {
  KernelSchedule schedule;
  for (const char *text :
       {"speed=3", "dot_rows", "dot_rows=", "dot_rows=x", "dot_rows=0",
        "dot_rows=17", "tile_bytes=99999999999", "dot_rows=2,,", "="})
    EXPECT_THROW(parseSchedule(text, schedule), rt::Error) << text;
  try {
    parseSchedule("speed=3", schedule);
  } catch (const rt::Error &error) {
    EXPECT_NE(std::string(error.what()).find("dot_rows"), std::string::npos);
  }
}

TEST(ScheduleSearchTest, DefaultsFitTheRegisters) {
  for (const TargetDescription &target : allTargets())
    for (const ScheduleField &candidate : scheduleFields())
      EXPECT_TRUE(fitsRegisters(target, candidate, target.schedule))
          << target.name << " " << candidate.name;
  KernelSchedule wide = avx2().schedule;
  wide.dotRows = 16;
  EXPECT_FALSE(fitsRegisters(avx2(), field("dot_rows"), wide));
  // Tiles: 2 x 3 sums, 2 of rows and 1 of weights are one too many.
  const TargetDescription &amx = *findTarget("x86-64-amx");
  wide = amx.schedule;
  wide.wholePanels = 3;
  EXPECT_FALSE(fitsRegisters(amx, field("whole_panels"), wide));
}

TEST(ScheduleSearchTest, LeavesTheShapeOfTiles) {
  ScheduleSearch search;
  const TargetDescription &amx = *findTarget("x86-64-amx");
  search.best = amx.schedule;
  searchSchedule(
      amx, search,
      [](const ScheduleField &field, const KernelSchedule &,
         const KernelSchedule &) {
        EXPECT_NE(std::string(field.name).substr(0, 6), "whole_");
        return 0.5;
      },
      quiet);
  EXPECT_EQ(search.finished.size(), scheduleFields().size());
}

TEST(ScheduleSearchTest, TakesWhatIsFaster) {
  // A machine that likes two rows and far prefetches, and no change below 2 %.
  auto time = [](const KernelSchedule &s) {
    return 10.0 + 3 * double(s.dotRows) - double(s.prefetchNear) / 4096 +
           0.01 * double(s.panels);
  };
  ScheduleSearch search;
  search.best = avx2().schedule;
  searchSchedule(
      avx2(), search,
      [&](const ScheduleField &, const KernelSchedule &best,
          const KernelSchedule &candidate) {
        return time(candidate) / time(best);
      },
      quiet);
  KernelSchedule expected = avx2().schedule;
  expected.dotRows = 2;
  expected.prefetchNear = 4096;
  EXPECT_EQ(search.best, expected) << toString(search.best);
  EXPECT_EQ(search.finished.size(), scheduleFields().size());
  for (const ScheduleTrial &trial : search.trials)
    EXPECT_FALSE(trial.field == "dot_rows" && trial.value > 6);
}

TEST(ScheduleSearchTest, GoesOnWhereItWas) {
  ScheduleSearch search;
  search.best = avx2().schedule;
  int compared = 0;
  auto interrupted = [&](const ScheduleField &f, const KernelSchedule &,
                         const KernelSchedule &) {
    if (std::string_view(f.name) == "float_rows")
      throw std::runtime_error("interrupted");
    return 0.5;
  };
  EXPECT_THROW(searchSchedule(avx2(), search, interrupted, quiet),
               std::runtime_error);
  const KernelSchedule soFar = search.best;
  EXPECT_EQ(search.finished.front(), "dot_rows");
  searchSchedule(
      avx2(), search,
      [&](const ScheduleField &f, const KernelSchedule &best,
          const KernelSchedule &) {
        EXPECT_STRNE(f.name, "dot_rows");
        if (compared++ == 0) {
          EXPECT_EQ(best, soFar);
        }
        return 1.0;
      },
      quiet);
  EXPECT_GT(compared, 0);
  EXPECT_EQ(search.best, soFar);
}
