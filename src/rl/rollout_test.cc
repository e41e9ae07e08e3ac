#include "rl/rollout.h"

#include <gmock/gmock.h>

#include <map>

#include "rl/rl_base_test.h"

namespace wels {
namespace {

using RolloutTest = RlTest;

std::vector<std::vector<int32_t>> prompts_of(const RolloutSampler& sampler, int64_t count) {
  TaskMixture tasks{kTestTask};
  std::vector<std::vector<int32_t>> out;
  for (int64_t i = 0; i < count; ++i)
    out.push_back(sampler.prompt(tasks.item(1, i, TaskSplit::kTrain).example.question));
  return out;
}

uint64_t luck(int64_t prompt, int64_t sample) {
  return static_cast<uint64_t>(prompt * 1000 + sample);
}

TEST_F(RolloutTest, PromptsEndWithTheBeginningOfAThought) {
  RolloutSampler sampler(*dev, *start, tokenizer, {.dtype = DType::kF32, .max_tokens = 16});
  EXPECT_EQ(tokenizer.decode(sampler.prompt("parity 01")),
            "<｜begin▁of▁sentence｜><｜User｜>parity 01<｜Assistant｜><think>");
}

TEST_F(RolloutTest, CompletionsEndWithTheEndOfTextOrAtTheLimit) {
  RolloutSampler sampler(*dev, *start, tokenizer, {.dtype = DType::kF32, .max_tokens = 5});
  std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 20);
  std::vector<Rollout> all = sampler.sample({.prompts = prompts, .samples = 4, .seed = luck});
  ASSERT_EQ(all.size(), size_t{80});
  int ended = 0, cut = 0;
  for (const Rollout& r : all) {
    ASSERT_EQ(r.tokens.size(), r.logp.size());
    bool end = r.tokens.back() == *tokenizer.eos();
    EXPECT_EQ(r.ended, end);
    (end ? ended : cut) += 1;
    if (!end) {
      EXPECT_EQ(r.tokens.size(), size_t{5});
    }
    EXPECT_EQ(std::count(r.tokens.begin(), r.tokens.end(), *tokenizer.eos()), end ? 1 : 0);
  }
  EXPECT_GT(ended, 20);
  EXPECT_GT(cut, 3);
}

TEST_F(RolloutTest, WhatIsGivenUpLeavesWhatHadEndedAndTheSamplerAsItWas) {
  constexpr int64_t kNever = int64_t{1} << 40;
  int64_t polls = kNever;  // until it is to stop; every sequence asks before every token
  RolloutSettings settings{.dtype = DType::kF32, .max_tokens = 16};
  settings.stop = [&] { return --polls < 0; };
  RolloutSampler sampler(*dev, *start, tokenizer, settings);
  std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 10);
  std::map<int64_t, std::vector<int32_t>> rescued;
  RolloutSampler::Draw draw{.prompts = prompts, .samples = 4, .seed = luck};
  draw.rescued = [&](int64_t prompt, int64_t sample, const Rollout& r) {
    rescued[prompt * 4 + sample] = r.tokens;
  };
  std::vector<Rollout> whole = sampler.sample(draw);
  EXPECT_TRUE(rescued.empty());
  int64_t all = kNever - polls;
  for (int64_t after : {int64_t{0}, int64_t{5}, int64_t{45}, all - 20}) {
    SCOPED_TRACE(after);
    rescued.clear();
    polls = after;
    EXPECT_THROW(sampler.sample(draw), Interrupted);
    EXPECT_EQ(rescued.empty(), after <= 45);
    EXPECT_LT(rescued.size(), size_t{40});
    for (const auto& [place, tokens] : rescued)
      EXPECT_EQ(tokens, whole[static_cast<size_t>(place)].tokens);
  }
  polls = kNever;
  std::vector<Rollout> again = sampler.sample(draw);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_EQ(again[i].tokens, whole[i].tokens);
    EXPECT_EQ(again[i].logp, whole[i].logp);
  }
}

