#include "text/unicode.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include "base/check.h"
#include "base/error.h"

namespace wels {
namespace {

struct ClassRange {
  uint32_t first, last;
  CharClass one;
};
constexpr ClassRange kRanges[] = {
#include "text/unicode_tables.inc"
};

CharClasses build_classes() {
  std::vector<uint8_t> flat(kBadByte + 256, 0);
  auto mark = [&](uint32_t first, uint32_t last, uint8_t flag) {
    for (uint32_t c = first; c <= last; ++c) flat[c] |= flag;
  };
  for (const ClassRange& r : kRanges) mark(r.first, r.last, r.one);
  mark(0x4E00, 0x9FA5, kCjk);
  mark(0x3040, 0x30FF, kCjk);
  flat['\r'] |= kNewline;
  flat['\n'] |= kNewline;
  CharClasses out;
  std::map<std::string_view, uint16_t> seen;
  for (size_t b = 0; b < flat.size(); b += 256) {
    std::string_view block(reinterpret_cast<const char*>(flat.data()) + b, 256);
    auto [it, is_new] = seen.try_emplace(block, static_cast<uint16_t>(seen.size()));
    if (is_new) out.flags.insert(out.flags.end(), block.begin(), block.end());
    out.block.push_back(it->second);
  }
  return out;
}

// Combining marks that Unicode 10 to 14 added (canonical combining class not 0). For the reference
// they are ordinary characters: neither reordered nor joined. Later ones are unknown to
// utf8proc 2.8 as well.
constexpr CharRange kNewMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070},
    {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x1193D, 0x1193E},
    {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47},
    {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x16FF0, 0x16FF1}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}};
// Dives Akuru's vowel sign O and its parts (Unicode 13), the one precomposed character that came
// after Unicode 9.
constexpr CharRange kNewPrecomposed[] = {
    {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938}};

bool is_unknown_to_unicode_9(uint32_t c) {
  if (c < 0x7FD || c == kBadByte) return c == kBadByte;
  auto in = [c](const CharRange& r) { return c >= r.first && c <= r.last; };
  return std::any_of(std::begin(kNewMarks), std::end(kNewMarks), in) ||
         std::any_of(std::begin(kNewPrecomposed), std::end(kNewPrecomposed), in);
}

// Ranges without any character that NFC changes, reorders or joins to the one before it
// (NFC_Quick_Check = Yes, class 0).
bool is_inert(uint32_t c) {
  return c < 0x300 || (c >= 0x400 && c < 0x483) || (c >= 0x48A && c < 0x591) ||
         (c >= 0x2002 && c < 0x20D0) || (c >= 0x3000 && c < 0x302A) ||
         (c >= 0x3030 && c < 0x3099) || (c >= 0x309B && c < 0xA66F) ||
         (c >= 0xAC00 && c < 0xD7A4) || (c >= 0xFF00 && c < 0x10000) ||
         (c >= 0x1F000 && c < 0x20000);
}

int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

// UAX 15's canonical order: every run of combining marks by class, marks of one class as they came.
void order_marks(std::vector<int32_t>& codes) {
  for (auto at = codes.begin(); at != codes.end();) {
    auto end = std::find_if(at, codes.end(), [](int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(at, end,
                     [](int32_t a, int32_t b) { return combining_class(a) < combining_class(b); });
    at = end == codes.end() ? end : end + 1;
  }
}

// utf8proc_map() does the same with marks ordered by swaps of neighbours: a megabyte of them takes
// minutes.
void append_nfc(std::string& out, std::string_view part) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  std::vector<int32_t> codes;
  codes.reserve(part.size());
  auto* p = reinterpret_cast<const uint8_t*>(part.data());
  for (auto* end = p + part.size(); p < end;) {
    Char c = read_char(p, end);
    int32_t parts[8];
    int boundary = 0;
    auto n = utf8proc_decompose_char(static_cast<int32_t>(c.code), parts, 8, kOptions, &boundary);
    CHECK(n >= 0 && n <= 8);  // at most four, of a well-formed character
    codes.insert(codes.end(), parts, parts + n);
    p += c.size;
  }
  order_marks(codes);
  auto size =
      utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()), kOptions);
  CHECK(size >= 0);
  for (utf8proc_ssize_t i = 0; i < size; ++i)
    append_utf8(out, static_cast<uint32_t>(codes[static_cast<size_t>(i)]));
}

