#include "text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "text/unicode.h"

namespace wels {
namespace {

// The character that ends at `at`.
uint8_t flags_before(std::string_view text, size_t at, size_t* size) {
  auto* base = reinterpret_cast<const uint8_t*>(text.data());
  for (size_t back = 1; back <= std::min<size_t>(4, at); ++back) {
    Char c = read_char(base + at - back, base + at);
    if (c.size == back && (c.code != kBadByte || back == 1)) {
      if (c.code == kBadByte) continue;
      *size = back;
      return char_classes()[c.code];
    }
  }
  *size = 1;
  return 0;
}

uint8_t flags_after(std::string_view text, size_t at, size_t* size) {
  auto* base = reinterpret_cast<const uint8_t*>(text.data());
  Char c = read_char(base + at, base + text.size());
  *size = c.size;
  return char_classes()[c.code];
}

constexpr uint8_t kWordChar = kLetter | kNumber | kMark;

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens) : tokens_(tokens) {
  ends_.push_back(-1);
  for (size_t t = 0; t < tokens_.size(); ++t) {
    uint32_t node = 0;
    for (char c : tokens_[t].content) {
      auto [it, is_new] = edges_.try_emplace(uint64_t{node} << 8 | static_cast<uint8_t>(c),
                                             static_cast<uint32_t>(ends_.size()));
      if (is_new) ends_.push_back(-1);
      node = it->second;
    }
    ends_[node] = static_cast<int32_t>(t);
    first_[static_cast<uint8_t>(tokens_[t].content[0])] = true;
  }
  if (std::count(std::begin(first_), std::end(first_), true) == 1) {
    only_first_ = static_cast<int>(std::find(std::begin(first_), std::end(first_), true) -
                                   std::begin(first_));
  }
}

size_t AddedTokenFinder::candidate(std::string_view text, size_t at) const {
  if (at >= text.size()) return std::string_view::npos;
  if (only_first_ >= 0) {
    const void* p = std::memchr(text.data() + at, only_first_, text.size() - at);
    return p ? static_cast<size_t>(static_cast<const char*>(p) - text.data())
             : std::string_view::npos;
  }
  while (at < text.size() && !first_[static_cast<uint8_t>(text[at])]) ++at;
  return at < text.size() ? at : std::string_view::npos;
}

bool AddedTokenFinder::next(std::string_view text, size_t at, size_t done, Match& m) const {
  if (tokens_.empty()) return false;
  for (; (at = candidate(text, at)) != std::string_view::npos; ++at) {
    uint32_t node = 0;
    int32_t found = -1;
    size_t end = at;
    for (size_t i = at; i < text.size(); ++i) {
      auto it = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
      if (it == edges_.end()) break;
      node = it->second;
      if (ends_[node] >= 0) {
        found = ends_[node];
        end = i + 1;
      }
    }
    if (found < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t size = 0;
    if (token.single_word &&
        ((at > 0 && (text[at - 1] == '_' || (flags_before(text, at, &size) & kWordChar))) ||
         (end < text.size() &&
          (text[end] == '_' || (flags_after(text, end, &size) & kWordChar))))) {
      at = end - 1;  // inside a word: plain text, and nothing is searched for inside it
      continue;
    }
    m = {at, end, end, token.id};  // what rstrip takes may begin another token
    while (token.lstrip && m.begin > done && (flags_before(text, m.begin, &size) & kSpace))
      m.begin -= size;
    while (token.rstrip && m.end < text.size() && (flags_after(text, m.end, &size) & kSpace))
      m.end += size;
    return true;
  }
  return false;
}

}  // namespace wels
