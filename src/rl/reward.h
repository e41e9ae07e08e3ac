// Rewards by rule, as R1 has them: whether the answer is right, whether the completion has the form
// of a thought and an answer, and whether the thought keeps to its language; DAPO's penalty for
// answers that come near the limit (arXiv 2503.14476, eq. 13).
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "rl/rollout.h"
#include "tasks/task.h"

namespace wels {

struct RewardSettings {
  double accuracy = 1, format = 0, language = 0;  // weights
  double chance = 0;                   // weight of a fair coin, thrown for each answer: a control
  std::string target_language = "en";  // or "zh"
  int64_t overlong_zone = 0;  // tokens before the limit in which a penalty grows to 1; 0: none
};

struct Reward {
  double score = 0;  // by the task, 0 to 1; of a completion that did not end: 0
  bool formed = false;
  // Share of the thought's words (R1, B.6). One without words has no share and gets the mean of its
  // siblings that have one, which pulls neither way; 0 where none has.
  double language = 0;
  double penalty = 0;   // 0 to -1
  double total = 0;
};

// 0 up to limit - zone tokens, then falling to -1 at the limit.
double overlong_penalty(int64_t tokens, int64_t limit, int64_t zone);

// Rewards of rollouts [items · samples], on all threads: checkers may be slow.
std::vector<Reward> score_rollouts(std::span<const TaskMixture::Item> items,
                                   std::span<const Rollout> rollouts, int64_t max_tokens,
                                   const RewardSettings& settings);

}  // namespace wels
