#include "engine/engine.h"

#include <gmock/gmock.h>

#include <cmath>
#include <numeric>

#include "backend/registry.h"
#include "base/rng.h"
#include "model/tiny_config_test.h"

namespace wels {
namespace {

using Finish = GenerateResult::Finish;
using Ids = std::vector<int32_t>;

ModelConfig config(int64_t vocab) {
  ModelConfig c = tiny_moe_config(vocab);
  c.num_nextn_predict_layers = 1;
  return c;
}

Ids random_ids(int64_t n, uint64_t seed, uint64_t vocab = 50) {
  Rng rng(seed);
  Ids out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(rng.below(vocab)));
  return out;
}

GenerateRequest ask(Ids prompt, int64_t tokens) {
  GenerateRequest r;
  r.prompt = std::move(prompt);
  r.max_new_tokens = tokens;
  r.sampling.temperature = 1;
  r.sampling.top_p = 1;
  return r;
}

// So that more is let in than has room to its end.
void expect_brief_answers(Engine& e) {
  GenerateRequest brief = ask({1, 2, 3}, 100);
  brief.on_token = [](const SampledToken&) { return false; };
  e.run({brief});
}

struct EngineTest : testing::Test {
  explicit EngineTest(int64_t vocab = 50) : model(config(vocab)) {
    model.init(DType::kF32, 3, false);
  }
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model;
};

// --- bad input ---

TEST_F(EngineTest, ABadRequestIsRefusedAndTheOthersRunOn) {
  Engine e(*dev, model, DType::kF32, 64);
  std::vector<GenerateResult> done;
  GenerateRequest good = ask(random_ids(9, 1), 5);
  good.on_finish = [&](GenerateResult r) { done.push_back(std::move(r)); };
  e.submit(good);
  e.step();
  EXPECT_THROW(e.submit(ask({}, 5)), Error);
  EXPECT_THROW(e.submit(ask({1, 50}, 5)), Error);
  EXPECT_THROW(e.submit(ask({-1}, 5)), Error);
  EXPECT_THROW(e.submit(ask(random_ids(64, 2), 5)), Error);
  GenerateRequest hot = ask({1}, 5);
  hot.sampling.temperature = -1;
  EXPECT_THROW(e.submit(hot), Error);
  EXPECT_THROW(e.run({good, ask({}, 5)}), Error);  // none of them is begun
  while (e.step()) {
  }
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].tokens.size(), 5u);
}

TEST_F(EngineTest, LogitsThatAreNoNumbersEndTheirRequestAlone) {
  // The embedding of token 7 is damaged; its pages serve others afterwards.
  Ids clean = random_ids(70, 4, 7), bad = clean;
  bad[30] = 7;
  GenerateRequest never_seven = ask(clean, 8);
  never_seven.sampling.logit_bias[7] = -100;
  GenerateResult want = Engine(*dev, model, DType::kF32, 128).run({never_seven})[0];
  const Tensor& embed = model.weights().embed.value[0];
  for (int64_t c = 0; c < embed.cols; ++c) embed.row<float>(7)[c] = NAN;
  ++model.weights().embed.version;
  Engine e(*dev, model, DType::kF32, 128, 256);
  std::vector<GenerateResult> results(3);
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < 3; ++i) {
      GenerateRequest r = never_seven;
      if (i == 1) r.prompt = bad;
      r.on_finish = [&results, i](GenerateResult got) { results[i] = std::move(got); };
      e.submit(r);
    }
    while (e.step()) {
    }
    EXPECT_EQ(results[1].finish, Finish::kError);
    EXPECT_THAT(results[1].error->what(), testing::HasSubstr("damaged"));
    EXPECT_FALSE(results[0].error || results[2].error);
    EXPECT_EQ(results[0].tokens, want.tokens);
    EXPECT_EQ(results[2].tokens, want.tokens);
  }
}

TEST_F(EngineTest, ACallbackThatThrowsEndsItsRequestAlone) {
  Engine e(*dev, model, DType::kF32, 128);
  std::vector<GenerateResult> done(2);
  for (size_t i = 0; i < 2; ++i) {
    GenerateRequest r = ask({1, 2, 3}, 6);
    if (i == 0) r.on_token = [](const SampledToken&) -> bool { throw std::runtime_error("gone"); };
    r.on_finish = [&done, i](GenerateResult got) { done[i] = std::move(got); };
    e.submit(r);
  }
  while (e.step()) {
  }
  EXPECT_THAT(done[0].error->what(), testing::HasSubstr("gone"));
  EXPECT_EQ(done[1].tokens.size(), 6u);
}

