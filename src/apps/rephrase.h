// The question in the model's own other words, for chat and generate (rl/rephrase.h says what it is
// asked).
#pragma once
#include <string>
#include <vector>

#include "apps/conversation.h"
#include "engine/engine.h"
#include "rl/rephrase.h"

namespace wels {

struct Rephrasing {
  int64_t count = 0;           // 1 to kMostAngles
  int64_t context = 0;         // tokens of prompt and version at most
  GenerateRequest like;        // sampling, stop tokens, what cancels; prompt and lengths are set
  const Tokenizer* tokenizer;  // of the model
  int64_t vocab_size = 0;      // of the model
};

// Versions of a question that comes next in the conversation, which stays as it is; fewer than
// asked for where the model wrote nothing. Version i is drawn with the seed plus i. Throws what the
// engine refuses.
std::vector<std::string> rephrase(Engine& engine, Conversation& talk, const std::string& question,
                                  const Rephrasing& how);

}  // namespace wels
