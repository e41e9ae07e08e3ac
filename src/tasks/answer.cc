#include "tasks/answer.h"

#include <array>

#include "base/error.h"
#include "tasks/plain.h"
#include "text/unicode.h"

namespace wels {
namespace {

int count_of(std::string_view text, std::string_view what) {
  int n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string_view::npos; at += what.size()) ++n;
  return n;
}

// Scripts, as far as consistency of language goes.
enum class Script { kNone, kLatin, kHan, kOther };

Script script_of(uint32_t c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0x24F))
    return Script::kLatin;
  if ((c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || c == 0x3007 ||
      (c >= 0x20000 && c <= 0x323AF))
    return Script::kHan;
  if (c == kBadByte) return Script::kNone;
  return char_classes()[c] & kLetter ? Script::kOther : Script::kNone;
}

}  // namespace

Completion parse_completion(std::string_view text, bool begun) {
  Completion c;
  int begins = count_of(text, kThinkBegin), ends = count_of(text, kThinkEnd);
  std::string_view rest = trimmed(text);
  bool opened = begun;
  if (rest.starts_with(kThinkBegin)) {
    rest.remove_prefix(kThinkBegin.size());
    opened = true;
  }
  size_t end = rest.rfind(kThinkEnd);
  if (end != std::string_view::npos) {
    c.thought = trimmed(rest.substr(0, end));
    c.answer = trimmed(rest.substr(end + kThinkEnd.size()));
  } else if (opened) {
    c.thought = trimmed(rest);
  } else {
    c.answer = rest;
  }
  c.well_formed = opened && begins == (begun ? 0 : 1) && ends == 1 && !c.answer.empty();
  return c;
}

std::string final_answer(std::string_view answer) {
  return std::string(unwrapped(marked_answer(answer)));
}

std::optional<double> language_consistency(std::string_view text, std::string_view language) {
  if (language != "en" && language != "zh") {
    throw Error("language", "\"" + std::string(language) + "\" is not known here", "use en or zh");
  }
  Script target = language == "en" ? Script::kLatin : Script::kHan;
  int64_t words = 0, right = 0;
  auto count = [&](Script script) {
    ++words;
    right += script == target;
  };
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* end = p + text.size();
  uint32_t before = 0;
  while (p < end) {
    Char c = read_char(p, end);
    Script script = script_of(c.code);
    if (script == Script::kNone || script == Script::kHan) {
      if (script == Script::kHan) count(script);
      before = c.code;
      p += c.size;
      continue;
    }
    // A run of letters of one script is one word. Single letters are variables, and words behind a
    // backslash are LaTeX's.
    int letters = 0;
    for (; p < end && script_of(read_char(p, end).code) == script; p += read_char(p, end).size)
      ++letters;
    if (before != '\\' && (letters > 1 || script == Script::kOther)) count(script);
    before = 'a';
  }
  if (words == 0) return std::nullopt;
  return static_cast<double>(right) / static_cast<double>(words);
}

int reflective_words(std::string_view text) {
  static constexpr std::array<std::string_view, 19> kEnglish = {
      "wait",  "check",   "checking", "recheck",  "mistake",  "however", "but",
      "retry", "error",   "verify",   "verified", "wrong",    "again",   "rethink",
      "back",  "evaluate", "re-check", "actually", "hmm"};
  static constexpr std::array<std::string_view, 14> kChinese = {
      "检查", "等等", "验证", "错误", "不对", "但是", "然而",
      "重新", "再",   "核对", "验算", "检验", "反思", "其实"};
  std::string lower = lower_ascii(text);
  int n = 0;
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; };
  for (size_t i = 0; i < lower.size();) {
    if (letter(lower[i])) {
      size_t begin = i;
      while (i < lower.size() && letter(lower[i])) ++i;
      std::string_view word(&lower[begin], i - begin);
      while (word.starts_with('-')) word.remove_prefix(1);
      while (word.ends_with('-')) word.remove_suffix(1);
      for (std::string_view w : kEnglish) n += word == w;
      continue;
    }
    size_t step = 1;
    for (std::string_view w : kChinese) {
      if (std::string_view(lower).substr(i, w.size()) == w) {
        ++n;
        step = w.size();
        break;
      }
    }
    i += step;
  }
  return n;
}

}  // namespace wels
