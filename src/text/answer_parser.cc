#include "text/answer_parser.h"

#include <algorithm>

#include "text/markers.h"

namespace wels {
namespace {

constexpr std::string_view kSpace = " \t\r\n", kBreaks = "\r\n", kFence = "```";

std::string trimmed(std::string_view text) {
  size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kSpace) - first + 1));
}

size_t size_without(std::string_view text, std::string_view chars) {
  return text.find_last_not_of(chars) + 1;  // npos + 1 = 0
}

// The arguments' length when `text` is all of them: without space and the closing fence.
size_t arguments_size(std::string_view text) {
  text = text.substr(0, size_without(text, kSpace));
  if (text.ends_with(kFence))
    text = text.substr(0, size_without(text.substr(0, text.size() - 3), kSpace));
  return text.size();
}

}  // namespace

std::span<const std::string_view> AnswerParser::markers() {
  static constexpr std::string_view kAll[] = {kThinkBegin, kThinkEnd, kCallsBegin, kCallsEnd,
                                              kCallBegin,  kCallEnd,  kToolSep};
  return kAll;
}

size_t partial_end(std::string_view text, std::string_view marker) {
  size_t n = std::min(text.size(), marker.size() - 1);
  while (n > 0 && !marker.starts_with(text.substr(text.size() - n))) --n;
  return n;
}

void AnswerParser::push(std::string_view text, Out& out) {
  held_ += text;
  while (step(out)) {
  }
}

bool AnswerParser::step(Out& out) {
  switch (state_) {
    case State::kBegin:
      return begin();
    case State::kReasoning:
      return reasoning(out);
    case State::kContent:
      return content(out);
    case State::kCalls:
      return between_calls();
    case State::kHeader:
      return header();
    case State::kSep:
      return after_sep(out);
    case State::kName:
      return name(out);
    case State::kFence:
      return fence();
    case State::kArguments:
      return arguments(out);
    case State::kEnd:
      held_.clear();
  }
  return false;
}

// The first n bytes held, joined to the last piece of the same kind.
void AnswerParser::give(Out& out, AnswerPiece::Kind kind, size_t n) {
  if (n == 0) return;
  bool joins = !out.empty() && out.back().kind == kind;
  if (!joins) out.push_back({kind, ""});
  out.back().text.append(held_, 0, n);
  drop(n);
}

bool AnswerParser::begin() {
  size_t at = std::min(held_.find_first_not_of(kSpace), held_.size());
  std::string_view word = std::string_view(held_).substr(at, kThinkBegin.size());
  if (word.size() < kThinkBegin.size() && kThinkBegin.starts_with(word))
    return false;  // may become the tag
  bool tag = word == kThinkBegin;
  if (tag) drop(at + kThinkBegin.size());
  state_ = tag ? State::kReasoning : State::kContent;
  said_ = !tag;  // an answer without reasoning is left as it is
  return true;
}

bool AnswerParser::reasoning(Out& out) {
  if (!said_) drop(std::min(held_.find_first_not_of(kBreaks), held_.size()));
  size_t end = held_.find(kThinkEnd);
  bool closed = end != std::string::npos;
  std::string_view safe(held_);
  safe = safe.substr(0, closed ? end : held_.size() - partial_end(held_, kThinkEnd));
  size_t n = size_without(safe, kBreaks), rest = safe.size() - n;  // line breaks wait
  said_ = said_ || n > 0;
  give(out, AnswerPiece::kReasoning, n);
  if (!closed) return false;
  drop(rest + kThinkEnd.size());
  state_ = State::kContent;
  said_ = false;
  return true;
}

bool AnswerParser::content(Out& out) {
  if (!said_) drop(std::min(held_.find_first_not_of(kBreaks), held_.size()));
  if (held_.empty()) return false;
  if (!tools_) {
    said_ = true;
    give(out, AnswerPiece::kContent, held_.size());
    return false;
  }
  size_t calls = held_.find(kCallsBegin), call = held_.find(kCallBegin), at = std::min(calls, call);
  bool found = at != std::string::npos;
  std::string_view all(held_);
  size_t keep = std::max(partial_end(all, kCallsBegin), partial_end(all, kCallBegin));
  std::string_view safe = all.substr(0, found ? at : all.size() - keep);
  size_t n = size_without(safe, kBreaks), rest = safe.size() - n;  // before calls they are dropped
  said_ = said_ || n > 0;
  give(out, AnswerPiece::kContent, n);
  if (!found) return false;
  drop(rest + (calls == at ? kCallsBegin.size() : 0));
  state_ = State::kCalls;
  return true;
}