TEST_F(EngineTest, WhatThrowsBetweenTwoStepsEndsItsRequestAlone) {
  Engine e(*dev, model, DType::kF32, 128);
  std::vector<GenerateResult> done(3);
  int asked = 0;
  for (size_t i = 0; i < 3; ++i) {
    GenerateRequest r = ask({1, 2, 3}, 6);
    if (i == 0) {
      r.cancelled = [&]() -> bool {
        if (++asked < 3) return false;
        throw std::runtime_error("gone");
      };
    }
    r.on_finish = [&done, i](GenerateResult got) {
      done[i] = std::move(got);
      if (i == 1) throw std::runtime_error("nobody hears this");
    };
    e.submit(r);
  }
  while (e.step()) {
  }
  EXPECT_THAT(done[0].error->what(), testing::HasSubstr("gone"));
  EXPECT_LT(done[0].tokens.size(), 6u);
  EXPECT_EQ(done[1].tokens.size(), 6u);
  EXPECT_EQ(done[2].tokens.size(), 6u);
  EXPECT_EQ(e.available_tokens(), Engine(*dev, model, DType::kF32, 128).available_tokens());
}

// --- ends ---

TEST_F(EngineTest, ARequestEndsByStopTokenLengthContextOrCancellation) {
  Engine e(*dev, model, DType::kF32, 40);
  GenerateRequest r = ask(random_ids(10, 1), 100);
  GenerateResult full = e.run({r})[0];
  EXPECT_EQ(full.finish, Finish::kContext);
  EXPECT_EQ(full.tokens.size(), 30u);
  r.max_new_tokens = 4;
  EXPECT_EQ(e.run({r})[0].finish, Finish::kLength);
  r.stop_ids = {full.tokens[2]};
  GenerateResult stopped = e.run({r})[0];
  EXPECT_EQ(stopped.finish, Finish::kStop);
  EXPECT_LE(stopped.tokens.size(), 2u);
  r.min_new_tokens = 4;
  GenerateResult longer = e.run({r})[0];
  EXPECT_EQ(longer.finish, Finish::kLength);
  EXPECT_THAT(longer.tokens, testing::Not(testing::Contains(full.tokens[2])));
  r.on_token = [](const SampledToken&) { return false; };
  GenerateResult one = e.run({r})[0];
  EXPECT_EQ(one.finish, Finish::kCancelled);
  EXPECT_EQ(one.tokens.size(), 1u);
  r.max_new_tokens = 0;
  EXPECT_EQ(e.run({r})[0].finish, Finish::kLength);
}

TEST_F(EngineTest, APromptBeyondTheContextLosesItsBeginningWhereThatIsAskedFor) {
  Engine e(*dev, model, DType::kF32, 40);
  Ids prompt = random_ids(90, 6);
  GenerateRequest r = ask(prompt, 8);
  r.overflow = Overflow::kTruncateLeft;
  GenerateResult got = e.run({r})[0];
  EXPECT_EQ(got.prompt_tokens, 32);
  EXPECT_EQ(got.tokens, e.run({ask(Ids(prompt.end() - 32, prompt.end()), 8)})[0].tokens);
  r.max_new_tokens = 1000;
  EXPECT_EQ(e.run({r})[0].prompt_tokens, 20);
  ModelConfig named = model.config();
  named.bos_token_id = prompt[0];
  Model with_bos(named);
  with_bos.init(DType::kF32, 7, false);
  Engine f(*dev, with_bos, DType::kF32, 40);
  r.max_new_tokens = 8;
  Ids kept(prompt.end() - 32, prompt.end());
  kept[0] = prompt[0];
  EXPECT_EQ(f.run({r})[0].tokens, f.run({ask(kept, 8)})[0].tokens) << "its bos stays";
}

TEST_F(EngineTest, CancellingAtAnyStepFreesThePages) {
  GenerateRequest r = ask(random_ids(200, 2), 6);
  r.speculate = Speculate::kMtp;
  r.drafts = 2;
  for (int steps = 0; steps < 9; ++steps) {
    Engine e(*dev, model, DType::kF32, 256);
    int64_t all = e.available_tokens();
    Finish how = Finish::kError;
    r.on_finish = [&](GenerateResult got) { how = got.finish; };
    int64_t id = e.submit(r);
    for (int i = 0; i < steps; ++i) e.step();
    e.cancel(id);
    while (e.step()) {
    }
    EXPECT_NE(how, Finish::kError);
    EXPECT_EQ(e.available_tokens(), all);
    e.cancel(id);  // long gone: nothing
  }
}