// How many bytes a lead byte announces (1 where it starts nothing), and the range allowed for the
// second byte.
struct Lead {
  int size;
  uint8_t low, high;
};
Lead lead_of(uint8_t a) {
  if (a >= 0xC2 && a < 0xE0) return {2, 0x80, 0xBF};
  if (a >= 0xE0 && a < 0xF0)
    return {3, uint8_t(a == 0xE0 ? 0xA0 : 0x80), uint8_t(a == 0xED ? 0x9F : 0xBF)};
  if (a >= 0xF0 && a < 0xF5)
    return {4, uint8_t(a == 0xF0 ? 0x90 : 0x80), uint8_t(a == 0xF4 ? 0x8F : 0xBF)};
  return {1, 0, 0};
}

// Bytes at p that form a character or the longest beginning of one; `whole` tells which.
size_t maximal_part(const uint8_t* p, const uint8_t* end, bool* whole) {
  Lead lead = lead_of(*p);
  int n = 1;
  while (n < lead.size && p + n < end) {
    uint8_t low = n == 1 ? lead.low : 0x80, high = n == 1 ? lead.high : 0xBF;
    if (p[n] < low || p[n] > high) break;
    ++n;
  }
  *whole = *p < 0x80 || (lead.size > 1 && n == lead.size);
  return static_cast<size_t>(n);
}

}  // namespace

const CharClasses& char_classes() {
  static const CharClasses classes = build_classes();
  return classes;
}

std::vector<CharRange> char_ranges(CharClass one) {
  std::vector<CharRange> out;
  for (const ClassRange& r : kRanges) {
    if (r.one == one) out.push_back({r.first, r.last});
  }
  return out;
}

void append_utf8(std::string& out, uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    if (c < 0x10000) {
      out += static_cast<char>(0xE0 | c >> 12);
    } else {
      out += static_cast<char>(0xF0 | c >> 18);
      out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    }
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string utf8_lossy(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  for (auto* end = p + bytes.size(); p < end;) {
    bool whole = false;
    size_t n = maximal_part(p, end, &whole);
    if (whole) {
      out.append(reinterpret_cast<const char*>(p), n);
    } else {
      out += "\xEF\xBF\xBD";
    }
    p += n;
  }
  return out;
}

void require_utf8(std::string_view text, const std::string& where) {
  auto* begin = reinterpret_cast<const uint8_t*>(text.data());
  int64_t line = 1;
  for (auto *p = begin, *end = begin + text.size(); p < end;) {
    bool whole = false;
    size_t n = maximal_part(p, end, &whole);
    if (!whole) {
      throw Error(
          where, fmt::format("is no UTF-8: byte {} (0x{:02x}) in line {}", p - begin + 1, *p, line),
          "convert it, for instance with iconv -t UTF-8");
    }
    line += *p == '\n';
    p += n;
  }
}

size_t utf8_complete_prefix(std::string_view bytes) {
  auto* begin = reinterpret_cast<const uint8_t*>(bytes.data());
  auto* end = begin + bytes.size();
  for (size_t back = 1; back <= std::min<size_t>(3, bytes.size()); ++back) {
    const uint8_t* p = end - back;
    if ((*p & 0xC0) == 0x80) continue;
    bool whole = false;
    size_t n = maximal_part(p, end, &whole);
    bool may_grow = !whole && n == back && lead_of(*p).size > 1;
    return may_grow ? bytes.size() - back : bytes.size();
  }
  return bytes.size();
}

int char_columns(uint32_t code) {
  return code < kBadByte ? utf8proc_charwidth(static_cast<int32_t>(code)) : 1;
}

bool nfc_is_trivial(std::string_view text) {
  auto* p = reinterpret_cast<const uint8_t*>(text.data());
  for (auto* end = p + text.size(); p < end;) {
    if (*p < 0xCC) {  // up to U+02FF; a stray continuation byte is kept by NFC anyway
      ++p;
      continue;
    }
    Char c = read_char(p, end);
    if (c.code != kBadByte && !is_inert(c.code)) return false;
    p += c.size;
  }
  return true;
}

std::string nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  auto* base = reinterpret_cast<const uint8_t*>(text.data());
  auto* end = base + text.size();
  const uint8_t* start = base;
  auto part = [&](const uint8_t* to) {
    append_nfc(out, {reinterpret_cast<const char*>(start), static_cast<size_t>(to - start)});
  };
  for (const uint8_t* p = base; p < end;) {
    Char c = read_char(p, end);
    if (is_unknown_to_unicode_9(c.code)) {
      part(p);
      out.append(reinterpret_cast<const char*>(p), c.size);
      start = p + c.size;
    }
    p += c.size;
  }
  part(end);
  return out;
}

}  // namespace wels
