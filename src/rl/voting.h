// One answer of several to the same question, without knowing which is right.
#pragma once
#include <cstddef>
#include <span>

#include "rl/rollout.h"

namespace wels {

// Self-consistency (Wang et al. 2022): the first with the final answer (tasks/answer.h) that most
// have, of equally many the one that came first. Answers that were cut or say nothing don't vote; 0
// where none does. At least one completion (CHECK).
size_t majority_answer(std::span<const Rollout> answers);

// The one whose tokens have the largest mean log-probability, as drawn; one that was cut only where
// all were. At least one completion (CHECK).
size_t likeliest_answer(std::span<const Rollout> answers);

}  // namespace wels