TEST_F(EngineTest, CallbacksMaySubmitAndCancel) {
  Engine e(*dev, model, DType::kF32, 128);
  std::vector<Finish> ends;
  int64_t other = 0;
  GenerateRequest victim = ask({4, 5}, 50), second = ask({6}, 2), first = ask({1, 2}, 3);
  victim.on_finish = second.on_finish = [&](GenerateResult r) { ends.push_back(r.finish); };
  first.on_token = [&](const SampledToken&) {
    e.cancel(other);
    return true;
  };
  first.on_finish = [&](GenerateResult) { e.submit(second); };
  other = e.submit(victim);
  e.submit(first);
  while (e.step()) {
  }
  EXPECT_THAT(ends, testing::ElementsAre(Finish::kCancelled, Finish::kLength));
}

// --- masks ---

TEST_F(EngineTest, AMaskDecidesEveryTokenAndSpeculationKeepsToIt) {
  // A grammar of period five; the n-grams of the answer soon know it, so most drafts are right.
  for (Speculate who : {Speculate::kNone, Speculate::kNgram, Speculate::kMtp}) {
    Engine e(*dev, model, DType::kF32, 256);
    std::vector<uint64_t> word(1);
    GenerateRequest r = ask({9}, 60);
    r.speculate = who;
    r.drafts = 4;
    r.mask = [&](std::span<const int32_t> answer) {
      word[0] = uint64_t{1} << (20 + answer.size() % 5);
      return std::span<const uint64_t>(word);
    };
    GenerateResult got = e.run({r})[0];
    ASSERT_EQ(got.tokens.size(), 60u);
    for (size_t i = 0; i < 60; ++i) EXPECT_EQ(got.tokens[i], 20 + static_cast<int32_t>(i % 5));
    if (who == Speculate::kNgram) {
      EXPECT_GT(got.accepted, 35);
    }
    r.mask = [&](std::span<const int32_t>) {
      word[0] = 0;
      return std::span<const uint64_t>(word);
    };
    EXPECT_THROW(e.run({r}), Error);
  }
}

// --- many ---

TEST_F(EngineTest, AnswersGetATokenInEveryStepWhileALongPromptIsRead) {
  Engine e(*dev, model, DType::kF32, 2048);
  int tokens = 0;
  GenerateRequest stream = ask({1, 2, 3}, 30), prompt = ask(random_ids(1500, 3), 1);
  stream.on_token = [&](const SampledToken&) { return ++tokens > 0; };
  e.submit(stream);
  e.step();
  e.submit(prompt);
  for (int i = 1; i <= 10; ++i) {
    EXPECT_EQ(tokens, i);
    e.step();
  }
  EXPECT_EQ(e.running(), 2);
}

TEST_F(EngineTest, ScopesTakeTurnsHoweverManyRequestsOneOfThemHas) {
  Engine e(*dev, model, DType::kF32, 1024, 2048);
  int done_a = 0, before_b = -1;
  for (uint64_t i = 0; i < 12; ++i) {
    GenerateRequest r = ask(random_ids(900, 10 + i), 4);
    r.scope = "a";
    r.on_finish = [&](GenerateResult) { ++done_a; };
    e.submit(r);
  }
  GenerateRequest r = ask(random_ids(300, 5), 4);
  r.scope = "b";
  r.on_finish = [&](GenerateResult) { before_b = done_a; };
  e.submit(r);
  while (e.step()) {
  }
  EXPECT_EQ(done_a, 12);
  EXPECT_LE(before_b, 2);
}

// Room for three of them to their ends; prompts alone would let in nine.
TEST_F(EngineTest, WhoIsLetInHasRoomToItsEnd) {
  Engine e(*dev, model, DType::kF32, 256, 3 * 256);
  std::vector<GenerateRequest> requests;
  for (uint64_t i = 0; i < 12; ++i) requests.push_back(ask(random_ids(70, 50 + i), 150));
  std::vector<int> began;
  int64_t most = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_token = [&, i, first = true](const SampledToken&) mutable {
      if (first) began.push_back(static_cast<int>(i));
      first = false;
      most = std::max(most, e.running());
      return true;
    };
  }
  for (const GenerateResult& r : e.run(requests)) EXPECT_EQ(r.tokens.size(), 150u);
  EXPECT_EQ(e.timing().preempted, 0);
  EXPECT_EQ(most, 3);
  EXPECT_TRUE(std::is_sorted(began.begin(), began.end())) << "first come, first served";
}

