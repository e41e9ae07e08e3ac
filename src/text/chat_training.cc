#include "text/chat_training.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>

#include "base/error.h"
#include "formats/json.h"
#include "text/markers.h"

namespace wels {
namespace {

bool same(const ChatPart& a, const ChatPart& b) { return a.kind == b.kind && a.text == b.text; }

bool is_marker(const ChatPart& p, std::string_view text) {
  return p.kind == ChatPart::kMarker && p.text == text;
}

size_t common_parts(std::span<const ChatPart> a, std::span<const ChatPart> b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() && same(a[n], b[n])) ++n;
  return n;
}

bool begins_with(std::span<const ChatPart> all, std::span<const ChatPart> part) {
  return common_parts(all, part) == part.size();
}

std::vector<int32_t> to_tokens(std::span<const ChatPart> parts, const Tokenizer& tokenizer) {
  return chat_to_tokens(ChatText(parts.begin(), parts.end()), tokenizer);
}

size_t last_assistant(const std::vector<ChatMessage>& messages) {
  size_t i = messages.size();
  while (i > 0 && messages[i - 1].role != "assistant") --i;
  if (i == 0)
    throw Error("messages", "no message is the assistant's: there is nothing to learn",
                "end the conversation with an assistant message");
  return i - 1;
}

struct Said {
  std::optional<std::string> thought;
  ChatMessage answer;  // without it
};

Said take_thought(const ChatMessage& m) {
  Said out{std::nullopt, m};
  out.answer.prefix = false;
  size_t at = m.content ? m.content->find(kThinkEnd) : std::string::npos;
  if (at == std::string::npos) return out;
  std::string_view before = std::string_view(*m.content).substr(0, at);
  if (before.starts_with(kThinkBegin)) before.remove_prefix(kThinkBegin.size());
  out.thought = std::string(before);
  out.answer.content = m.content->substr(at + kThinkEnd.size());
  return out;
}

// The parts of a turn itself: what the template adds for it, without the marks that a prompt ends
// with.
ChatText turn_body(ChatTemplate t, const std::vector<ChatMessage>& before, const ChatMessage& m) {
  ChatOptions o;
  o.add_generation_prompt = false;
  std::vector<ChatMessage> messages = before;
  ChatText base = render_chat(t, messages, o);
  messages.push_back(m);
  ChatText all = render_chat(t, messages, o);
  size_t at = common_parts(base, all);
  auto of_prompt = [t](const ChatPart& p) {
    return is_marker(p, kAssistantMark) || is_marker(p, kThinkBegin) || is_marker(p, kThinkEnd) ||
           (t == ChatTemplate::kDeepSeekV2 && p.text == kAssistantName);
  };
  while (at < all.size() && of_prompt(all[at])) ++at;
  ChatText body(all.begin() + static_cast<std::ptrdiff_t>(at), all.end());
  // The first templates of V3 and R1 leave a list of one call open.
  auto has = [&](std::string_view mark) {
    return std::any_of(body.begin(), body.end(), [&](auto& p) { return is_marker(p, mark); });
  };
  if (has(kCallsBegin) && !has(kCallsEnd))
    body.push_back({ChatPart::kMarker, std::string(kCallsEnd)});
  if (body.empty() || !is_marker(body.back(), kEosMark))
    body.push_back({ChatPart::kMarker, std::string(kEosMark)});
  return body;
}

struct Turn {
  ChatText prompt, answer;
};

// Boundaries between what is learned and what is not must be boundaries of tokens: the vocabulary
// must have the markers.
Turn last_turn(ChatTemplate t, const std::vector<ChatMessage>& messages, size_t last,
               const Tokenizer& tokenizer) {
  std::vector<ChatMessage> before(messages.begin(),
                                  messages.begin() + static_cast<std::ptrdiff_t>(last));
  Said said = take_thought(messages[last]);
  ChatOptions o;
  o.thinking = said.thought.has_value();
  Turn turn;
  turn.prompt = render_chat(t, before, o);
  std::string begun = begun_answer(turn.prompt), lead;
  if (said.thought) {
    std::string thought = *said.thought;
    if (begun.empty()) lead = kThinkBegin;
    if (begun.ends_with('\n') && thought.starts_with('\n')) thought.erase(0, 1);
    lead += thought + std::string(kThinkEnd);
  } else if (!begun.empty()) {
    lead = fmt::format("\n{}\n\n", kThinkEnd);
  }
  if (!lead.empty()) turn.answer.push_back({ChatPart::kOwn, lead});
  ChatText body = turn_body(t, before, said.answer);
  turn.answer.insert(turn.answer.end(), body.begin(), body.end());
  require_markers(turn.prompt, tokenizer, "tokenizer");
  require_markers(turn.answer, tokenizer, "tokenizer");
  return turn;
}

struct Range {
  size_t begin, end;  // parts of the prompt
};

// The earlier assistant turns in the last one's prompt that stand behind what asks for them, to
// their end of sentence.
std::vector<Range> learned_history(ChatTemplate t, const std::vector<ChatMessage>& messages,
                                   size_t last, const ChatText& prompt) {
  std::vector<Range> out;
  std::vector<ChatMessage> before;
  for (size_t i = 0; i < last; before.push_back(messages[i++])) {
    if (messages[i].role != "assistant") continue;
    ChatOptions o;
    ChatText asked = render_chat(t, before, o);
    if (!begins_with(prompt, asked)) continue;
    before.push_back(messages[i]);
    o.add_generation_prompt = false;
    ChatText answered = render_chat(t, before, o);
    before.pop_back();
    if (begins_with(prompt, answered) && begins_with(answered, asked) &&
        answered.size() > asked.size() && is_marker(answered.back(), kEosMark)) {
      out.push_back({asked.size(), answered.size()});
    }
  }
  return out;
}

int32_t end_of_sentence(const Tokenizer& tokenizer) {
  if (!tokenizer.eos())
    throw Error("tokenizer", "has no end-of-sentence token to learn",
                "use a tokenizer that names its eos_token");
  return *tokenizer.eos();
}

PromptAndAnswer plain_turn(const std::vector<ChatMessage>& messages, size_t last,
                           const Tokenizer& tokenizer) {
  std::vector<ChatMessage> before(messages.begin(),
                                  messages.begin() + static_cast<std::ptrdiff_t>(last));
  PromptAndAnswer out;
  out.prompt = chat_to_tokens(render_plain_text(before), tokenizer);
  if (tokenizer.document_begin())
    out.prompt.insert(out.prompt.begin(), *tokenizer.document_begin());
  out.answer = chat_to_tokens(render_plain_text({messages[last]}), tokenizer);
  out.answer.push_back(end_of_sentence(tokenizer));
  return out;
}

}  // namespace

