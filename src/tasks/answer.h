// The parts of a completion: a thought between <think> and </think>, and the answer behind it, as
// R1 writes them. Completions of prompts that already end with <think> begin inside the thought.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "text/markers.h"

namespace wels {

struct Completion {
  std::string thought;  // without its markers
  std::string answer;   // behind the last </think>, trimmed; all of it where there is no thought
  // One thought, closed once, and an answer that is not empty: R1-Zero's format reward.
  bool well_formed = false;
};
// begun: the prompt ended with <think>.
Completion parse_completion(std::string_view text, bool begun);

// The final answer within an answer text: the last \boxed{...} (braces nested), else what follows
// the last "####", else the inside of the last <answer>...</answer>, else the whole; trimmed, and
// without marks around it (**B**, \text{Paris}).
std::string final_answer(std::string_view answer);

// Share of the words (CJK: characters) of a text that are in the target language ("en" or "zh");
// numbers and signs don't count, none where there is no word. R1's language-consistency reward (R1
// B.6).
std::optional<double> language_consistency(std::string_view text, std::string_view language);

// How often a text reflects: "wait", "check", "mistake", "however", "再", "检查", ... (R1, extended
// data fig. 1, counts such words), and "back", what a search writes at a dead end.
int reflective_words(std::string_view text);

}  // namespace wels