TEST_F(EngineTest, AnswersThatEndEarlyLeaveRoomForMoreAtATime) {
  Engine e(*dev, model, DType::kF32, 256, 3 * 256);
  std::vector<GenerateRequest> requests;
  int64_t most = 0;
  for (uint64_t i = 0; i < 40; ++i) {
    requests.push_back(ask(random_ids(20, 50 + i), 200));
    requests.back().on_token = [&, n = 0](const SampledToken&) mutable {
      most = std::max(most, e.running());
      return ++n < 30;
    };
  }
  e.run(requests);
  EXPECT_GE(most, 9) << "a page each, of twelve";
  EXPECT_EQ(e.timing().preempted, 0);
}

// A long one is not passed by shorter ones for ever.
TEST_F(EngineTest, WhoNeedsTheWholeCacheGetsItsTurn) {
  Engine e(*dev, model, DType::kF32, 512, 512);
  bool done = false;
  int submitted = 0, after = 0;
  std::function<void()> next = [&] {
    GenerateRequest r = ask(random_ids(10, static_cast<uint64_t>(submitted)), 40);
    r.on_finish = [&](GenerateResult) {
      if (++submitted < 60) next();
      after += done;
    };
    e.submit(std::move(r));
  };
  for (int i = 0; i < 4; ++i) next();
  e.step();
  GenerateRequest big = ask(random_ids(100, 99), 400);
  big.on_finish = [&](GenerateResult r) { done = r.tokens.size() == 400; };
  e.submit(std::move(big));
  while (e.step()) {
  }
  EXPECT_TRUE(done);
  EXPECT_GT(after, 30);
}

TEST_F(EngineTest, RequestsWithOnePromptComputeItOnce) {
  Engine e(*dev, model, DType::kF32, 512, 8192);
  std::vector<GenerateRequest> rollouts;
  for (uint64_t i = 0; i < 16; ++i) {
    rollouts.push_back(ask(random_ids(200, 1), 4));
    rollouts.back().sampling.seed = i;
    rollouts.back().reuse = Reuse::kExact;
  }
  GenerateTiming t;
  e.run(rollouts, &t);
  EXPECT_EQ(t.prompt_tokens, 16 * 200);
  EXPECT_EQ(t.cached_tokens, 15 * 192);
}

// In the latent form an answer's rows have other bits than a prompt's.
TEST_F(EngineTest, ExpandedRowsHaveTheSameBitsInAPromptAndInAnAnswer) {
  CacheOptions cache{.tokens = 2048, .rows = MlaRows::kExpanded};
  Engine e(*dev, model, DType::kF32, 512, cache);
  GenerateRequest first = ask(random_ids(70, 1), 90);
  GenerateRequest second = first;
  Ids answer = e.run({first})[0].tokens, more = random_ids(10, 2);
  second.prompt.insert(second.prompt.end(), answer.begin(), answer.end());
  second.prompt.insert(second.prompt.end(), more.begin(), more.end());
  second.reuse = Reuse::kExact;
  GenerateTiming t;
  GenerateResult got = e.run({second}, &t)[0];
  EXPECT_EQ(t.cached_tokens, 159);  // all but the answer's last, which was not in the model
  second.reuse = Reuse::kNone;
  GenerateResult want = Engine(*dev, model, DType::kF32, 512, cache).run({second})[0];
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_EQ(got.logp, want.logp);
}

TEST_F(EngineTest, TheCacheIsNotSharedBetweenScopes) {
  Engine e(*dev, model, DType::kF32, 512, 2048);
  GenerateRequest r = ask(random_ids(200, 1), 4);
  r.scope = "a";
  e.run({r});
  EXPECT_EQ(e.run({r})[0].cached_tokens, 199);
  r.scope = "b";
  EXPECT_EQ(e.run({r})[0].cached_tokens, 0);
}

// --- speculation ---

