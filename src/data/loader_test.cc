#include "data/loader.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/test_folder.h"

namespace wels {
namespace {

using testing::HasSubstr;

constexpr int32_t kEnd = 0;
constexpr int64_t kVocab = 100'000;

// Documents of the given lengths; every token but the end of text is there once, so that each can
// be followed.
TokenShard numbered(const TestFolder& f, const std::vector<int64_t>& lengths) {
  ShardWriter w(f / "s", kVocab, kEnd);
  int32_t next = 1;
  for (int64_t n : lengths) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i) ids.push_back(next++);
    w.append(ids, n);
    w.end_document();
  }
  w.finish(1, 1);
  return TokenShard(f / "s", kVocab, 1);
}

std::vector<int64_t> varied(int n) {
  std::vector<int64_t> out;
  for (int i = 0; i < n; ++i) out.push_back(1 + i * 7 % 53);
  return out;
}

struct Sequences {
  Batch batch;
  std::vector<int32_t> targets;
};

Sequences take(const TokenShard& shard, LoaderConfig c, int64_t first, int64_t count) {
  Loader loader(shard, c);
  Sequences s;
  for (int64_t i = 0; i < count; ++i) loader.sequence(first + i, s.batch, s.targets);
  return s;
}

TEST(Loader, EveryTokenOfAnEpochIsUsedOnceUpToPartialWindows) {
  TestFolder f;
  TokenShard shard = numbered(f, varied(200));
  LoaderConfig c{16, 3, false};
  int64_t windows = Loader(shard, c).sequences_per_epoch();
  for (int64_t epoch : {0, 1, 7}) {
    Sequences s = take(shard, c, epoch * windows, windows);
    std::multiset<int32_t> inputs, targets;
    for (int32_t id : s.batch.tokens) {
      if (id != kEnd) inputs.insert(id);
    }
    for (int32_t id : s.targets) {
      if (id != kEnd) targets.insert(id);
    }
    EXPECT_EQ(std::set<int32_t>(inputs.begin(), inputs.end()).size(), inputs.size())
        << "no input twice";
    EXPECT_EQ(std::set<int32_t>(targets.begin(), targets.end()).size(), targets.size())
        << "no target twice";
    EXPECT_EQ(s.batch.rows(), windows * 16);
    EXPECT_LE(shard.tokens() - s.batch.rows(), 2 * 16)
        << "what is left out is less than two windows and one token";
  }
}

TEST(Loader, TargetsAreTheNextTokens) {
  TestFolder f;
  TokenShard shard = numbered(f, varied(100));
  Sequences s = take(shard, {16, 3, false}, 0, 40);
  ASSERT_EQ(s.batch.segments.size(), 40u);
  for (const Segment& seg : s.batch.segments) {
    EXPECT_EQ(seg.rows, 16);
    EXPECT_EQ(seg.past, 0);
    for (int64_t i = 0; i < 16; ++i) {
      auto row = static_cast<size_t>(seg.row_begin + i);
      EXPECT_EQ(s.batch.pos[row], i);
      int32_t id = s.batch.tokens[row], next = s.targets[row];
      EXPECT_TRUE(i == 15 || next == s.batch.tokens[row + 1]);
      EXPECT_TRUE(id == kEnd || next == kEnd || next == id + 1) << "the same document goes on";
    }
  }
}

TEST(Loader, EpochsAndSeedsDifferAndTheSameSeedRepeats) {
  TestFolder f;
  TokenShard shard = numbered(f, varied(100));
  LoaderConfig c{16, 3, false}, other{16, 4, false};
  int64_t n = Loader(shard, c).sequences_per_epoch();
  auto tokens = [&](LoaderConfig config, int64_t first) {
    return take(shard, config, first, n).batch.tokens;
  };
  EXPECT_EQ(tokens(c, 0), tokens(c, 0));
  EXPECT_NE(tokens(c, 0), tokens(c, n));
  EXPECT_NE(tokens(c, 0), tokens(other, 0));
  auto sorted_starts = [&](int64_t first) {
    Sequences s = take(shard, c, first, n);
    std::set<int32_t> starts;
    for (const Segment& seg : s.batch.segments)
      starts.insert(s.batch.tokens[static_cast<size_t>(seg.row_begin)]);
    return starts;
  };
  EXPECT_NE(sorted_starts(0), sorted_starts(n)) << "windows are cut elsewhere, not only reordered";
}

TEST(Loader, ResumingAnywhereEqualsContinuing) {
  TestFolder f;
  TokenShard shard = numbered(f, varied(60));
  for (bool mask : {false, true}) {
    LoaderConfig c{16, 9, mask};
    int64_t n = 2 * Loader(shard, c).sequences_per_epoch() + 3;  // across two borders of epochs
    Loader whole(shard, c);
    for (int64_t i = 0; i < n; ++i) {
      Sequences a, b = take(shard, c, i, 1);
      whole.sequence(i, a.batch, a.targets);
      ASSERT_EQ(a.batch.tokens, b.batch.tokens) << i;
      ASSERT_EQ(a.targets, b.targets) << i;
    }
  }
}

