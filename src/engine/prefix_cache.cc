#include "engine/prefix_cache.h"

#include <algorithm>

namespace wels {
namespace {

constexpr int kSiblings = 64;  // looked at for a partial page

uint64_t hash_page(uint64_t parent, std::span<const int32_t> tokens) {
  uint64_t h = parent * 0x9e3779b97f4a7c15ull;
  for (int32_t t : tokens) {
    h = (h ^ static_cast<uint32_t>(t)) * 0xbf58476d1ce4e5b9ull;
    h ^= h >> 29;
  }
  return h;
}

}  // namespace

PrefixCache::PrefixCache(KvCache& kv) : kv_(kv), nodes_(static_cast<size_t>(kv.all_pages())) {
  kv_.on_taken([this](int32_t page) { forget(page); });
}

int32_t PrefixCache::find_whole(uint64_t parent, std::span<const int32_t> tokens) {
  auto [first, last] = whole_.equal_range(hash_page(parent, tokens));
  for (auto i = first; i != last; ++i) {
    const Node& n = at(i->second);
    if (n.parent == parent && std::equal(tokens.begin(), tokens.end(), n.tokens.begin()))
      return i->second;
  }
  return -1;
}

// The page behind `parent` that has most of the tokens.
PrefixCache::Found& PrefixCache::add_partial(Found& found, uint64_t parent,
                                             std::span<const int32_t> tokens, bool exact,
                                             bool drafts) {
  int32_t best = -1;
  int64_t most = 0;
  auto [first, last] = children_.equal_range(parent);
  for (int looked = 0; first != last && looked < kSiblings; ++first, ++looked) {
    const Node& n = at(first->second);
    int64_t rows = std::min<int64_t>(n.rows, static_cast<int64_t>(tokens.size()));
    if (exact) rows = std::min<int64_t>(rows, n.exact);
    if (drafts) rows = std::min<int64_t>(rows, n.drafted);
    auto differ = std::mismatch(tokens.begin(), tokens.begin() + rows, n.tokens.begin());
    int64_t same = differ.first - tokens.begin();
    if (same > most) {
      most = same;
      best = first->second;
    }
  }
  if (best < 0) return found;
  if (found.exact == found.rows) found.exact += std::min<int64_t>(most, at(best).exact);
  found.rows += most;
  found.pages.push_back(best);
  return found;
}

PrefixCache::Found PrefixCache::find(const std::string& scope, std::span<const int32_t> tokens,
                                     bool exact, bool drafts) {
  Found found;
  if (roots_.size() > 4 * nodes_.size()) {  // scopes without pages
    std::erase_if(roots_, [&](const auto& root) { return !children_.contains(root.second); });
  }
  auto [root, fresh] = roots_.try_emplace(scope, last_id_ + 1);
  last_id_ += fresh;
  found.path.node = root->second;
  for (;;) {
    std::span<const int32_t> rest = tokens.subspan(static_cast<size_t>(found.rows));
    int32_t page =
        rest.size() < kPageRows ? -1 : find_whole(found.path.node, rest.first(kPageRows));
    if (page >= 0 && exact && at(page).exact < kPageRows) page = -1;
    if (page >= 0 && drafts && at(page).drafted < kPageRows) page = -1;
    if (page < 0) return add_partial(found, found.path.node, rest, exact, drafts);
    if (found.exact == found.rows) found.exact += at(page).exact;
    found.rows += kPageRows;
    found.pages.push_back(page);
    found.path.node = at(page).id;
    ++found.path.pages;
  }
}

void PrefixCache::add(int32_t sequence, Path& path, const Rows& rows) {
  if (path.node == 0) return;
  int32_t page = kv_.pages(sequence)[static_cast<size_t>(path.pages)];
  int64_t n = static_cast<int64_t>(rows.tokens.size());
  bool whole = n == kPageRows;
  if (at(page).id != 0) {  // found here, and nothing was added to it
    path = {at(page).id, path.pages + 1};
    return;
  }
  Found same;
  int32_t other = whole ? find_whole(path.node, rows.tokens) : -1;
  if (!whole) add_partial(same, path.node, rows.tokens, false, false);
  if (same.rows == n) other = same.pages[0];
  bool worse = other >= 0 && (at(other).exact < rows.exact || at(other).drafted < rows.drafted);
  if (worse && whole) {
    // The better rows take the place. What follows the others is not found any more.
    forget(other);
    kv_.drop(other);
  }
  if (other >= 0 && !worse) {
    // Bits must not change under a sequence: only exact rows are alike to the last bit.
    bool alike = whole && rows.exact == n && at(other).exact == n;
    if (alike && other != page) kv_.replace_page(sequence, path.pages, other);
    path = {alike || other == page ? at(other).id : 0, path.pages + 1};
    return;
  }
  Node& node = at(page);
  node.id = ++last_id_;
  node.parent = path.node;
  node.rows = static_cast<int32_t>(n);
  node.exact = static_cast<int32_t>(rows.exact);
  node.drafted = static_cast<int32_t>(rows.drafted);
  std::copy(rows.tokens.begin(), rows.tokens.end(), node.tokens.begin());
  children_.emplace(node.parent, page);
  if (whole) whole_.emplace(hash_page(node.parent, rows.tokens), page);
  kv_.keep(page);
  ++known_;
  path = {node.id, path.pages + 1};
}

void PrefixCache::clear() {
  for (int32_t page = 0; page < static_cast<int32_t>(nodes_.size()); ++page) {
    if (at(page).id == 0) continue;
    CHECK(!kv_.in_use(page));
    forget(page);
    kv_.drop(page);
  }
  roots_.clear();
}

void PrefixCache::forget(int32_t page) {
  Node& node = at(page);
  auto erase_from = [&](std::unordered_multimap<uint64_t, int32_t>& map, uint64_t key) {
    auto [first, last] = map.equal_range(key);
    for (auto i = first; i != last; ++i) {
      if (i->second != page) continue;
      map.erase(i);
      return;
    }
  };
  erase_from(children_, node.parent);
  if (node.rows == kPageRows)
    erase_from(whole_, hash_page(node.parent, {node.tokens.data(), kPageRows}));
  node.id = 0;
  --known_;
}

}  // namespace wels
