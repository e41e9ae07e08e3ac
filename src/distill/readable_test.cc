// Which answers can be read.
#include <gtest/gtest.h>

#include "distill/answers.h"

namespace wels {
namespace {

std::string repeated(const std::string& words, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += words;
  return out;
}

TEST(Readable, OneThoughtAndOneAnswerAreReadable) {
  Readability r{.required = true};
  EXPECT_TRUE(r.accepts("<think>first 1, then 2</think>3"));
  EXPECT_TRUE(r.accepts("<think></think>3"));
  EXPECT_FALSE(r.accepts("3"));                           // no thought
  EXPECT_FALSE(r.accepts("<think>first 1"));              // never closed
  EXPECT_FALSE(r.accepts("<think>a</think>b</think>3"));  // closed twice
  EXPECT_FALSE(r.accepts("<think>a</think>"));            // no answer
  EXPECT_FALSE(r.accepts("<think>a<think>b</think>3"));   // two thoughts
}

TEST(Readable, NothingIsRefusedWhereNothingIsRequired) {
  EXPECT_TRUE(Readability{}.accepts("anything"));
  EXPECT_TRUE(Readability{}.accepts("<think>never closed"));
}

TEST(Readable, AThoughtCanBeRequiredByItself) {
  Readability r{.thought = true};
  EXPECT_TRUE(r.accepts("<think>a</think>3"));
  EXPECT_FALSE(r.accepts("<think> \n</think>3"));
  EXPECT_FALSE(r.accepts("3"));
}

TEST(Readable, AThoughtInTwoLanguagesIsNot) {
  Readability r{.required = true, .least_language = 0.75};
  EXPECT_TRUE(r.accepts("<think>so the sum is 好</think>3"));  // 4 of 5 words
  EXPECT_FALSE(r.accepts("<think>so 这 sum 是 is</think>3"));  // 3 of 5
  r.language = "zh";
  EXPECT_TRUE(r.accepts("<think>先加一再减二</think>3"));
  EXPECT_FALSE(r.accepts("<think>first add one</think>3"));
}

TEST(Readable, TheSameWordsOverAndOverAreNot) {
  EXPECT_TRUE(repeats_itself(repeated("let me check again. ", 20)));
  EXPECT_TRUE(repeats_itself("first " + repeated("no ", 60)));
  EXPECT_TRUE(repeats_itself(repeated("再检查", 30)));
  EXPECT_FALSE(repeats_itself(repeated("no ", 20)));  // short enough to be meant
  std::string counting;
  for (int i = 0; i < 100; ++i) counting += std::to_string(i) + " ";
  EXPECT_FALSE(repeats_itself(counting));
  EXPECT_FALSE(repeats_itself(repeated("no ", 60) + counting));  // the end counts
  Readability r{.required = true};
  EXPECT_FALSE(r.accepts("<think>" + repeated("no ", 60) + "</think>3"));
  EXPECT_FALSE(r.accepts("<think>a</think>" + repeated("no ", 60)));
}

TEST(Readable, WhatIsAskedForIsPartOfTheSettings) {
  EXPECT_EQ(Readability{}.about(), "any");
  EXPECT_NE((Readability{.required = true}).about(),
            (Readability{.required = true, .language = "zh"}).about());
  EXPECT_NE((Readability{.required = true}).about(),
            (Readability{.required = true, .least_language = 0.5}).about());
  EXPECT_NE((Readability{.required = true}).about(),
            (Readability{.required = true, .thought = true}).about());
}

}  // namespace
}  // namespace wels
