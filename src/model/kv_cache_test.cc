#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace wels {
namespace {

constexpr int64_t kPage = KvCache::kPageRows;

ModelConfig config() {
  ModelConfig c;
  c.architecture = Architecture::kQwen2;
  c.attention = AttentionKind::kGqa;
  c.num_hidden_layers = 2;
  c.num_attention_heads = c.num_key_value_heads = 1;
  c.head_dim = 2;
  c.num_nextn_predict_layers = 1;
  return c;
}

// A cache whose rows hold their sequence's values: row j of a sequence gets first + j.
struct Cache : KvCache {
  explicit Cache(int64_t pages) : KvCache(config(), DType::kF32, pages * kPage) {}
  void append(int32_t sequence, int64_t rows, float first) {
    Batch b;
    b.append(std::vector<int32_t>(static_cast<size_t>(rows)), length(sequence), sequence);
    std::vector<int32_t> places = reserve(b);
    for (int64_t l = 0; l < 3; ++l) {
      for (size_t i = 0; i < places.size(); ++i)
        pool(l).row<float>(places[i])[1] =
            first + static_cast<float>(i + 1000 * static_cast<size_t>(l));
    }
    commit(b);
  }
  float value(int32_t sequence, int64_t row, int64_t layer = 0) const {
    return pool(layer).row<float>(places(sequence, row + 1).back())[1];
  }
};

TEST(KvCache, PartsOfAQuantisedRowBeginWithABlock) {
  ModelConfig v3;  // r 512, dr 64: whole blocks
  v3.attention = AttentionKind::kMla;
  v3.num_hidden_layers = 60;
  v3.num_nextn_predict_layers = 1;
  v3.kv_lora_rank = 512;
  v3.qk_rope_head_dim = 64;
  EXPECT_EQ(kv_layout(v3, DType::kBF16).width, 576);
  EXPECT_EQ(kv_layout(v3, DType::kQ8_0).width, 576);
  EXPECT_EQ(kv_token_bytes(v3, DType::kBF16), 61 * 1152);
  EXPECT_EQ(kv_token_bytes(v3, DType::kQ8_0), 61 * 612);
  v3.num_attention_heads = v3.qk_nope_head_dim = v3.v_head_dim = 128;
  EXPECT_EQ(kv_layout(v3, DType::kBF16, MlaRows::kExpanded).head, 256);
  EXPECT_EQ(kv_layout(v3, DType::kBF16, MlaRows::kExpanded).second, 128 * 256);
  EXPECT_EQ(kv_layout(v3, DType::kBF16, MlaRows::kExpanded).width, 128 * 256 + 64);
  EXPECT_EQ(kv_token_bytes(v3, DType::kF32, MlaRows::kExpanded), 61 * 4 * (128 * 256 + 64));
  v3.kv_lora_rank = 48;
  v3.qk_rope_head_dim = 16;
  EXPECT_EQ(kv_layout(v3, DType::kF32).second, 48);
  EXPECT_EQ(kv_layout(v3, DType::kF32).width, 64);
  EXPECT_EQ(kv_layout(v3, DType::kQ8_0).second, 64);
  EXPECT_EQ(kv_layout(v3, DType::kQ8_0).width, 96);
  ModelConfig gqa = config();
  gqa.attention = AttentionKind::kGqa;
  gqa.num_key_value_heads = 3;
  gqa.head_dim = 40;
  EXPECT_EQ(kv_layout(gqa, DType::kBF16).second, 120);
  EXPECT_EQ(kv_layout(gqa, DType::kQ8_0).head, 64);
  EXPECT_EQ(kv_layout(gqa, DType::kQ8_0).width, 384);
}

TEST(KvCache, AForkSharesPagesAndCopiesTheLastOneWhenEitherGoesOn) {
  Cache kv(8);
  int32_t a = kv.add_sequence();
  kv.append(a, kPage + 10, 0);
  int32_t b = kv.fork(a);
  EXPECT_EQ(kv.available_pages(), 6);
  EXPECT_EQ(kv.missing_pages(b, 1), 1);
  EXPECT_EQ(kv.missing_pages(b, kPage), 2);
  kv.append(b, 1, 500);
  kv.append(a, 1, 700);
  EXPECT_EQ(kv.available_pages(), 5);  // a was alone with the old page by then
  EXPECT_EQ(kv.pages(a)[0], kv.pages(b)[0]);
  EXPECT_NE(kv.pages(a)[1], kv.pages(b)[1]);
  for (int64_t layer : {0, 1, 2}) {
    EXPECT_EQ(kv.value(b, kPage + 9, layer), static_cast<float>(kPage + 9 + 1000 * layer));
    EXPECT_EQ(kv.value(b, kPage + 10, layer), static_cast<float>(500 + 1000 * layer));
    EXPECT_EQ(kv.value(a, kPage + 10, layer), static_cast<float>(700 + 1000 * layer));
  }
  kv.free_sequence(a);
  EXPECT_EQ(kv.available_pages(), 6);
  EXPECT_EQ(kv.value(b, 3), 3);
}

TEST(KvCache, WholePagesAreNeverCopied) {
  Cache kv(4);
  int32_t a = kv.add_sequence();
  kv.append(a, kPage, 0);
  int32_t b = kv.fork(a);
  kv.append(b, 1, 0);
  EXPECT_EQ(kv.available_pages(), 2);
}

TEST(KvCache, NumbersOfFreedSequencesAndTheirPagesAreUsedAgain) {
  Cache kv(2);
  for (int i = 0; i < 100; ++i) {
    int32_t a = kv.add_sequence(), b = kv.add_sequence();
    EXPECT_LT(std::max(a, b), 2);
    kv.append(a, kPage, 0);
    kv.append(b, 5, 0);
    kv.truncate(b, 2);
    EXPECT_EQ(kv.length(b), 2);
    EXPECT_THROW(kv.append(a, 1, 0), Error);
    kv.free_sequence(a);
    kv.free_sequence(b);
    EXPECT_EQ(kv.available_pages(), 2);
  }
}

TEST(KvCache, TheLongestIdlePageIsTakenFirstAndTheEndOfASequenceBeforeItsBeginning) {
  Cache kv(4);
  std::vector<int32_t> taken;
  kv.on_taken([&](int32_t page) { taken.push_back(page); });
  int32_t a = kv.add_sequence(), b = kv.add_sequence();
  kv.append(a, 2 * kPage, 0);
  kv.append(b, 2 * kPage, 0);
  std::vector<int32_t> of_a(kv.pages(a).begin(), kv.pages(a).end());
  std::vector<int32_t> of_b(kv.pages(b).begin(), kv.pages(b).end());
  for (int32_t page : of_a) kv.keep(page);
  for (int32_t page : of_b) kv.keep(page);
  kv.free_sequence(b);
  kv.free_sequence(a);
  EXPECT_EQ(kv.available_pages(), 4);
  int32_t c = kv.adopt(std::span(of_b).first(1), kPage);  // in use again
  kv.append(c, 2 * kPage, 0);
  EXPECT_EQ(taken, (std::vector<int32_t>{of_b[1], of_a[1]}));
  EXPECT_EQ(kv.available_pages(), 1);
}

TEST(KvCache, AKeptPageThatMustGoOnIsCopiedAndTakenOverWhereThereIsNoOther) {
  Cache kv(2);
  int taken = 0;
  kv.on_taken([&](int32_t) { ++taken; });
  int32_t a = kv.add_sequence();
  kv.append(a, 5, 0);
  int32_t page = kv.pages(a)[0];
  kv.keep(page);
  kv.free_sequence(a);
  int32_t b = kv.adopt({&page, 1}, 3);
  kv.append(b, 1, 90);  // into a copy
  EXPECT_NE(kv.pages(b)[0], page);
  EXPECT_EQ(kv.value(b, 2), 2);
  int32_t c = kv.adopt({&page, 1}, 4);
  kv.append(c, 1, 80);  // no page left for a copy
  EXPECT_EQ(kv.pages(c)[0], page);
  EXPECT_EQ(taken, 1);
  EXPECT_EQ(kv.value(c, 3), 3);
  EXPECT_EQ(kv.value(c, 4), 80);
}

}  // namespace
}  // namespace wels
