// Finds added tokens in text: at each place the longest one that starts there, left to right, never
// overlapping (what the reference's Aho-Corasick automaton in leftmost-longest mode gives). A trie
// walked only where a token's first byte stands; with DeepSeek's and Qwen's tokens that byte is
// always '<', so most text is skipped by memchr.
#pragma once
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/vocab_source.h"

namespace wels {

class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);
  bool empty() const { return tokens_.empty(); }

  // Calls text(part) for the stretches without added tokens (never empty) and token(id), in order.
  template <class OnText, class OnToken>
  void split(std::string_view text, OnText&& on_text, OnToken&& on_token) const {
    size_t done = 0;
    Match m;
    for (size_t at = 0; next(text, at, done, m); at = m.resume) {
      if (m.begin > done) on_text(text.substr(done, m.begin - done));
      on_token(m.id);
      done = m.end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  struct Match {
    size_t begin, end;  // with the white space that lstrip and rstrip take
    size_t resume;      // where to search on: the token's own end
    int32_t id;
  };
  bool next(std::string_view text, size_t at, size_t done, Match& m) const;
  size_t candidate(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte → node; node 0 is the root
  std::vector<int32_t> ends_;  // node → index of the token that ends there, -1: none
  bool first_[256] = {};
  int only_first_ = -1;  // the one byte all tokens start with, -1 if there are several
};

}  // namespace wels
