// Unicode as the tokenisers' regular expressions see it: the classes \p{L} \p{N} \p{M} \p{P} \p{S}
// \s of Unicode 16.0 (what the Hugging Face library uses; the system's PCRE2 and utf8proc are
// older), strict UTF-8 decoding in which every ill-formed byte is one character of no class, and
// NFC. Idea: one byte of flags per code point in a two-stage table, so that a class test in a
// scanner is two loads and a mask.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

enum CharClass : uint8_t {
  kLetter = 1,
  kNumber = 2,
  kMark = 4,
  kPunct = 8,
  kSymbol = 16,
  kSpace = 32,
  kCjk = 64,      // [一-龥぀-ゟ゠-ヿ], the second split of DeepSeek-V3's pre-tokeniser
  kNewline = 128  // \r or \n
};

constexpr uint32_t kBadByte = 0x110000;  // the "code point" of an ill-formed byte

// Two-stage table: flags[block[c >> 8] << 8 | (c & 255)]; covers 0 ... kBadByte.
struct CharClasses {
  std::vector<uint16_t> block;
  std::vector<uint8_t> flags;
  uint8_t operator[](uint32_t c) const { return flags[size_t{block[c >> 8]} << 8 | (c & 255)]; }
};
const CharClasses& char_classes();  // built on first use, about a millisecond

// Ranges [first, last] of one class (one of the first six flags), sorted.
struct CharRange {
  uint32_t first, last;
};
std::vector<CharRange> char_ranges(CharClass one);

// Reads one character at p (p < end): its code point and length in bytes, or kBadByte and 1 where p
// does not start a well-formed sequence (overlong forms, surrogates and values above U+10FFFF are
// ill-formed).
struct Char {
  uint32_t code;
  uint32_t size;
};
inline Char read_char(const uint8_t* p, const uint8_t* end) {
  uint32_t a = *p;
  if (a < 0x80) return {a, 1};
  auto tail = [&](int i) { return (p[i] & 0xC0) == 0x80; };
  if (a >= 0xC2 && a < 0xE0 && end - p >= 2 && tail(1))
    return {(a & 0x1F) << 6 | (p[1] & 0x3Fu), 2};
  if (a >= 0xE0 && a < 0xF0 && end - p >= 3 && tail(1) && tail(2)) {
    uint32_t c = (a & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
    if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) return {c, 3};
  }
  if (a >= 0xF0 && a < 0xF5 && end - p >= 4 && tail(1) && tail(2) && tail(3)) {
    uint32_t c = (a & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    if (c >= 0x10000 && c <= 0x10FFFF) return {c, 4};
  }
  return {kBadByte, 1};
}
void append_utf8(std::string& out, uint32_t code);  // code ≤ 0x10FFFF, no surrogate

// The text with every maximal ill-formed part replaced by U+FFFD (Unicode 16, section 3.9, "U+FFFD
// substitution of maximal subparts"), as browsers and the reference tokenisers print it.
std::string utf8_lossy(std::string_view bytes);

// Throws Error(where) if `text` is not well-formed: which byte, and the line it is in.
void require_utf8(std::string_view text, const std::string& where);

// The length of the longest prefix of `bytes` that does not end inside a character that could still
// become well-formed.
size_t utf8_complete_prefix(std::string_view bytes);

// Columns that a character takes on a terminal: 2 for Chinese, 0 for a combining one or a control
// character; ill-formed bytes, shown as U+FFFD, take 1.
int char_columns(uint32_t code);

// True if NFC leaves the text as it is, found by ranges alone; false means "maybe not".
bool nfc_is_trivial(std::string_view text);

// Unicode normalisation form C with the tables of Unicode 9, which the reference library has:
// combining marks added to Unicode later stay where they are. Ill-formed bytes are kept. Source:
// UAX 15.
std::string nfc(std::string_view text);

}  // namespace wels
