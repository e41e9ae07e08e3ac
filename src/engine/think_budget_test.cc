// Bounds of a thought, by hand: token 5 ends it, 4 begins it, 7 8 are the words to go on, 6 ends
// the text.
#include "engine/think_budget.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

constexpr int64_t kVocab = 70;  // more than one word of the mask

ThinkBudget budget(std::optional<int64_t> most, int64_t least) {
  return {
      .most = most, .least = least, .begin_id = 4, .end_id = 5, .again = {7, 8}, .stop_ids = {6}};
}

// The tokens that the guide makes of a model that draws those of `wish` in turn, then 5s.
std::vector<int32_t> said(ThinkGuide guide, const std::vector<int32_t>& wish, size_t length) {
  std::vector<int32_t> answer;
  size_t drawn = 0;
  while (answer.size() < length) {
    std::span<const uint64_t> mask = guide.mask(answer);
    int32_t token = drawn < wish.size() ? wish[drawn] : 5;
    ++drawn;
    if (!mask.empty()) {
      int allowed = 0;
      for (int32_t i = 0; i < kVocab; ++i) {
        if ((mask[static_cast<size_t>(i) / 64] >> (i % 64) & 1) == 0) continue;
        token = i;
        ++allowed;
      }
      EXPECT_EQ(allowed, 1);
    }
    answer.push_back(guide.replace(token, answer));
  }
  return answer;
}

using Tokens = std::vector<int32_t>;

TEST(ThinkGuide, EndsAThoughtAtItsBudget) {
  EXPECT_EQ(said({budget(3, 0), true, kVocab}, {1, 2, 3, 65, 65, 65}, 6),
            (Tokens{1, 2, 3, 5, 65, 65}));
  EXPECT_EQ(said({budget(0, 0), true, kVocab}, {1, 2, 3}, 3), (Tokens{5, 2, 3}));
}

TEST(ThinkGuide, LeavesAThoughtAloneThatEndsByItself) {
  EXPECT_EQ(said({budget(4, 0), true, kVocab}, {1, 5, 2, 3, 6, 6, 6}, 7),
            (Tokens{1, 5, 2, 3, 6, 6, 6}));
}

TEST(ThinkGuide, GoesOnWhereTheThoughtWouldEndTooEarly) {
  // Ended after 1 token of 5: "7 8" instead, what was drawn for 8's place is gone.
  EXPECT_EQ(said({budget({}, 5), true, kVocab}, {1, 5, 9, 5, 9, 2, 5, 3}, 8),
            (Tokens{1, 7, 8, 7, 8, 2, 5, 3}));
}

TEST(ThinkGuide, GoesOnWhereTheTextWouldEndWithinTheThought) {
  EXPECT_EQ(said({budget({}, 4), true, kVocab}, {1, 6, 9, 6, 9, 6, 6}, 6),
            (Tokens{1, 7, 8, 7, 8, 6}));
  // Not behind a thought, nor where there is none.
  EXPECT_EQ(said({budget({}, 1), true, kVocab}, {1, 5, 6}, 3), (Tokens{1, 5, 6}));
  EXPECT_EQ(said({budget({}, 9), false, kVocab}, {1, 6}, 2), (Tokens{1, 6}));
}

TEST(ThinkGuide, TheBudgetCountsMoreThanTheMinimum) {
  EXPECT_EQ(said({budget(2, 9), true, kVocab}, {1, 5, 3, 3}, 4), (Tokens{1, 7, 5, 3}));
}

TEST(ThinkGuide, CountsFromTheMarkWhereTheAnswerBeginsTheThought) {
  EXPECT_EQ(said({budget(2, 0), false, kVocab}, {4, 1, 2, 3, 6}, 5), (Tokens{4, 1, 2, 5, 6}));
  EXPECT_EQ(said({budget(2, 9), false, kVocab}, {1, 2, 3, 5, 6}, 5), (Tokens{1, 2, 3, 5, 6}));
}

TEST(ThinkGuide, KeepsTheMaskOfTheAnswerBehindTheThought) {
  GenerateRequest r;
  std::vector<uint64_t> own = {2};
  r.mask = [&](std::span<const int32_t>) { return std::span<const uint64_t>(own); };
  bound_thought(r, budget(1, 0), true, 64);
  std::vector<int32_t> answer = {9};
  EXPECT_EQ(r.mask(answer)[0], uint64_t{1} << 5);
  answer.push_back(5);
  EXPECT_EQ(r.mask(answer)[0], 2u);
  GenerateRequest stops;
  stops.stop_ids = {3};
  bound_thought(stops, budget({}, 2), true, 64);
  for (int32_t end : {3, 5, 6}) EXPECT_EQ(stops.replace(end, {}), 7);
  GenerateRequest none;
  bound_thought(none, budget({}, 0), true, 64);
  EXPECT_FALSE(none.mask || none.replace);
}

}  // namespace
}  // namespace wels