TEST_F(EngineTest, SpeculationChangesNoBitOfTheTextAtAnyTemperature) {
  for (double temperature : {0.0, 0.7, 1.0}) {
    GenerateRequest r = ask(random_ids(30, 1), 80);
    r.sampling.temperature = temperature;
    r.sampling.top_k = 20;
    r.sampling.repetition_penalty = 1.1;
    r.reuse = Reuse::kNone;
    Engine e(*dev, model, DType::kF32, 512);
    GenerateResult want = e.run({r})[0];
    for (Speculate who : {Speculate::kMtp, Speculate::kNgram}) {
      for (int64_t drafts : {0, 1, 3, 7}) {
        r.speculate = who;
        r.drafts = drafts;
        GenerateResult got = e.run({r})[0];
        EXPECT_EQ(got.tokens, want.tokens);
        EXPECT_EQ(got.logp, want.logp);
        if (who == Speculate::kMtp && drafts > 0) {
          EXPECT_GT(got.drafted, 30);
        }
      }
    }
  }
}

// --- caches of other types ---

TEST_F(EngineTest, ACacheOfAnotherTypeHasTheSameBitsHoweverItsRowsWereComputed) {
  std::vector<GenerateRequest> requests;
  for (uint64_t i = 0; i < 4; ++i) {
    requests.push_back(ask(random_ids(150, 1), 80));
    requests.back().prompt.push_back(static_cast<int32_t>(i / 2));  // 0 and 1 are twins
    requests.back().sampling.seed = i / 2;
  }
  GenerateResult in_f32 = Engine(*dev, model, DType::kF32, 256).run({requests[0]})[0];
  for (DType type : {DType::kQ8_0, DType::kBF16}) {
    CacheOptions cache{.tokens = 0, .dtype = type};
    auto run = [&](const GenerateRequest& r) {
      return Engine(*dev, model, DType::kF32, 256, cache).run({r})[0];
    };
    std::vector<GenerateResult> alone;
    for (GenerateRequest r : requests) {
      r.reuse = Reuse::kNone;
      alone.push_back(run(r));
    }
    EXPECT_EQ(alone[0].logp, alone[1].logp);
    EXPECT_NE(alone[0].logp, in_f32.logp) << "the cache is f32";
    EXPECT_NEAR(alone[0].logp[0], in_f32.logp[0], 0.1);
    int64_t preempted = 0;
    // In company, from the prefix cache, with forks that copy a page, evicted and computed again.
    for (Speculate who : {Speculate::kNone, Speculate::kNgram, Speculate::kMtp}) {
      for (GenerateRequest& r : requests) {
        r.reuse = Reuse::kExact;
        r.speculate = who;
        r.drafts = who == Speculate::kNone ? 0 : 3;
      }
      for (int64_t tokens : {256, 2048}) {
        cache.tokens = tokens;
        Engine e(*dev, model, DType::kF32, 256, cache);
        expect_brief_answers(e);
        GenerateTiming t;
        std::vector<GenerateResult> got = e.run(requests, &t);
        for (size_t i = 0; i < 4; ++i) {
          EXPECT_EQ(got[i].tokens, alone[i].tokens);
          EXPECT_EQ(got[i].logp, alone[i].logp);
        }
        preempted += t.preempted;
        EXPECT_GE(e.run({requests[0]})[0].cached_tokens, 128);
      }
    }
    EXPECT_GT(preempted, 0);
  }
}

struct SmallVocabulary : EngineTest {
  SmallVocabulary() : EngineTest(6) {}
  // The model's own probabilities of what follows.
  std::vector<double> next(const Ids& text) {
    Pool pool;
    Ctx ctx{.dev = *dev, .pool = pool, .tape = nullptr, .dtype = DType::kF32};
    Batch b;
    b.append(text);
    Var h = model.hidden(ctx, b, {});
    Var z = model.logits(ctx, select_rows(ctx, h, {static_cast<int32_t>(text.size()) - 1}));
    std::vector<double> p;
    for (int i = 0; i < 6; ++i) p.push_back(std::exp(static_cast<double>(z.t.row<float>(0)[i])));
    double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
  }
};

