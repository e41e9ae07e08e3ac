// PrefixCache: finds pages of earlier and running sequences again whose tokens a new prompt begins
// with. A tree: a page is known by the page before it and its own tokens, both of which are
// compared, so a hash alone never decides. Whole pages (64 tokens, DeepSeek's granularity) are
// found in O(1); behind the last whole one the page with the longest common beginning serves too,
// copied when it is written (model/kv_cache.h). Scopes (accounts) have trees of their own.
//
// Rows of the same tokens may differ in their last bits where MLA computed them in another form or
// behind such rows. A page knows how many of its rows are exact: computed as a prompt is. A request
// can insist on those, and then its result has the bits of a run without a cache.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/kv_cache.h"

namespace wels {

class PrefixCache {
 public:
  explicit PrefixCache(KvCache& kv);
  PrefixCache(const PrefixCache&) = delete;

  // A sequence's way through the tree: the last of its pages that is known.
  struct Path {
    uint64_t node = 0;  // 0: it has left the tree
    int64_t pages = 0;
  };
  struct Found {
    std::vector<int32_t> pages;
    int64_t rows = 0;
    int64_t exact = 0;  // of them, from the beginning
    Path path;          // of whole pages
  };
  // What of `tokens` is there. exact: only exact rows. drafts: only rows that the MTP module has
  // seen too.
  Found find(const std::string& scope, std::span<const int32_t> tokens, bool exact, bool drafts);

  struct Rows {
    std::span<const int32_t> tokens;  // at most a page
    int64_t exact = 0, drafted = 0;   // of them, from the beginning
  };
  // Makes the sequence's next page known, whole or (at its end) partly filled. Where the same is
  // known already the sequence takes that page for its own.
  void add(int32_t sequence, Path& path, const Rows& rows);

  void clear();  // forgets all pages, which no sequence may use

  int64_t known_pages() const { return known_; }

 private:
  static constexpr int kPageRows = KvCache::kPageRows;
  struct Node {
    uint64_t id = 0, parent = 0;  // id 0: unknown page
    int32_t rows = 0, exact = 0, drafted = 0;
    std::array<int32_t, kPageRows> tokens;
  };
  Node& at(int32_t page) { return nodes_[static_cast<size_t>(page)]; }
  int32_t find_whole(uint64_t parent, std::span<const int32_t> tokens);
  Found& add_partial(Found& found, uint64_t parent, std::span<const int32_t> tokens, bool exact,
                     bool drafts);
  void forget(int32_t page);

  KvCache& kv_;
  std::vector<Node> nodes_;                              // by page
  std::unordered_multimap<uint64_t, int32_t> whole_;     // hash of parent and tokens → page
  std::unordered_multimap<uint64_t, int32_t> children_;  // parent → page
  std::unordered_map<std::string, uint64_t> roots_;      // scope → node
  uint64_t last_id_ = 0;
  int64_t known_ = 0;
};

}  // namespace wels