TEST(Loader, TheMaskEndsSegmentsAtDocumentsAndDropsTargetsAcross) {
  TestFolder f;
  TokenShard shard = numbered(f, varied(100));
  LoaderConfig c{32, 3, true}, open{32, 3, false};
  int64_t n = Loader(shard, c).sequences_per_epoch();
  Sequences masked = take(shard, c, 0, n), plain = take(shard, open, 0, n);
  EXPECT_EQ(masked.batch.tokens, plain.batch.tokens) << "the same windows";
  EXPECT_GT(masked.batch.segments.size(), plain.batch.segments.size());
  int64_t row = 0;
  for (const Segment& seg : masked.batch.segments) {
    EXPECT_EQ(seg.row_begin, row);
    ASSERT_GE(seg.rows, 1);
    for (int64_t i = 0; i < seg.rows; ++i, ++row) {
      int32_t id = masked.batch.tokens[static_cast<size_t>(row)],
              target = masked.targets[static_cast<size_t>(row)];
      EXPECT_EQ(masked.batch.pos[static_cast<size_t>(row)], i);
      EXPECT_EQ(target, id == kEnd ? -1 : plain.targets[static_cast<size_t>(row)]);
      EXPECT_TRUE(id != kEnd || i + 1 == seg.rows) << "a document's end ends its segment";
    }
  }
  EXPECT_EQ(row, masked.batch.rows());
}

TEST(Loader, TheMaskNeedsATokenThatEndsDocuments) {
  TestFolder f;
  ShardWriter w(f / "s", kVocab, -1);
  w.append(std::vector<int32_t>(100, 1), 100);
  w.end_document();
  w.finish(1, 1);
  TokenShard shard(f / "s", kVocab, 1);
  EXPECT_THAT(error_of([&] {
                Loader(shard, {16, 3, true});
              }),
              HasSubstr("no end-of-sentence token"));
}

TEST(Loader, OneDocumentIsShuffledByWindows) {
  TestFolder f;
  TokenShard shard = numbered(f, {1000});
  LoaderConfig c{8, 1, false};
  Sequences s = take(shard, c, 0, Loader(shard, c).sequences_per_epoch());
  int rising = 0;
  for (size_t i = 8; i < s.batch.tokens.size(); i += 8)
    rising += s.batch.tokens[i] == s.batch.tokens[i - 8] + 8;
  EXPECT_LT(rising, 10);
}

TEST(Loader, TooLittleTextIsAnError) {
  TestFolder f;
  TokenShard shard = numbered(f, {30});
  EXPECT_THAT(error_of([&] {
                Loader(shard, {16, 1, false});
              }),
              HasSubstr("31 training tokens are too few"));
  Loader fits(shard, {15, 1, false});
  EXPECT_EQ(fits.sequences_per_epoch(), 1);
}

TEST(Permute, IsABijectionForEverySizeAndDiffersByKey) {
  for (int64_t n : {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000}) {
    for (uint64_t key : {0ull, 1ull, 0xffffffffffffffffull}) {
      std::set<int64_t> seen;
      for (int64_t i = 0; i < n; ++i) {
        int64_t p = permute(i, n, key);
        ASSERT_TRUE(p >= 0 && p < n);
        seen.insert(p);
      }
      EXPECT_EQ(static_cast<int64_t>(seen.size()), n);
    }
  }
  int same = 0;
  for (int64_t i = 0; i < 1000; ++i) same += permute(i, 1000, 1) == permute(i, 1000, 2);
  EXPECT_LT(same, 20);
}

TEST(Validation, WindowsPredictEveryTokenButTheFirstOnce) {
  for (int64_t length : {2, 15, 16, 17, 31, 32, 33, 100}) {
    TestFolder f;
    TokenShard shard = numbered(f, {length});
    Sequences s;
    for (int64_t begin : validation_windows(shard, 16, 0))
      append_window(shard, begin, 16, s.batch, s.targets);
    std::vector<int32_t> expected;
    for (int64_t i = 1; i < shard.tokens(); ++i) expected.push_back(shard.token(i));
    EXPECT_EQ(s.targets, expected) << length;
  }
}

TEST(Validation, FewerWindowsAreSpreadAndTheMaskIsKept) {
  TestFolder f;
  TokenShard shard = numbered(f, varied(100));
  auto windows = validation_windows(shard, 16, 5);
  ASSERT_EQ(windows.size(), 5u);
  EXPECT_EQ(windows[0], 0);
  EXPECT_GT(windows[4], shard.tokens() / 2);
  EXPECT_TRUE(std::adjacent_find(windows.begin(), windows.end(), std::greater_equal<>()) ==
              windows.end());
  Sequences masked;
  for (int64_t begin : validation_windows(shard, 64, 0))
    append_window(shard, begin, 64, masked.batch, masked.targets, true);
  EXPECT_GE(static_cast<int64_t>(masked.batch.segments.size()), shard.documents());
  for (size_t i = 0; i < masked.targets.size(); ++i)
    EXPECT_EQ(masked.batch.tokens[i] == kEnd, masked.targets[i] == -1);
}

}  // namespace
}  // namespace wels
