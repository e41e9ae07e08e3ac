#include "engine/answer_lengths.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

TEST(AnswerLengths, expects_the_limit_while_no_answer_has_ended) {
  EXPECT_EQ(AnswerLengths().expected(0, 300), 300);
  EXPECT_EQ(AnswerLengths().expected(299, 300), 300);
}

TEST(AnswerLengths, expects_the_mean_of_those_that_got_longer) {
  AnswerLengths lengths;
  for (int64_t n : {10, 20, 60}) lengths.add(n, false);
  EXPECT_EQ(lengths.expected(0, 300), 30);
  EXPECT_EQ(lengths.expected(10, 300), 40);
  EXPECT_EQ(lengths.expected(20, 300), 60);
  EXPECT_EQ(lengths.expected(60, 300), 120) << "longer than all: twice";
  EXPECT_EQ(lengths.expected(200, 300), 300);
  EXPECT_EQ(lengths.expected(10, 30), 25) << "each held to its own limit";
  EXPECT_EQ(lengths.expected(30, 30), 30);
}

TEST(AnswerLengths, an_answer_that_was_cut_off_would_have_reached_any_limit) {
  AnswerLengths lengths;
  lengths.add(50, true);
  EXPECT_EQ(lengths.expected(0, 1000), 1000);
  lengths.add(50, false);
  EXPECT_EQ(lengths.expected(0, 1000), 525);
}

TEST(AnswerLengths, only_the_last_ones_count) {
  AnswerLengths lengths;
  for (size_t i = 0; i < 100; ++i) lengths.add(1000, false);
  for (size_t i = 0; i < AnswerLengths::kKept; ++i) lengths.add(8, false);
  EXPECT_EQ(lengths.expected(0, 4000), 8);
}

}  // namespace
}  // namespace wels
