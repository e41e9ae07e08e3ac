// A question from several angles (rephrase and respond, Deng et al. 2311.04205): the model says it
// in other words itself, then answers every version, or one prompt that has them all. More tokens
// at test time for the same question, as a thought is.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rl/evaluation.h"
#include "rl/rollout.h"

namespace wels {

// Ways of looking at a question, each with an instruction of its own; beyond them they come again.
inline constexpr int64_t kMostAngles = 8;
// Tokens of a rephrasing at most.
inline constexpr int64_t kRephraseTokens = 96;

// Throws Error("--rephrase", ...) where the vocabulary lacks a byte of what the model would be
// asked, as those that were learned from a task's questions do.
void require_rephrasable(const Tokenizer& tokenizer);

// What the model is asked for version i (from 0) of the question.
std::string rephrase_request(std::string_view question, int64_t i);
// The question of what it wrote: one line without a thought, marks and quotes; empty: it wrote
// nothing.
std::string rephrased_question(std::string_view completion);
// The question followed by its versions, to be answered once. Empty ones are left out.
std::string joint_question(std::string_view question, const std::vector<std::string>& versions);

// Greedy answers with `count` rephrasings of each question.
struct RephraseEvaluation {
  int64_t items = 0, count = 0;
  // The majority of the answers to the question and to its versions; the answer to all in one.
  double vote = 0, joint = 0;                // accuracy
  double vote_tokens = 0, joint_tokens = 0;  // a question's mean, its rephrasings included
  std::string example;                       // the first question's versions, for people
};
// rephraser: the same model asked without a thought, with room for kRephraseTokens. count: 1 to
// kMostAngles. Throws Error as RolloutSampler does.
RephraseEvaluation evaluate_rephrased(RolloutSampler& sampler, RolloutSampler& rephraser,
                                      const TaskMixture& tasks, const EvaluationSettings& settings,
                                      int64_t count);

}  // namespace wels
