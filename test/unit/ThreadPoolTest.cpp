#include "isthmus/runtime/ThreadPool.h"

#include <gtest/gtest.h>
#include <numeric>
#include <vector>

using namespace isthmus::rt;

TEST(ThreadPool, RunsAJobOnceOnEachThread) {
  ThreadPool pool(4);
  std::vector<int> times(4);
  for (int i = 0; i < 2000; ++i)
    pool.run([&](unsigned thread) { ++times[thread]; });
  EXPECT_EQ(times, std::vector<int>(4, 2000));
}

TEST(ThreadPool, HelpersShareOrStayAway) {
  ThreadPool pool(4);
  for (int i = 0; i < 5000; ++i) {
    // The caller finishes what nobody takes; the counters go with the job.
    std::atomic<int> left = 20, done = 0;
    std::vector<int> inside(4);
    pool.runHelped([&](unsigned thread) {
      while (left.fetch_sub(1) > 0) {
        ++inside[thread];
        ++done;
      }
    });
    ASSERT_EQ(done.load(), 20);
    ASSERT_EQ(std::accumulate(inside.begin(), inside.end(), 0), 20);
    // Jobs that need everybody come in between.
    if (i % 7 == 0) {
      std::atomic<int> seen = 0;
      pool.run([&](unsigned) { ++seen; });
      ASSERT_EQ(seen.load(), 4);
    }
  }
}
