#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "model/tiny_config_test.h"

namespace wels {
namespace {

using Ids = std::vector<int32_t>;

ModelConfig config() {
  ModelConfig c = tiny_moe_config(50);
  c.num_hidden_layers = 3;
  c.n_routed_experts = 8;
  c.num_experts_per_tok = 3;
  c.num_nextn_predict_layers = 1;
  return c;
}

constexpr size_t kLayers = 2, kChosen = 3, kRow = kLayers * kChosen;

struct TraceTest : testing::Test {
  TraceTest() : model(config()) { model.init(DType::kF32, 3, false); }

  // [tokens, layers, k] of one forward pass without a cache.
  std::vector<int16_t> plain(const Ids& tokens) {
    Pool pool;
    Ctx ctx{.dev = *dev, .pool = pool};
    Batch batch;
    batch.append(tokens);
    ForwardRecord record;
    model.hidden(ctx, batch, {}, &record);
    EXPECT_EQ(record.routed.size(), kLayers);
    std::vector<int16_t> out(tokens.size() * kRow);
    for (size_t l = 0; l < kLayers; ++l) {
      std::vector<int32_t> one(tokens.size() * kChosen);
      dev->download(record.routed[l].routed.expert.t, one.data());
      for (size_t i = 0; i < one.size(); ++i)
        out[i / kChosen * kRow + l * kChosen + i % kChosen] = static_cast<int16_t>(one[i]);
    }
    return out;
  }

  Ids prompt(int64_t n, uint64_t seed) {
    Rng rng(seed);
    Ids out;
    for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(rng.below(50)));
    return out;
  }

  GenerateRequest ask(Ids ids, int64_t tokens) {
    GenerateRequest r;
    r.prompt = std::move(ids);
    r.max_new_tokens = tokens;
    r.sampling.temperature = 1;
    r.trace_rows = 4096;
    return r;
  }

  // Rows from `from` on are those of a plain pass, rows before were not computed.
  void expect_plain(const GenerateRequest& r, const GenerateResult& got, size_t from = 0) {
    Ids all = r.prompt;
    all.insert(all.end(), got.tokens.begin(), got.tokens.end());
    std::vector<int16_t> want = plain(all);
    ASSERT_GE(got.experts.size() + kRow, want.size());  // nothing follows the last token
    for (size_t i = 0; i < got.experts.size(); ++i)
      ASSERT_EQ(got.experts[i], i < from * kRow ? -1 : want[i]) << "row " << i / kRow;
  }

  std::unique_ptr<Device> dev = make_device("cpu");
  Model model;
};

TEST_F(TraceTest, ChunksAndDecodingTellWhatOnePassTells) {
  Engine e(*dev, model, DType::kF32, 1024, 4096);
  // Longer than a step's rows; the others make the chunks uneven.
  std::vector<GenerateRequest> r = {ask(prompt(700, 1), 20), ask(prompt(90, 2), 30),
                                    ask(prompt(1, 3), 5)};
  std::vector<GenerateResult> got = e.run(r);
  for (size_t i = 0; i < r.size(); ++i) expect_plain(r[i], got[i]);
}

TEST_F(TraceTest, AnswersAreTheSameWhetherWatchedOrNot) {
  std::vector<GenerateRequest> r = {ask(prompt(100, 1), 20), ask(prompt(70, 2), 20)};
  std::vector<GenerateResult> watched = Engine(*dev, model, DType::kF32, 256).run(r);
  r[0].trace_rows = r[1].trace_rows = 0;
  std::vector<GenerateResult> alone = Engine(*dev, model, DType::kF32, 256).run(r);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(watched[i].tokens, alone[i].tokens);
    EXPECT_EQ(watched[i].logp, alone[i].logp);
    EXPECT_TRUE(alone[i].experts.empty());
  }
}

TEST_F(TraceTest, RowsOfTheCacheAreNotKnown) {
  Engine e(*dev, model, DType::kF32, 512, 2048);
  GenerateRequest r = ask(prompt(200, 1), 10);
  expect_plain(r, e.run({r})[0]);
  GenerateResult again = e.run({r})[0];
  EXPECT_GE(again.cached_tokens, 128);
  expect_plain(r, again, static_cast<size_t>(again.cached_tokens));
}

TEST_F(TraceTest, OfDraftsOnlyThoseThatStayAreTold) {
  for (Speculate who : {Speculate::kNgram, Speculate::kMtp}) {
    Engine e(*dev, model, DType::kF32, 512, 2048);
    Ids repeated = prompt(10, 5);
    for (int i = 0; i < 4; ++i)
      repeated.insert(repeated.end(), repeated.begin(), repeated.begin() + 10);
    GenerateRequest r = ask(repeated, 60);
    r.sampling.temperature = 0;
    r.speculate = who;
    r.drafts = 3;
    int64_t accepted = 0, refused = 0;
    r.on_token = [&](const SampledToken& t) {
      accepted += t.draft == 1;
      refused += t.draft == 0;
      return true;
    };
    GenerateResult got = e.run({r})[0];
    EXPECT_EQ(accepted, got.accepted);
    EXPECT_GT(accepted + refused, 0);
    EXPECT_LE(accepted + refused, got.drafted);
    expect_plain(r, got);
  }
}

TEST_F(TraceTest, ADraftThatEndsTheAnswerHasNoRow) {
  Engine e(*dev, model, DType::kF32, 512, 2048);
  Ids repeated(30, 7);
  GenerateRequest r = ask(repeated, 60);
  r.sampling.logit_bias = {{7, 1e6f}};
  r.speculate = Speculate::kNgram;
  r.drafts = 3;
  bool accepted = false;
  r.on_token = [&](const SampledToken& t) {
    accepted = t.draft == 1;
    return !accepted;
  };
  GenerateResult got = e.run({r})[0];
  ASSERT_TRUE(accepted);
  EXPECT_EQ(got.experts.size(), (repeated.size() + got.tokens.size() - 1) * kRow);
  expect_plain(r, got);
}

TEST_F(TraceTest, PreemptedRowsAreToldOnce) {
  Engine e(*dev, model, DType::kF32, 192, 192);
  GenerateRequest brief = ask(prompt(5, 1), 100);  // so answers are expected to be
  brief.reuse = Reuse::kNone;
  brief.on_token = [](const SampledToken&) { return false; };
  e.run({brief});
  std::vector<GenerateRequest> r;
  for (uint64_t i = 0; i < 3; ++i) r.push_back(ask(prompt(60, 10 + i), 100));
  std::vector<GenerateResult> got = e.run(r);
  EXPECT_GT(e.timing().preempted, 0);
  for (size_t i = 0; i < r.size(); ++i) expect_plain(r[i], got[i]);
}

TEST_F(TraceTest, TheRequestSaysWhichRows) {
  Engine e(*dev, model, DType::kF32, 256);
  GenerateRequest r = ask(prompt(100, 1), 20);
  r.trace_from = 90;
  r.trace_rows = 15;
  GenerateResult got = e.run({r})[0];
  ASSERT_EQ(got.experts.size(), 15 * kRow);
  Ids all = r.prompt;
  all.insert(all.end(), got.tokens.begin(), got.tokens.end());
  std::vector<int16_t> want = plain(all);
  EXPECT_TRUE(std::equal(got.experts.begin(), got.experts.end(), want.begin() + 90 * kRow));
}

}  // namespace
}  // namespace wels
