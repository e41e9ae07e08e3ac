// Votes by hand.
#include "rl/voting.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

Rollout answer(const std::string& text, std::vector<double> logp, bool ended = true) {
  Rollout r;
  r.parts.answer = text;
  r.logp = std::move(logp);
  r.tokens.resize(r.logp.size());
  r.ended = ended;
  return r;
}

TEST(MajorityAnswer, IsTheFirstOfThoseThatMostHave) {
  std::vector<Rollout> a = {answer("7", {}), answer("8", {}), answer("so \\boxed{8}", {})};
  EXPECT_EQ(majority_answer(a), 1u);
  a.push_back(answer("7", {}));  // two each
  EXPECT_EQ(majority_answer(a), 0u);
}

TEST(MajorityAnswer, CutAndEmptyAnswersDoNotVote) {
  std::vector<Rollout> a = {answer("7", {}, false), answer("7", {}, false), answer("", {}),
                            answer("", {}), answer("9", {})};
  EXPECT_EQ(majority_answer(a), 4u);
  a.pop_back();
  EXPECT_EQ(majority_answer(a), 0u);
}

TEST(LikeliestAnswer, HasTheLargestMeanNotTheLargestSum) {
  std::vector<Rollout> a = {answer("a", {-1.0}), answer("b", {-0.5, -0.5, -0.5}),
                            answer("c", {-0.75, -0.5})};
  EXPECT_EQ(likeliest_answer(a), 1u);
}

TEST(LikeliestAnswer, IsACutOneOnlyWhereAllWere) {
  std::vector<Rollout> a = {answer("a", {-0.1}, false), answer("b", {-3.0}), answer("c", {-2.0})};
  EXPECT_EQ(likeliest_answer(a), 2u);
  a = {answer("a", {-0.2}, false), answer("b", {-0.1}, false)};
  EXPECT_EQ(likeliest_answer(a), 1u);
}

}  // namespace
}  // namespace wels
