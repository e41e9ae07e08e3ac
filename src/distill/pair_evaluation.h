// A small and a large model side by side on held-out questions and examples.
#pragma once
#include "distill/colearn.h"

namespace wels {

// The same bits for the same models and settings.
PairEvaluation evaluate_pair(Device& dev, Model& small, Model& large, const Tokenizer& tokenizer,
                             const TaskMixture& tasks, const ExampleSource& held_out,
                             const ColearnSettings& settings);

}  // namespace wels
