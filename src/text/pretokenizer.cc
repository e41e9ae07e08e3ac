#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "text/unicode.h"

namespace wels {
namespace {

using Piece = PreTokenizer::Piece;

struct CodeDelete {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
};
struct MatchDelete {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct CompileContextDelete {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};
using Code = std::unique_ptr<pcre2_code, CodeDelete>;
using MatchData = std::unique_ptr<pcre2_match_data, MatchDelete>;

std::string range_text(const std::vector<CharRange>& ranges, bool complement) {
  std::string out;
  uint32_t next = 0;
  auto add = [&](uint32_t first, uint32_t last) {
    if (first > last) return;
    // The surrogates are no characters, and PCRE2 refuses them.
    if (first < 0xD800 && last > 0xDFFF) {
      out += fmt::format("\\x{{{:X}}}-\\x{{D7FF}}\\x{{E000}}-\\x{{{:X}}}", first, last);
    } else {
      out += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", first, last);
    }
  };
  for (const CharRange& r : ranges) {
    if (complement) {
      if (r.first > next) add(next, r.first - 1);
      next = r.last + 1;
    } else {
      add(r.first, r.last);
    }
  }
  if (complement) add(next, 0x10FFFF);
  return out;
}

// Oniguruma's \w: \p{Alphabetic} \p{M} \p{Nd} \p{Pc}, and outside brackets the numbers ² ³ ¹ ¼ ½ ¾.
std::vector<CharRange> word_ranges(bool in_brackets) {
  static constexpr CharRange kCircledLetters[] = {
      {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
  auto in_word = [&](uint32_t c) {
    uint8_t flags = char_classes()[c];
    if (flags & (kLetter | kMark)) return true;
    int category = utf8proc_category(static_cast<int32_t>(c));
    if (flags & kNumber) {  // not yet in utf8proc: digits of Unicode 16
      if (category == UTF8PROC_CATEGORY_NO) return !in_brackets && c < 0x100;
      return true;
    }
    return category == UTF8PROC_CATEGORY_PC ||
           std::any_of(std::begin(kCircledLetters), std::end(kCircledLetters),
                       [c](CharRange r) { return r.first <= c && c <= r.last; });
  };
  std::vector<CharRange> out;
  for (uint32_t c = 0; c < kBadByte; ++c) {
    if (!in_word(c)) continue;
    if (out.empty() || out.back().last + 1 != c) out.push_back({c, c});
    out.back().last = c;
  }
  return out;
}

// The class that an escape at regex[i] (a backslash) names, if it is one of ours; size: the bytes
// it takes.
struct ClassEscape {
  enum Kind { kNone, kFlag, kWord } kind = kNone;
  uint8_t one = 0;  // of kFlag
  bool complement = false;
  size_t size = 0;
  std::vector<CharRange> ranges(bool in_brackets) const {
    return kind == kWord ? word_ranges(in_brackets) : char_ranges(static_cast<CharClass>(one));
  }
};
ClassEscape class_escape(std::string_view r, size_t i) {
  char kind = i + 1 < r.size() ? r[i + 1] : 0;
  if (kind == 's' || kind == 'S') return {ClassEscape::kFlag, kSpace, kind == 'S', 2};
  if (kind == 'w' || kind == 'W') return {ClassEscape::kWord, 0, kind == 'W', 2};
  if (kind != 'p' && kind != 'P') return {};
  bool complement = kind == 'P';
  size_t name = i + 2, size = 3;
  if (name < r.size() && r[name] == '{') {
    ++name;
    if (name < r.size() && r[name] == '^') {
      complement = !complement;
      ++name;
    }
    if (name + 1 >= r.size() || r[name + 1] != '}') return {};
    size = name + 2 - i;
  }
  switch (name < r.size() ? r[name] : 0) {
    case 'L':
      return {ClassEscape::kFlag, kLetter, complement, size};
    case 'N':
      return {ClassEscape::kFlag, kNumber, complement, size};
    case 'M':
      return {ClassEscape::kFlag, kMark, complement, size};
    case 'P':
      return {ClassEscape::kFlag, kPunct, complement, size};
    case 'S':
      return {ClassEscape::kFlag, kSymbol, complement, size};
    default:
      return {};
  }
}

// What means something else to PCRE2 than to the reference (Oniguruma, Ruby's syntax).
void refuse_other_meaning(std::string_view r, size_t i, bool in_class, const std::string& where) {
  auto refuse = [&](const std::string& what, const char* hint) {
    throw Error(where, "pre_tokenizer regular expression " + what, hint);
  };
  char next = i + 1 < r.size() ? r[i + 1] : '\0';
  if (r[i] == '\\' && (next == 'h' || next == 'H')) refuse("uses \\h", "write [0-9A-Fa-f] instead");
  if (in_class) {
    if (r[i] == '[' || (r[i] == '&' && next == '&'))
      refuse("has a class inside a class", "write the set out without nesting");
    return;
  }
  if (r[i] == '\\' && (next == 'b' || next == 'B'))
    refuse(fmt::format("uses \\{}", next), "write the boundary with (?<!...) and (?!...) instead");
  if (r[i] != '(' || next != '?') return;
  size_t end = r.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-", i + 2);
  if (end == std::string_view::npos || (r[end] != ':' && r[end] != ')')) return;
  std::string_view options = r.substr(i + 2, end - i - 2);
  if (options.find_first_not_of("ix-") != std::string_view::npos)
    refuse(fmt::format("sets the option {}", options), "only i and x mean the same here");
}

Code compile(const std::string& pattern, const std::string& where) {
  std::string expanded = expand_classes(pattern, where);
  std::unique_ptr<pcre2_compile_context, CompileContextDelete> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_max_pattern_length(context.get(), 1 << 18);
  pcre2_set_parens_nest_limit(context.get(), 50);
  int error = 0;
  PCRE2_SIZE at = 0;
  // MULTILINE: in the reference's (Ruby's) syntax $ always matches before a newline too.
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                          &at, context.get()));
  if (!code) {
    PCRE2_UCHAR text[200] = {};
    pcre2_get_error_message(error, text, sizeof text);
    throw Error(where,
                fmt::format("pre_tokenizer regular expression of {} bytes does not compile: {}",
                            pattern.size(), reinterpret_cast<char*>(text)),
                "the file may be damaged");
  }
  pcre2_jit_compile(code.get(),
                    PCRE2_JIT_COMPLETE);  // without JIT the interpreter gives the same matches
  return code;
}

// Well-formed text for PCRE2: every ill-formed byte becomes U+FFFE (no character, in no class).
// `shift` maps back.
struct Cleaned {
  std::string text;
  std::vector<size_t> replaced;  // offsets in the cleaned text at which a byte became three
  size_t original(size_t offset) const {
    auto n = std::lower_bound(replaced.begin(), replaced.end(), offset) - replaced.begin();
    return offset - 2 * static_cast<size_t>(n);
  }
};
Cleaned clean(std::string_view text) {
  Cleaned out;
  out.text.reserve(text.size());
  auto* p = reinterpret_cast<const uint8_t*>(text.data());
  for (auto* end = p + text.size(); p < end;) {
    Char c = read_char(p, end);
    if (c.code == kBadByte) {
      out.replaced.push_back(out.text.size());
      out.text += "\xEF\xBF\xBE";
    } else {
      out.text.append(reinterpret_cast<const char*>(p), c.size);
    }
    p += c.size;
  }
  return out;
}

struct Span {
  size_t begin, end;
  bool match;
};

void find_regex(const pcre2_code* code, std::string_view text, const std::string& where,
                std::vector<Span>& out) {
  thread_local MatchData data(pcre2_match_data_create(1, nullptr));
  size_t at = 0, done = 0;
  auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  while (at <= text.size()) {
    int rc = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data.get(), nullptr);
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      throw Error(
          where,
          fmt::format("pre_tokenizer regular expression gives up on a text of {} bytes (PCRE2 {})",
                      text.size(), rc),
          "the expression backtracks without bound; use the model's own tokenizer.json");
    }
    const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
    if (found[0] > found[1]) break;  // \K in a look-ahead
    if (found[0] == found[1]) {  // an empty match cuts nothing here: go on at the next character
      at = found[1] + 1;
      while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;
      continue;
    }
    if (found[0] > done) out.push_back({done, found[0], false});
    out.push_back({found[0], found[1], true});
    at = done = found[1];
  }
  if (done < text.size()) out.push_back({done, text.size(), false});
}

void find_literal(const std::string& literal, std::string_view text, std::vector<Span>& out) {
  size_t done = 0;
  for (size_t at; (at = text.find(literal, done)) != std::string_view::npos;
       done = at + literal.size()) {
    if (at > done) out.push_back({done, at, false});
    out.push_back({at, at + literal.size(), true});
  }
  if (done < text.size()) out.push_back({done, text.size(), false});
}

void find_digits(bool individual, std::string_view text, std::vector<Span>& out) {
  auto* base = reinterpret_cast<const uint8_t*>(text.data());
  auto* end = base + text.size();
  for (auto* p = base; p < end;) {
    Char c = read_char(p, end);
    bool digit = char_classes()[c.code] & kNumber;
    size_t at = static_cast<size_t>(p - base);
    bool join =
        !out.empty() && out.back().end == at && out.back().match == digit && !(digit && individual);
    if (join) {
      out.back().end += c.size;
    } else {
      out.push_back({at, at + c.size, digit});
    }
    p += c.size;
  }
}

void apply_behavior(const PreTokenizerStep& step, std::vector<Span>& spans, size_t offset,
                    std::vector<Piece>& out) {
  using Step = PreTokenizerStep;
  bool previous_match = false, open = false, join_next = false;
  for (Span& s : spans) {
    bool match = s.match != step.invert;
    Piece piece{s.begin + offset, s.end + offset};
    bool join = false;
    switch (step.behavior) {
      case Step::kIsolated:
        break;
      case Step::kRemoved:
        if (match) continue;
        break;
      case Step::kContiguous:
        join = open && match == previous_match;
        break;
      case Step::kMergedWithPrevious:
        join = open && match && !previous_match;
        break;
      case Step::kMergedWithNext:
        join = join_next;
        join_next = match;
        break;
    }
    // A match waiting for what comes next takes a following match only as a new piece.
    if (step.behavior == Step::kMergedWithNext && match) join = false;
    if (join) {
      out.back().end = piece.end;
    } else {
      out.push_back(piece);
    }
    open = true;
    previous_match = match;
  }
}

Scanner recognise(const std::vector<PreTokenizerStep>& steps) {
  if (steps == deepseek_v3_steps()) return Scanner::kDeepSeekV3;
  if (steps == deepseek_llm_steps()) return Scanner::kDeepSeekLlm;
  if (steps == qwen2_steps()) return Scanner::kQwen2;
  if (steps == llama3_steps()) return Scanner::kLlama3;
  if (steps == gpt2_steps()) return Scanner::kGpt2;
  if (steps == character_steps()) return Scanner::kCharacters;
  return Scanner::kGeneral;
}

}  // namespace

