// Fast pre-tokenisers: one left-to-right pass per model family, with the same pieces as the regular
// expressions. Idea: every alternative of these expressions is decided by the classes of at most
// two characters, so no backtracking is needed;
// "\s+(?!\S)" is "the whole run of white space, less its last character unless the text ends
// there". Each scanner calls emit(begin, end) for the pieces of [p, end) in order.
#pragma once
#include "text/pretokenizer.h"
#include "text/unicode.h"

namespace wels::scan {

constexpr bool is_alpha(uint8_t c) { return static_cast<uint8_t>((c | 32) - 'a') < 26; }

// The flags and size of the character at p; flags 0 and size 0 at the end of the text.
struct Look {
  uint32_t flags, size;
};
struct Text {
  const uint8_t* end;
  const CharClasses& classes;
  Look at(const uint8_t* p) const {
    if (p >= end) return {0, 0};
    Char c = read_char(p, end);
    return {classes[c.code], c.size};
  }
  // The end of the run of characters with any of the flags; ASCII letters first, as they are most
  // of most texts.
  const uint8_t* run(const uint8_t* p, uint32_t flags) const {
    for (;;) {
      if (flags & kLetter) {
        while (p < end && is_alpha(*p)) ++p;
      }
      Look look = at(p);
      if (look.size == 0 || !(look.flags & flags)) return p;
      p += look.size;
    }
  }
};

// White space at p: \s*[\r\n]+ | \s+(?!\S) | \s+ (the first alternative only where with_newlines).
// `stop` bounds the text.
template <bool with_newlines, class InText>
const uint8_t* white_space(const uint8_t* p, InText&& look_at) {
  const uint8_t *q = p, *after_newline = nullptr, *last = p;
  Look look = look_at(q);
  while (look.size != 0 && (look.flags & kSpace)) {
    last = q;
    q += look.size;
    if (look.flags & kNewline) after_newline = q;
    look = look_at(q);
  }
  if (with_newlines && after_newline) return after_newline;
  if (look.size == 0 || last == p) return q;
  return last;
}

// DeepSeek-V3: \p{N}{1,3}, then runs of CJK and kana, then the main expression inside what these
// leave. A number or a change from CJK to other text is therefore an end of text for the main
// expression.
template <class Emit>
void deepseek_v3(const uint8_t* p, const uint8_t* end, Emit&& emit) {
  Text text{end, char_classes()};
  constexpr uint32_t kWord = kLetter | kMark, kSign = kPunct | kSymbol;
  while (p < end) {
    const uint8_t* start = p;
    Look look = text.at(p);
    if (look.flags & kNumber) {
      p += look.size;
      for (int i = 0; i < 2; ++i) {
        Look next = text.at(p);
        if (!(next.flags & kNumber)) break;
        p += next.size;
      }
      emit(start, p);
      continue;
    }
    const uint32_t segment = look.flags & kCjk;
    auto at = [&](const uint8_t* q) {
      Look l = text.at(q);
      return (l.flags & kNumber) || (l.flags & kCjk) != segment ? Look{0, 0} : l;
    };
    auto run = [&](const uint8_t* q, uint32_t flags) {
      for (;;) {
        if ((flags & kLetter) && !segment) {
          while (q < end && is_alpha(*q)) ++q;
        }
        Look l = at(q);
        if (!(l.flags & flags)) return q;
        q += l.size;
      }
    };
    Look next = at(p + look.size);
    if ((look.flags & kSign) && *p < 0x80 && next.size && is_alpha(p[1])) {
      p += 2;
      while (p < end && is_alpha(*p)) ++p;
    } else if (look.flags & kWord) {
      p = run(p + look.size, kWord);
    } else if (!(look.flags & (kSign | kNewline)) && (next.flags & kWord)) {
      p = run(p + look.size + next.size, kWord);
    } else if ((look.flags & kSign) || (*p == ' ' && (next.flags & kSign))) {
      p = run(run(p + look.size, kSign), kNewline);
    } else if (look.flags & kSpace) {
      p = white_space<true>(p, at);
    } else {
      // Characters of no class match nothing unless a word follows: they form one piece up to the
      // next match.
      for (p += look.size; next.size; p += next.size, next = at(p)) {
        if (next.flags & (kWord | kSign | kSpace)) break;
        if (at(p + next.size).flags & kWord) break;
      }
    }
    emit(start, p);
  }
}

// English contractions at p (*p is the apostrophe): 's 't 're 've 'm 'll 'd; their length or 0.
template <bool ignore_case>
size_t contraction(const uint8_t* p, const uint8_t* end) {
  auto at = [&](int i) -> uint8_t {
    if (p + i >= end) return 0;
    return ignore_case && is_alpha(p[i]) ? p[i] | 32 : p[i];
  };
  uint8_t a = at(1), b = at(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  if (ignore_case && a == 0xC5 && b == 0xBF)
    return 3;  // U+017F, the long s, is an s when case is folded
  return 0;
}

// Qwen2 (max_digits 1) and Llama-3 (max_digits 3): the cl100k family.
template <int max_digits, class Emit>
void cl100k(const uint8_t* p, const uint8_t* end, Emit&& emit) {
  Text text{end, char_classes()};
  auto at = [&](const uint8_t* q) { return text.at(q); };
  constexpr uint32_t kNotOther = kSpace | kLetter | kNumber;
  while (p < end) {
    const uint8_t* start = p;
    Look look = text.at(p), next;
    size_t n = 0;
    if (*p == '\'' && (n = contraction<true>(p, end)) != 0) {
      p += n;
    } else if (look.flags & kLetter) {
      p = text.run(p + look.size, kLetter);
    } else if (next = text.at(p + look.size);
               !(look.flags & (kNewline | kNumber)) && (next.flags & kLetter)) {
      p = text.run(p + look.size + next.size, kLetter);
    } else if (look.flags & kNumber) {
      p += look.size;
      for (int i = 1; i < max_digits; ++i) {
        next = text.at(p);
        if (!(next.flags & kNumber)) break;
        p += next.size;
      }
    } else if (!(look.flags & kNotOther) || (*p == ' ' && next.size && !(next.flags & kNotOther))) {
      p += look.size;
      for (next = text.at(p); next.size && !(next.flags & kNotOther); next = text.at(p))
        p += next.size;
      while (p < end && (*p == '\r' || *p == '\n')) ++p;
    } else {
      p = white_space<true>(p, at);
    }
    emit(start, p);
  }
}

template <class Emit>
void gpt2(const uint8_t* p, const uint8_t* end, Emit&& emit) {
  Text text{end, char_classes()};
  auto at = [&](const uint8_t* q) { return text.at(q); };
  constexpr uint32_t kNotOther = kSpace | kLetter | kNumber;
  while (p < end) {
    const uint8_t* start = p;
    size_t n = 0;
    if (*p == '\'' && (n = contraction<false>(p, end)) != 0) {
      emit(start, p += n);
      continue;
    }
    const uint8_t* body = *p == ' ' ? p + 1 : p;
    Look look = text.at(body);
    if (look.flags & kLetter) {
      p = text.run(body, kLetter);
    } else if (look.flags & kNumber) {
      p = text.run(body, kNumber);
    } else if (look.size && !(look.flags & kSpace)) {
      p = body;
      for (; look.size && !(look.flags & kNotOther); look = text.at(p)) p += look.size;
    } else {
      p = white_space<false>(p, at);
    }
    emit(start, p);
  }
}

// The part of an ASCII line between words and signs, for DeepSeek-LLM: white space at its end is a
// piece, each digit is one, and what is left between digits stays together.
template <class Emit>
void deepseek_llm_gap(const uint8_t* p, const uint8_t* end, Emit&& emit) {
  auto is_space = [](uint8_t c) { return c == ' ' || (c >= 9 && c <= 13); };
  auto is_digit = [](uint8_t c) { return c >= '0' && c <= '9'; };
  const uint8_t* tail = end;
  while (tail > p && is_space(tail[-1])) --tail;
  while (p < tail) {
    const uint8_t* start = p++;
    if (!is_digit(*start)) {
      while (p < tail && !is_digit(*p)) ++p;
    }
    emit(start, p);
  }
  if (tail < end) emit(tail, end);
}

// DeepSeek-LLM and V2: six splits, one after the other; the first cuts at every \r and \n, so lines
// are independent. Lines of ASCII are scanned here; slow(begin, end) must cut any other line by the
// general path.
template <class Emit, class Slow>
void deepseek_llm(const uint8_t* p, const uint8_t* end, Emit&& emit, Slow&& slow) {
  auto is_space = [](uint8_t c) { return c == ' ' || (c >= 9 && c <= 13); };
  auto is_sign = [](uint8_t c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '~' && !is_alpha(c));
  };
  while (p < end) {
    const uint8_t* line_end = p;
    uint8_t any = 0;
    while (line_end < end && *line_end != '\r' && *line_end != '\n') any |= *line_end++;
    if (any >= 0x80) {
      slow(p, line_end);
      p = line_end;
    }
    const uint8_t* gap = p;
    while (p < line_end) {
      const uint8_t* body = is_space(*p) && p + 1 < line_end ? p + 1 : p;
      bool word = is_alpha(*body), sign = !word && is_sign(*body);
      if (!word && !sign) {
        ++p;
        continue;
      }
      if (gap < p) deepseek_llm_gap(gap, p, emit);
      const uint8_t* q = body + 1;
      while (q < line_end && (word ? is_alpha(*q) : is_sign(*q))) ++q;
      emit(p, q);
      gap = p = q;
    }
    if (gap < p) deepseek_llm_gap(gap, p, emit);
    if (p < end) {
      emit(p, p + 1);
      ++p;
    }
  }
}

// Every character on its own (the character-level vocabularies).
template <class Emit>
void characters(const uint8_t* p, const uint8_t* end, Emit&& emit) {
  while (p < end) {
    const uint8_t* start = p;
    p += read_char(p, end).size;
    emit(start, p);
  }
}

// The pieces of text by the scanner of its family, or by the general path where there is none.
template <class Emit>
void pieces(const PreTokenizer& pre_tokenizer, std::string_view text, Emit&& emit) {
  auto* begin = reinterpret_cast<const uint8_t*>(text.data());
  auto* end = begin + text.size();
  auto general = [&](const uint8_t* from, const uint8_t* to) {
    std::vector<PreTokenizer::Piece> cut;
    pre_tokenizer.split({reinterpret_cast<const char*>(from), static_cast<size_t>(to - from)}, cut);
    for (const auto& piece : cut) emit(from + piece.begin, from + piece.end);
  };
  switch (pre_tokenizer.scanner()) {
    case Scanner::kDeepSeekV3:
      return deepseek_v3(begin, end, emit);
    case Scanner::kDeepSeekLlm:
      return deepseek_llm(begin, end, emit, general);
    case Scanner::kQwen2:
      return cl100k<1>(begin, end, emit);
    case Scanner::kLlama3:
      return cl100k<3>(begin, end, emit);
    case Scanner::kGpt2:
      return gpt2(begin, end, emit);
    case Scanner::kCharacters:
      return characters(begin, end, emit);
    case Scanner::kGeneral:
      return general(begin, end);
  }
}

}  // namespace wels::scan
