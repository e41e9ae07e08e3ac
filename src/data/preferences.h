// Pairs of answers to one prompt, the better one named, as tokens: what DPO learns from.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/examples.h"

namespace wels {

// Pair i: example i of each, the same prompt and another learned answer.
struct Preferences {
  StoredExamples chosen, rejected;
  int64_t size() const { return chosen.size(); }
  uint64_t hash() const;
};

struct PreferenceData {
  Preferences train, held_out;
  int64_t too_long = 0;  // left out: the prompt with one of its answers is longer than allowed
};

// Reads JSONL files (data/chat_record.h). options.cut is not looked at: an answer that is cut is
// another answer. Throws Error naming file and line for what cannot be used, and where nothing is
// left to train on.
PreferenceData read_preferences(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                                const ChatDataOptions& options);

}  // namespace wels
