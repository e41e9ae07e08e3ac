#include "data/preferences.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/threads.h"
#include "data/hash.h"
#include "data/json_lines.h"

namespace wels {
namespace {

struct Encoded {
  TrainingTokens chosen, rejected;
  uint64_t question_hash = 0;
};

TrainingTokens last_answer(const PreferenceRecord& r, const ChatMessage& answer,
                           const Tokenizer& tokenizer, const ChatDataOptions& o) {
  std::vector<ChatMessage> messages = r.prompt;
  messages.push_back(answer);
  PromptAndAnswer turn = prompt_and_answer(o.chat_template, messages, tokenizer);
  TrainingTokens out;
  out.append(turn.prompt, false);
  out.append(turn.answer, true);
  return out;
}

Encoded encode(std::string_view line, const std::string& where, const Tokenizer& tokenizer,
               const ChatDataOptions& o) {
  PreferenceRecord r = parse_preference_record(line, where);
  try {
    return {last_answer(r, r.chosen, tokenizer, o), last_answer(r, r.rejected, tokenizer, o),
            r.question_hash};
  } catch (const Error& e) {
    if (e.where() == "tokenizer") throw;
    throw Error(where + ": " + e.where(), e.fact(), e.hint());
  }
}

}  // namespace

uint64_t Preferences::hash() const { return hash_mix(chosen.hash(), rejected.hash()); }

PreferenceData read_preferences(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                                const ChatDataOptions& options) {
  std::vector<std::pair<std::string, std::string>> lines;
  read_json_lines(files, [&](std::string_view text, const std::string& where) {
    lines.emplace_back(text, where);
    return true;
  });
  std::vector<Encoded> encoded(lines.size());
  parallel_tasks(static_cast<int64_t>(lines.size()), [&](int64_t i) {
    const auto& [text, where] = lines[static_cast<size_t>(i)];
    encoded[static_cast<size_t>(i)] = encode(text, where, tokenizer, options);
  });
  PreferenceData data;
  for (const Encoded& e : encoded) {
    if (std::max(e.chosen.size(), e.rejected.size()) > options.longest) {
      ++data.too_long;
      continue;
    }
    bool held = in_held_out_share(e.question_hash, options.held_out);
    Preferences& part = held ? data.held_out : data.train;
    part.chosen.add(e.chosen);
    part.rejected.add(e.rejected);
  }
  if (data.train.size() == 0) {
    throw Error(files.front(),
                fmt::format("leaves no pair to train on; {} are longer than {} tokens",
                            data.too_long, options.longest),
                "give more pairs, or a larger --seq");
  }
  return data;
}

}  // namespace wels
