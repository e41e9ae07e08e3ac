#include "text/stop_strings.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

TEST(StopStrings, TheTextEndsBeforeTheFirstOneWhereverItIsCut) {
  std::string text = "one two ENDthree STOP four";
  for (size_t a = 0; a <= text.size(); ++a) {
    for (size_t b = a; b <= text.size(); ++b) {
      StopStrings stop({"STOP", "END", ""});
      std::string shown = stop.push(text.substr(0, a));
      shown += stop.push(text.substr(a, b - a));
      shown += stop.push(text.substr(b));
      shown += stop.finish();
      EXPECT_EQ(shown, "one two ") << a << " " << b;
      EXPECT_EQ(stop.found(), "END");
    }
  }
}

TEST(StopStrings, WhatMayBecomeOneIsHeldBackAndGivenAtTheEnd) {
  StopStrings stop({"abc"});
  EXPECT_EQ(stop.push("xxab"), "xx");
  EXPECT_TRUE(stop.holds());
  EXPECT_EQ(stop.push("a"), "ab");
  EXPECT_EQ(stop.finish(), "a");
  EXPECT_FALSE(stop.stopped());
}

}  // namespace
}  // namespace wels
