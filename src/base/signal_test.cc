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
    EXPECT_TRUE(stop_requested());
    EXPECT_EQ(stop.number(), SIGTERM);
  }
  EXPECT_FALSE(stop_requested());
  StopSignal again;
  EXPECT_FALSE(again.requested());
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("once more"), std::string::npos);
}

TEST(StopSignal, AnInnerOneForgetsNothing) {
  ::testing::internal::CaptureStderr();
  {
    StopSignal outer;
    {
      StopSignal inner;
      std::raise(SIGINT);
      EXPECT_TRUE(inner.requested());
    }
    EXPECT_TRUE(outer.requested());
    StopSignal next;
    EXPECT_TRUE(next.requested());
    EXPECT_EQ(next.number(), SIGINT);
  }
  EXPECT_FALSE(stop_requested());
  ::testing::internal::GetCapturedStderr();
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

TEST(InterruptSignal, IsNotedHoweverOftenItComesAndSaysNothing) {
  ::testing::internal::CaptureStderr();
  {
    InterruptSignal interrupt;
    EXPECT_FALSE(interrupt.requested());
    std::raise(SIGINT);
    std::raise(SIGINT);
    EXPECT_TRUE(interrupt.requested());
  }
  InterruptSignal again;
  EXPECT_FALSE(again.requested());
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(InterruptSignalDeathTest, LeavesTheOtherSignalAlone) {
  EXPECT_EXIT(
      {
        InterruptSignal interrupt;
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace wels