int64_t TrainingTokens::learned_count() const {
  return std::accumulate(learned.begin(), learned.end(), int64_t{0});
}

void TrainingTokens::append(const std::vector<int32_t>& more, bool learn) {
  ids.insert(ids.end(), more.begin(), more.end());
  learned.resize(ids.size(), learn ? 1 : 0);
}

TrainingTokens training_tokens(std::optional<ChatTemplate> chat_template,
                               const std::vector<ChatMessage>& messages,
                               const Tokenizer& tokenizer) {
  size_t last = last_assistant(messages);
  TrainingTokens out;
  if (!chat_template) {
    PromptAndAnswer turn = plain_turn(messages, last, tokenizer);
    out.append(turn.prompt, false);
    out.append(turn.answer, true);
    return out;
  }
  Turn turn = last_turn(*chat_template, messages, last, tokenizer);
  // Every cut lies beside a marker, so the pieces' tokens are the whole's.
  std::span<const ChatPart> prompt = turn.prompt;
  size_t at = 0;
  for (const Range& r : learned_history(*chat_template, messages, last, turn.prompt)) {
    out.append(to_tokens(prompt.subspan(at, r.begin - at), tokenizer), false);
    out.append(to_tokens(prompt.subspan(r.begin, r.end - r.begin), tokenizer), true);
    at = r.end;
  }
  out.append(to_tokens(prompt.subspan(at), tokenizer), false);
  out.append(to_tokens(turn.answer, tokenizer), true);
  return out;
}

TrainingTokens training_tokens(std::string_view text, const Tokenizer& tokenizer, bool ends) {
  TrainingTokens out;
  if (tokenizer.document_begin()) out.append({*tokenizer.document_begin()}, false);
  out.append(tokenizer.encode(text, AddedTokens::kAsText), true);
  if (ends) out.append({end_of_sentence(tokenizer)}, true);
  return out;
}

PromptAndAnswer prompt_and_answer(std::optional<ChatTemplate> chat_template,
                                  const std::vector<ChatMessage>& messages,
                                  const Tokenizer& tokenizer) {
  size_t last = last_assistant(messages);
  if (!chat_template) return plain_turn(messages, last, tokenizer);
  Turn turn = last_turn(*chat_template, messages, last, tokenizer);
  return {to_tokens(turn.prompt, tokenizer), to_tokens(turn.answer, tokenizer)};
}

std::string describe_tools(std::string_view tools, const std::string& where) {
  auto list = parse_ordered_json(tools, where);
  if (!list.is_array()) throw Error(where, "\"tools\" is not a list", "[{\"type\", \"function\"}]");
  std::string out = "## Tools\nYou have access to the following tools:\n";
  for (const auto& item : list) {
    const auto& f = item.is_object() && item.contains("function") ? item["function"] : item;
    if (!f.is_object() || !f.contains("name") || !f["name"].is_string())
      throw Error(where, "a tool without a name", "give function.name");
    out += "\n### " + f["name"].get<std::string>() + "\n";
    if (f.contains("description") && f["description"].is_string())
      out += "Description: " + f["description"].get<std::string>() + "\n";
    if (f.contains("parameters")) out += "\nParameters: " + f["parameters"].dump() + "\n";
  }
  return out;
}

}  // namespace wels
