#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

constexpr int64_t kPage = KvCache::kPageRows;

ModelConfig config() {
  ModelConfig c;
  c.architecture = Architecture::kQwen2;
  c.attention = AttentionKind::kGqa;
  c.num_hidden_layers = 1;
  c.num_attention_heads = c.num_key_value_heads = 1;
  c.head_dim = 2;
  return c;
}

std::vector<int32_t> ids(int64_t n, int32_t first) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(first + static_cast<int32_t>(i));
  return out;
}

struct PrefixCacheTest : testing::Test {
  KvCache kv{config(), DType::kF32, 10 * kPage};
  PrefixCache cache{kv};

  // Computes what is not there of the text and gives it to the cache, page by page.
  int64_t run(const std::vector<int32_t>& text, const std::string& scope, int64_t exact = 1 << 20,
              int64_t drafted = 0) {
    PrefixCache::Found found = cache.find(scope, text, false, false);
    int32_t s = kv.adopt(found.pages, found.rows);
    Batch b;
    b.append(std::span(text).subspan(static_cast<size_t>(found.rows)), found.rows, s);
    if (b.rows() > 0) kv.reserve(b);
    kv.commit(b);
    PrefixCache::Path path = found.path;
    while (path.node != 0 && path.pages * kPage < static_cast<int64_t>(text.size())) {
      int64_t from = path.pages * kPage;
      int64_t n = std::min<int64_t>(kPage, static_cast<int64_t>(text.size()) - from);
      cache.add(
          s, path,
          {std::span(text).subspan(static_cast<size_t>(from), static_cast<size_t>(n)),
           std::clamp<int64_t>(exact - from, 0, n), std::clamp<int64_t>(drafted - from, 0, n)});
    }
    kv.free_sequence(s);
    return found.rows;
  }
  int64_t found(const std::vector<int32_t>& text, const std::string& scope, bool exact = false,
                bool drafts = false) {
    return cache.find(scope, text, exact, drafts).rows;
  }
};

TEST_F(PrefixCacheTest, FindsWholePagesAndTheBeginningOfThePartialOne) {
  std::vector<int32_t> text = ids(2 * kPage + 9, 0);
  EXPECT_EQ(run(text, "a"), 0);
  EXPECT_EQ(found(text, "a"), 2 * kPage + 9);
  std::vector<int32_t> other = text;
  other[static_cast<size_t>(2 * kPage + 4)] = -1;
  EXPECT_EQ(found(other, "a"), 2 * kPage + 4);
  other[static_cast<size_t>(kPage + 3)] = -1;
  EXPECT_EQ(found(other, "a"), kPage + 3);
  other[0] = -1;
  EXPECT_EQ(found(other, "a"), 0);
}

TEST_F(PrefixCacheTest, TheSameTokensBehindOtherTokensAreNotFound) {
  run(ids(2 * kPage, 0), "a");
  std::vector<int32_t> text = ids(kPage, 500);
  run(text, "a");
  std::vector<int32_t> second = ids(kPage, static_cast<int32_t>(kPage));
  text.insert(text.end(), second.begin(), second.end());
  EXPECT_EQ(found(text, "a"), kPage);
}

TEST_F(PrefixCacheTest, ScopesDoNotShare) {
  run(ids(kPage, 0), "a");
  EXPECT_EQ(found(ids(kPage, 0), "b"), 0);
  EXPECT_EQ(found(ids(kPage, 0), ""), 0);
  EXPECT_EQ(found(ids(kPage, 0), "a"), kPage);
}

TEST_F(PrefixCacheTest, WhoInsistsOnExactOrDraftedRowsGetsOnlyThose) {
  run(ids(2 * kPage, 0), "a", kPage + 7, kPage + 5);
  EXPECT_EQ(found(ids(2 * kPage, 0), "a"), 2 * kPage);
  EXPECT_EQ(found(ids(2 * kPage, 0), "a", true), kPage + 7);
  EXPECT_EQ(found(ids(2 * kPage, 0), "a", true, true), kPage + 5);
}

// Of two partial pages with the same tokens a sequence adopts the one with exact rows, and leaves
// before it has computed any of its own.
TEST_F(PrefixCacheTest, AnAdoptedPageMayBeGivenBackAsItWas) {
  std::vector<int32_t> text = ids(20, 0), longer = ids(25, 0);
  run(text, "x", 3);
  int32_t s = kv.add_sequence();
  PrefixCache::Path path = cache.find("x", longer, true, false).path;
  Batch batch;
  batch.append(longer, 0, s);
  kv.reserve(batch);
  kv.commit(batch);
  cache.add(s, path, {longer, 25, 0});
  kv.free_sequence(s);
  ASSERT_EQ(found(text, "x", true), 20);
  int64_t known = cache.known_pages();
  PrefixCache::Found again = cache.find("x", text, true, false);
  s = kv.adopt(again.pages, again.rows);
  cache.add(s, again.path, {text, 20, 0});
  kv.free_sequence(s);
  EXPECT_EQ(cache.known_pages(), known);
  EXPECT_EQ(found(text, "x", true), 20);
  EXPECT_EQ(found(longer, "x", true), 25);
}

TEST_F(PrefixCacheTest, EqualPagesAreKeptOnce) {
  std::vector<int32_t> text = ids(kPage, 0);
  int32_t a = kv.add_sequence(), b = kv.add_sequence();
  PrefixCache::Path path_a = cache.find("x", text, true, false).path, path_b = path_a;
  for (int32_t s : {a, b}) {
    Batch batch;
    batch.append(text, 0, s);
    kv.reserve(batch);
    kv.commit(batch);
  }
  EXPECT_EQ(kv.available_pages(), 8);
  cache.add(a, path_a, {text, kPage, 0});
  cache.add(b, path_b, {text, kPage, 0});
  EXPECT_EQ(kv.available_pages(), 9);
  EXPECT_EQ(kv.pages(a)[0], kv.pages(b)[0]);
  EXPECT_EQ(path_a.node, path_b.node);
}

TEST_F(PrefixCacheTest, ExactRowsTakeThePlaceOfOthers) {
  run(ids(kPage, 0), "a", 0);
  EXPECT_EQ(found(ids(kPage, 0), "a", true), 0);
  std::vector<int32_t> text = ids(kPage, 0);
  int32_t s = kv.add_sequence();
  PrefixCache::Path path = cache.find("a", text, true, false).path;
  Batch batch;
  batch.append(text, 0, s);
  kv.reserve(batch);
  kv.commit(batch);
  cache.add(s, path, {text, kPage, 0});
  EXPECT_EQ(found(text, "a", true), kPage);
  EXPECT_EQ(cache.known_pages(), 1);
}

TEST_F(PrefixCacheTest, WhatWasUsedLongestAgoMakesRoomAndNothingIsFoundOfIt) {
  for (int32_t i = 0; i < 5; ++i) run(ids(2 * kPage, i * 1000), "a");  // fills the pool
  EXPECT_EQ(cache.known_pages(), 10);
  run(ids(2 * kPage, 0), "a");     // used again
  run(ids(kPage + 1, 9000), "a");  // takes the place of 1000
  EXPECT_EQ(found(ids(2 * kPage, 0), "a"), 2 * kPage);
  EXPECT_EQ(found(ids(2 * kPage, 1000), "a"), 0);
  EXPECT_EQ(found(ids(2 * kPage, 2000), "a"), 2 * kPage);
  EXPECT_EQ(found(ids(kPage + 1, 9000), "a"), kPage + 1);
  EXPECT_EQ(kv.available_pages(), 10);
}

}  // namespace
}  // namespace wels