std::string expand_classes(std::string_view r, const std::string& where) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < r.size();) {
    refuse_other_meaning(r, i, in_class, where);
    if (r[i] == '\\' && i + 1 < r.size()) {
      ClassEscape escape = class_escape(r, i);
      if (escape.kind == ClassEscape::kNone) {
        out += r[i + 1] == 'v' ? "\\x0B" : r.substr(i, 2);
        i += 2;
        continue;
      }
      std::vector<CharRange> ranges = escape.ranges(in_class);
      if (in_class) {
        out += range_text(ranges, escape.complement);
      } else {
        out += (escape.complement ? "[^" : "[") + range_text(ranges, false) + "]";
      }
      i += escape.size;
      continue;
    }
    if (r[i] == '[' && !in_class) {
      in_class = true;
      out += r[i++];
      if (i < r.size() && r[i] == '^') out += r[i++];
      if (i < r.size() && r[i] == ']') out += r[i++];
      continue;
    }
    if (r[i] == ']') in_class = false;
    out += r[i++];
  }
  return out;
}

struct PreTokenizer::Compiled {
  std::once_flag once;
  std::vector<Code> codes;  // one per step, null where the step is no regular expression
};

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& where)
    : steps_(std::move(steps)),
      where_(where),
      scanner_(recognise(steps_)),
      compiled_(std::make_shared<Compiled>()) {
  for (const PreTokenizerStep& step : steps_) {
    if (step.kind == PreTokenizerStep::kLiteral && step.pattern.empty()) {
      throw Error(where_, "pre_tokenizer splits at an empty string", "the file may be damaged");
    }
  }
  if (scanner_ == Scanner::kGeneral) compiled();
}