TEST_F(SmallVocabulary, SpeculatedTextsHaveTheModelsDistribution) {
  // Tokens 2 and 3 of answers, of which 3 is always and 2 often drafted, given that token 1 is what
  // a bias makes it: chi-square of 6,000 texts against the 36 exact probabilities.
  Ids prompt{0, 1, 2, 3, 0, 1, 2};
  std::vector<double> want;
  std::vector<double> first = next(prompt);
  for (int32_t a = 0; a < 6; ++a) {
    Ids text = prompt;
    text.push_back(a);
    std::vector<double> second = next(text);
    for (size_t b = 0; b < 6; ++b) want.push_back(first[static_cast<size_t>(a)] * second[b]);
  }
  for (Speculate who : {Speculate::kMtp, Speculate::kNgram}) {
    Engine e(*dev, model, DType::kF32, 64, 1 << 14);
    std::vector<double> count(36);
    std::vector<GenerateRequest> requests;
    for (uint64_t i = 0; i < 6000; ++i) {
      GenerateRequest r = ask(prompt, 3);
      r.sampling.seed = i;
      r.speculate = who;
      r.drafts = 2;
      requests.push_back(r);
    }
    GenerateTiming t;
    for (const GenerateResult& r : e.run(requests, &t))
      ++count[static_cast<size_t>(r.tokens[0] * 6 + r.tokens[1])];
    EXPECT_GT(t.drafted, 1000);
    EXPECT_GT(t.accepted, 100);
    double chi = 0;
    for (size_t i = 0; i < 36; ++i)
      chi += (count[i] - 6000 * want[i]) * (count[i] - 6000 * want[i]) / (6000 * want[i]);
    EXPECT_LT(chi, 66.6) << "99.9 % of chi-square with 35 degrees of freedom";
  }
}

// --- what a request wants to know of its prompt ---

TEST_F(EngineTest, APromptsLogProbabilitiesAreThoseOfDrawingIt) {
  // Longer than a step's rows beside others, so that it comes in pieces; a second one computes
  // pages for the cache first, which may not be used.
  Ids prompt = random_ids(300, 9);
  Engine e(*dev, model, DType::kF32, 512, 2048);
  e.run({ask(prompt, 1)});
  GenerateRequest r = ask(prompt, 2);
  r.prompt_logprobs = 3;
  GenerateResult got = e.run({ask(random_ids(40, 10), 30), r})[1];
  ASSERT_EQ(got.prompt_logp.size(), prompt.size() - 1);
  EXPECT_EQ(got.cached_tokens, 0);
  for (size_t i : {size_t{1}, size_t{64}, size_t{128}, size_t{299}}) {
    GenerateRequest next = ask(Ids(prompt.begin(), prompt.begin() + static_cast<long>(i)), 1);
    next.sampling.top_logprobs = 3;
    next.sampling.logit_bias[prompt[i]] = 1e6f;
    SampledToken drawn;
    next.on_token = [&](const SampledToken& t) {
      drawn = t;
      return true;
    };
    e.run({next});
    EXPECT_EQ(got.prompt_logp[i - 1].id, prompt[i]);
    EXPECT_NEAR(got.prompt_logp[i - 1].plain_logp, drawn.plain_logp, 1e-4) << i;
    ASSERT_EQ(got.prompt_logp[i - 1].top.size(), 3u);
    EXPECT_EQ(got.prompt_logp[i - 1].top[0].first, drawn.top[0].first);
  }
}

TEST_F(EngineTest, TheMeanHiddenStateIsThatOfOneForwardPass) {
  Ids prompt = random_ids(150, 11);
  GenerateRequest r = ask(prompt, 0);
  r.mean_hidden = true;
  Engine e(*dev, model, DType::kF32, 512, 2048);
  std::vector<GenerateResult> got = e.run({ask(random_ids(40, 12), 10), r});
  EXPECT_TRUE(got[1].tokens.empty());
  Pool pool;
  Ctx ctx{.dev = *dev, .pool = pool, .tape = nullptr, .dtype = DType::kF32};
  Batch batch;
  batch.append(prompt, 0, -1);
  Var hidden = model.hidden(ctx, batch, {});
  std::vector<float> host(static_cast<size_t>(hidden.t.rows * hidden.t.cols));
  dev->download(hidden.t, host.data());
  size_t d = static_cast<size_t>(hidden.t.cols);
  ASSERT_EQ(got[1].mean_hidden.size(), d);
  for (size_t c = 0; c < d; ++c) {
    double sum = 0;
    for (size_t i = 0; i < prompt.size(); ++i) sum += static_cast<double>(host[i * d + c]);
    EXPECT_NEAR(static_cast<double>(got[1].mean_hidden[c]), sum / 150, 1e-5);
  }
}

}  // namespace
}  // namespace wels
