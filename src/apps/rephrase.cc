#include "apps/rephrase.h"

#include <algorithm>

namespace wels {

std::vector<std::string> rephrase(Engine& engine, Conversation& talk, const std::string& question,
                                  const Rephrasing& how) {
  require_rephrasable(*how.tokenizer);
  ThinkBudget none = think_budget(*how.tokenizer, no_thought(*how.tokenizer));
  std::vector<GenerateRequest> requests;
  int64_t room = answer_room(how.context, kRephraseTokens);
  for (int64_t i = 0; i < how.count; ++i) {
    talk.say("user", rephrase_request(question, i));
    Conversation::Prompt prompt = talk.prompt(false, how.context - room);
    talk.take_back();
    GenerateRequest r = how.like;
    r.max_new_tokens = room;
    r.sampling.seed += static_cast<uint64_t>(i);
    bool begun = ends_in_thought(prompt.tokens, none);
    r.prompt = std::move(prompt.tokens);
    bound_thought(r, none, begun, how.vocab_size);
    requests.push_back(std::move(r));
  }
  std::vector<std::string> out;
  for (const GenerateResult& r : engine.run(std::move(requests))) {
    std::string version = rephrased_question(how.tokenizer->decode(r.tokens));
    if (!version.empty()) out.push_back(std::move(version));
  }
  return out;
}

}  // namespace wels