TEST_F(RolloutTest, APromptIsComputedOnceForAllItsCompletions) {
  RolloutSampler sampler(*dev, *start, tokenizer, {.dtype = DType::kF32, .max_tokens = 8});
  std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 3);
  int64_t rows = static_cast<int64_t>(prompts[0].size());
  sampler.sample({.prompts = prompts, .samples = 10, .seed = luck});
  EXPECT_EQ(sampler.timing().prompt_tokens, 3 * 11 * rows);
  EXPECT_EQ(sampler.timing().cached_tokens, 3 * 10 * (rows - 1));
}

TEST_F(RolloutTest, WhatADrawCountsDependsOnNothingInTheCache) {
  RolloutSampler sampler(*dev, *start, tokenizer, {.dtype = DType::kF32, .max_tokens = 8});
  std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 3);
  int64_t tokens = 3 * static_cast<int64_t>(prompts[0].size());
  RolloutSampler::Draw draw{.prompts = prompts, .samples = 2, .seed = luck};
  for (const Rollout& r : sampler.sample(draw)) tokens += static_cast<int64_t>(r.tokens.size());
  EXPECT_EQ(sampler.drawn_tokens(), tokens);
  sampler.sample(draw);  // with the prompts in the cache
  EXPECT_EQ(sampler.drawn_tokens(), tokens);
}

TEST_F(RolloutTest, ACompletionDependsOnItsSeedAloneNotOnItsSiblings) {
  RolloutSampler sampler(*dev, *start, tokenizer, {.dtype = DType::kF32, .max_tokens = 16});
  std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 4);
  std::vector<Rollout> many = sampler.sample({.prompts = prompts, .samples = 8, .seed = luck});
  std::vector<Rollout> few =
      sampler.sample({.prompts = std::span(prompts).first(2), .samples = 3, .seed = luck});
  for (size_t p = 0; p < 2; ++p) {
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(few[p * 3 + k].tokens, many[p * 8 + k].tokens);
      EXPECT_EQ(few[p * 3 + k].logp, many[p * 8 + k].logp);
    }
  }
}

// `change` changes weights of the model between two calls of one sampler.
template <class Change>
void expect_changes_are_used(Device& dev, Model& model, const Tokenizer& tokenizer,
                             Change&& change) {
  RolloutSampler used(dev, model, tokenizer, {.dtype = DType::kF32, .max_tokens = 16});
  std::vector<std::vector<int32_t>> prompts = prompts_of(used, 4);
  RolloutSampler::Draw draw{.prompts = prompts, .samples = 4, .seed = luck};
  std::vector<Rollout> before = used.sample(draw);
  change();
  std::vector<Rollout> after = used.sample(draw);
  RolloutSampler fresh(dev, model, tokenizer, {.dtype = DType::kF32, .max_tokens = 16});
  std::vector<Rollout> expected = fresh.sample(draw);
  bool moved = false;
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].logp, expected[i].logp);
    moved |= after[i].logp != before[i].logp;
  }
  EXPECT_TRUE(moved);
}

TEST_F(RolloutTest, ChangedWeightsAreUsedAtOnce) {
  expect_changes_are_used(*dev, *policy, tokenizer, [&] {
    for (Weight* w : {&policy->weights().embed, &policy->weights().blocks[0].attention.kv_a}) {
      dev->axpby(0.3f, w->value[0], 1.0f, w->value[0]);
      ++w->version;
    }
  });
}

// In keys and values of earlier tokens too, which the cache would still have.
TEST_F(RolloutTest, ChangedAdaptersAreUsedAtOnce) {
  policy = adapted();
  expect_changes_are_used(*dev, *policy, tokenizer, [&] {
    LowRank& lora = *policy->weights().blocks[0].attention.kv_a.lora;
    for (int64_t i = 0; i < lora.up.size(); ++i)
      lora.up.value[0].row<float>(0)[i] = 0.05f * static_cast<float>(i % 7 - 3);
    ++lora.up.version;
  });
}

