#include "base/threads.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

struct ThreadsTest : testing::Test {
  ~ThreadsTest() override { set_thread_count(before); }
  int before = thread_count();
};

TEST_F(ThreadsTest, AThreadComputesWithAsManyAsTheOneThatMadeIt) {
  set_thread_count(before + 2);
  int seen = 0, below = 0;
  make_thread([&] {
    seen = thread_count();
    make_thread([&] { below = thread_count(); }).join();
  }).join();
  EXPECT_EQ(seen, before + 2);
  EXPECT_EQ(below, before + 2);
}

}  // namespace
}  // namespace wels
