#include "base/signal.h"

#include <gtest/gtest.h>

#include <csignal>

namespace wels {
namespace {

TEST(StopSignal, FirstSignalIsNotedAndForgottenAtTheEnd) {
  ::testing::internal::CaptureStderr();
  {
    StopSignal stop;
    EXPECT_FALSE(stop.requested());
    std::raise(SIGTERM);
    EXPECT_TRUE(stop.requested());
    EXPECT_EQ(stop.number(), SIGTERM);
  }
  StopSignal again;
  EXPECT_FALSE(again.requested());
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("once more"), std::string::npos);
}

TEST(StopSignalDeathTest, SecondSignalEndsTheProgramAtOnce) {
  EXPECT_EXIT(
      {
        StopSignal stop;
        std::raise(SIGINT);
        std::raise(SIGINT);
      },
      ::testing::ExitedWithCode(128 + SIGINT), "once more");
}

TEST(StopSignalDeathTest, FormerHandlersComeBack) {
  EXPECT_EXIT(
      {
        { StopSignal stop; }
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace wels