const PreTokenizer::Compiled& PreTokenizer::compiled() const {
  std::call_once(compiled_->once, [&] {
    std::vector<Code> codes;
    for (const PreTokenizerStep& step : steps_) {
      codes.push_back(step.kind == PreTokenizerStep::kRegex ? compile(step.pattern, where_)
                                                            : Code());
    }
    compiled_->codes = std::move(codes);
  });
  return *compiled_;
}

void PreTokenizer::split(std::string_view text, std::vector<Piece>& out) const {
  if (text.empty()) return;
  const Compiled& compiled = this->compiled();
  Cleaned cleaned = clean(text);
  std::vector<Piece> pieces{{0, cleaned.text.size()}}, next;
  std::vector<Span> spans;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const PreTokenizerStep& step = steps_[i];
    next.clear();
    for (const Piece& piece : pieces) {
      auto part = std::string_view(cleaned.text).substr(piece.begin, piece.end - piece.begin);
      spans.clear();
      switch (step.kind) {
        case PreTokenizerStep::kRegex:
          find_regex(compiled.codes[i].get(), part, where_, spans);
          break;
        case PreTokenizerStep::kLiteral:
          find_literal(step.pattern, part, spans);
          break;
        case PreTokenizerStep::kDigits:
          find_digits(step.individual_digits, part, spans);
          break;
      }
      apply_behavior(step, spans, piece.begin, next);
    }
    std::swap(pieces, next);
  }
  for (const Piece& piece : pieces) {
    out.push_back({cleaned.original(piece.begin), cleaned.original(piece.end)});
  }
}

}  // namespace wels