bool AnswerParser::between_calls() {
  size_t begin = held_.find(kCallBegin), end = held_.find(kCallsEnd);
  if (begin == std::string::npos && end == std::string::npos) return false;
  bool another = begin < end;
  drop(another ? begin + kCallBegin.size() : held_.size());
  state_ = another ? State::kHeader : State::kEnd;
  return true;
}

bool AnswerParser::header() {
  size_t at = held_.find(kToolSep);
  if (at == std::string::npos) return false;
  head_ = trimmed(std::string_view(held_).substr(0, at));
  drop(at + kToolSep.size());
  state_ = State::kSep;
  return true;
}

// Arguments follow (V3.1), or the name (V3): those begin with a brace, names don't.
bool AnswerParser::after_sep(Out& out) {
  drop(std::min(held_.find_first_not_of(kSpace), held_.size()));
  if (held_.size() < kCallEnd.size() && kCallEnd.starts_with(held_)) return false;
  if (held_[0] == '{' || held_[0] == '`' || held_.starts_with(kCallEnd) || head_ != "function") {
    out.push_back({AnswerPiece::kToolName, head_});
    ++calls_;
    state_ = State::kFence;
  } else {
    state_ = State::kName;
  }
  return true;
}

bool AnswerParser::name(Out& out) {
  size_t end = held_.find('\n'), call_end = held_.find(kCallEnd);
  if (std::min(end, call_end) == std::string::npos) return false;
  size_t n = std::min(end, call_end);
  out.push_back({AnswerPiece::kToolName, trimmed(std::string_view(held_).substr(0, n))});
  ++calls_;
  drop(n);
  state_ = State::kFence;
  return true;
}

// "```json\n" or nothing.
bool AnswerParser::fence() {
  drop(std::min(held_.find_first_not_of(kSpace), held_.size()));
  std::string_view text(held_);
  if (text.size() < kFence.size() && kFence.starts_with(text)) return false;
  if (text.starts_with(kFence)) {
    size_t end = text.find_first_of("\n{"), call_end = text.find(kCallEnd);
    if (std::min(end, call_end) == std::string::npos) return false;
    drop(std::min(end, call_end));
  }
  state_ = State::kArguments;
  said_ = false;
  return true;
}

bool AnswerParser::arguments(Out& out) {
  if (!said_) drop(std::min(held_.find_first_not_of(kSpace), held_.size()));
  size_t end = held_.find(kCallEnd);
  bool closed = end != std::string::npos;
  std::string_view text(held_);
  size_t n = 0, rest = 0;
  if (closed) {
    n = arguments_size(text.substr(0, end));
    rest = end - n;
  } else {
    text = text.substr(0, text.size() - partial_end(text, kCallEnd));
    n = size_without(text, kSpace);
    for (int ticks = 0; ticks < 3 && n > 0 && text[n - 1] == '`'; ++ticks) --n;
    n = size_without(text.substr(0, n), kSpace);
  }
  said_ = said_ || n > 0;
  give(out, AnswerPiece::kToolArguments, n);
  if (!closed) return false;
  drop(rest + kCallEnd.size());
  state_ = State::kCalls;
  return true;
}

void AnswerParser::finish(Out& out) {
  if (state_ == State::kReasoning) {
    give(out, AnswerPiece::kReasoning, size_without(held_, kBreaks));
  } else if (state_ == State::kBegin || state_ == State::kContent) {
    give(out, AnswerPiece::kContent, held_.size());
  } else if (state_ == State::kArguments) {
    give(out, AnswerPiece::kToolArguments, arguments_size(held_));
  }
  held_.clear();
  state_ = State::kEnd;
}

}  // namespace wels