// The trainer's log-probabilities of completions, each with what it keeps of the sampler or not.
std::vector<double> trainer_logp(Device& dev, Model& model, const std::vector<int32_t>& prompt,
                                 const Rollout& r, double temperature, bool kept,
                                 std::span<const int16_t> experts) {
  std::vector<TrainSequence> one(1);
  one[0] = {.prompt = prompt, .tokens = r.tokens, .sampled_logp = r.logp};
  if (kept) one[0].kept = r.kept;
  one[0].experts = experts;
  std::vector<size_t> chosen{0};
  PackedSequences packed = pack_sequences(one, chosen, 4096);
  TrainerConfig config;
  config.dtype = DType::kF32;
  config.temperature = temperature;
  Pool pool;
  std::vector<double> out;
  each_sequence_logp(
      packed, one,
      [&](const MicroBatch& mb) { return log_probabilities(dev, pool, model, config, mb); },
      [&](size_t, std::span<const double> logp) { out.assign(logp.begin(), logp.end()); });
  return out;
}

double furthest(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

TEST_F(RolloutTest, FilteredAnswersAreWeighedByThePolicyOverWhatTheFilterLeft) {
  for (RolloutSettings s : {RolloutSettings{.top_p = 0.7}, RolloutSettings{.top_k = 3},
                            RolloutSettings{.min_p = 0.2}}) {
    s.dtype = DType::kF32;
    s.max_tokens = 16;
    RolloutSampler sampler(*dev, *start, tokenizer, s);
    std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 4);
    std::vector<Rollout> all =
        sampler.sample({.prompts = prompts, .samples = 4, .temperature = 1.3, .seed = luck});
    double kept = 0, whole = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const Rollout& r = all[i];
      kept = std::max(
          kept, furthest(trainer_logp(*dev, *start, prompts[i / 4], r, 1.3, true, {}), r.logp));
      whole = std::max(
          whole, furthest(trainer_logp(*dev, *start, prompts[i / 4], r, 1.3, false, {}), r.logp));
    }
    EXPECT_LT(kept, 1e-5);
    EXPECT_GT(whole, 0.01);
  }
}

TEST_F(RolloutTest, RowsGoThroughTheExpertsTheyWereSampledWith) {
  RolloutSettings settings{.dtype = DType::kF32, .max_tokens = 16, .keep_routing = true};
  RolloutSampler sampler(*dev, *start, tokenizer, settings);
  settings.speculate = Speculate::kMtp;  // whose drafts end answers too
  RolloutSampler drafting(*dev, *start, tokenizer, settings);
  std::vector<std::vector<int32_t>> prompts = prompts_of(sampler, 3);
  struct Case {
    RolloutSampler& sampler;
    int64_t samples;
  };
  for (auto [who, samples] : {Case{sampler, 4}, Case{sampler, 1}, Case{drafting, 8}}) {
    std::vector<Rollout> all = who.sample({.prompts = prompts, .samples = samples, .seed = luck});
    for (size_t i = 0; i < all.size(); ++i) {
      const std::vector<int32_t>& prompt = prompts[i / static_cast<size_t>(samples)];
      const Rollout& r = all[i];
      std::vector<int16_t> experts = r.experts;
      ASSERT_EQ(experts.size(),
                (prompt.size() + r.tokens.size() - 1) * 2);  // of one block, two each
      EXPECT_EQ(std::count(experts.begin(), experts.end(), -1), 0);
      std::vector<double> own = trainer_logp(*dev, *start, prompt, r, 1, false, {});
      EXPECT_LT(furthest(trainer_logp(*dev, *start, prompt, r, 1, false, experts), own), 1e-6);
      for (int16_t& e : experts) e = static_cast<int16_t>((e + 1) % 4);
      EXPECT_GT(furthest(trainer_logp(*dev, *start, prompt, r, 1, false, experts), own), 1e-4);
    }
  }
}

}  // namespace
}  // namespace wels
