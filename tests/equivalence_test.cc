// The equivalences that keep one model one, over models of every kind and every device: with tape
// == without; expanded == absorbed MLA; chunked == whole; alone == in company; the engine's
// log-probabilities == the trainer's. (Every op == ref is tests/ops.)
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/registry.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "tests/golden.h"
#include "train/presets.h"
#include "train/trainer.h"

namespace wels {
namespace {

ModelConfig small_config(const std::string& kind) {
  ModelConfig c = preset("nano").model;
  c.hidden_size = 48;
  c.num_hidden_layers = 3;
  c.vocab_size = 97;
  c.initializer_range = 0.2;
  c.intermediate_size = 72;
  if (kind == "gqa") {
    c.architecture = Architecture::kQwen2;
    c.attention = AttentionKind::kGqa;
    c.num_attention_heads = 6;
    c.num_key_value_heads = 2;
    c.head_dim = 8;
    c.attention_bias = true;
    c.n_routed_experts = c.n_shared_experts = c.num_experts_per_tok = c.moe_intermediate_size = 0;
    c.num_nextn_predict_layers = 0;
    return c;
  }
  c.num_attention_heads = c.num_key_value_heads = 3;
  c.q_lora_rank = kind == "v2" ? 0 : 20;
  c.kv_lora_rank = 24;
  c.qk_nope_head_dim = 12;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 10;
  c.moe_intermediate_size = 20;
  c.n_routed_experts = 12;
  c.num_experts_per_tok = 3;
  c.n_group = 4;
  c.topk_group = 2;
  c.num_nextn_predict_layers = 2;
  if (kind == "v2") {
    c.architecture = Architecture::kDeepseekV2;
    c.scoring_func = ScoringFunc::kSoftmax;
    c.topk_method = TopkMethod::kGroupLimitedGreedy;
    c.norm_topk_prob = false;
    c.routed_scaling_factor = 2;
    c.num_nextn_predict_layers = 0;
  }
  return c;
}

std::vector<int32_t> random_ids(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(rng.below(97)));
  return out;
}

using Param = std::tuple<std::string, std::string, DType>;  // model, device, T

class Equivalence : public testing::TestWithParam<Param> {
 protected:
  void SetUp() override {
    dtype_ = std::get<2>(GetParam());
    dev_ = make_device(std::get<1>(GetParam()));
    model_ = std::make_unique<Model>(small_config(std::get<0>(GetParam())));
    model_->init(dtype_ == DType::kF64 ? DType::kF64 : DType::kF32, 5, true);
  }
  Ctx ctx(Tape* tape = nullptr) {
    return {.dev = *dev_, .pool = pool_, .tape = tape, .dtype = dtype_};
  }

  // Logits over the cache, fed in pieces of the given sizes.
  std::vector<double> cached(const std::vector<int32_t>& ids, int64_t chunk, MlaForm form,
                             MlaRows rows = MlaRows::kLatent) {
    KvCache kv(model_->config(), dtype_, static_cast<int64_t>(ids.size()), rows);
    int32_t s = kv.add_sequence();
    Ctx c = ctx();
    std::vector<double> out;
    for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(chunk)) {
      Batch b;
      b.append(std::span(ids).subspan(at, std::min(static_cast<size_t>(chunk), ids.size() - at)),
               static_cast<int64_t>(at), s);
      b.segments[0].mla = form;
      ForwardOptions o;
      o.kv = &kv;
      std::vector<double> z = values(model_->logits(c, model_->hidden(c, b, o)).t);
      out.insert(out.end(), z.begin(), z.end());
    }
    return out;
  }
  double bound() const {
    return dtype_ == DType::kF64 ? 1e-10 : dtype_ == DType::kF32 ? 1e-4 : 5e-2;
  }

  Pool pool_;
  std::unique_ptr<Device> dev_;
  std::unique_ptr<Model> model_;
  DType dtype_ = DType::kF32;
};

TEST_P(Equivalence, ForwardWithATapeIsForwardWithoutBitForBit) {
  Batch b;
  b.append(random_ids(33, 1));
  b.append(random_ids(7, 2));
  Tape tape(*dev_, pool_);
  Ctx with = ctx(&tape), without = ctx();
  EXPECT_EQ(values(model_->hidden(with, b, {}).t), values(model_->hidden(without, b, {}).t));
}

TEST_P(Equivalence, RecomputedBlocksGiveTheSameGradientsBitForBit) {
  if (std::get<1>(GetParam()) == "ref") GTEST_SKIP() << "as ref:double";
  MicroBatch mb;
  mb.batch.append(random_ids(40, 3));
  for (int32_t id : random_ids(40, 4)) mb.targets.push_back(id);
  std::vector<MicroBatch> batch{mb};
  std::vector<std::vector<double>> grads[2];
  for (int i = 0; i < 2; ++i) {
    TrainerConfig config;
    config.dtype = dtype_;
    config.recompute = i == 1;
    Trainer trainer(*dev_, *model_, config);
    trainer.gradients(batch,
                      pretrain_objective(
                          batch, static_cast<int>(model_->config().num_nextn_predict_layers), 0.3));
    visit_weights(model_->config(), model_->weights(), [&](Weight& w, const WeightSpec&) {
      for (const Tensor& g : w.grad) grads[i].push_back(values(g));
    });
  }
  EXPECT_EQ(grads[0], grads[1]);
}

TEST_P(Equivalence, AGradientKnownBeforehandGivesTheSameLossBitForBitAndTheSameGradients) {
  MicroBatch mb;
  mb.batch.append(random_ids(40, 3));
  for (int32_t id : random_ids(40, 4)) mb.targets.push_back(id % 4 == 1 ? -1 : id);
  std::vector<MicroBatch> batch{mb};
  Objective objective =
      pretrain_objective(batch, static_cast<int>(model_->config().num_nextn_predict_layers), 0.3);
  TrainerConfig config;
  config.dtype = dtype_;
  Trainer trainer(*dev_, *model_, config);
  std::vector<double> loss[2];
  std::vector<std::vector<double>> grads[2];
  for (int i = 0; i < 2; ++i) {
    loss[i] = trainer.gradients(batch, objective).loss;
    visit_weights(model_->config(), model_->weights(), [&](Weight& w, const WeightSpec&) {
      for (const Tensor& g : w.grad) grads[i].push_back(values(g));
    });
    objective.known_dlogp = nullptr;
  }
  EXPECT_EQ(loss[0], loss[1]);
  ASSERT_EQ(grads[0].size(), grads[1].size());
  for (size_t i = 0; i < grads[0].size(); ++i) {
    double largest = 0;
    for (double g : grads[1][i]) largest = std::max(largest, std::fabs(g));
    EXPECT_LE(max_difference(grads[0][i], grads[1][i]), bound() * largest) << "gradient " << i;
  }
}

TEST_P(Equivalence, PrefillInChunksAndTokenByTokenInEveryFormOfMlaGivesTheSameLogits) {
  std::vector<int32_t> ids = random_ids(70, 6);
  std::vector<double> whole = cached(ids, 70, MlaForm::kExpanded);
  double scale = standard_deviation(whole);
  for (MlaForm form : {MlaForm::kByCost, MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    for (int64_t chunk : {1, 9, 64, 70}) {
      std::vector<double> got = cached(ids, chunk, form);
      if (dtype_ != DType::kBF16) {
        EXPECT_LE(max_difference(got, whole), bound() * std::max(scale, 1.0)) << "chunk " << chunk;
        continue;
      }
      // bf16: an expert choice may flip where two scores are nearly equal; the typical row must
      // agree.
      std::vector<double> rows;
      for (size_t r = 0; r < ids.size(); ++r) {
        double sum = 0;
        for (size_t v = r * 97; v < (r + 1) * 97; ++v)
          sum += (got[v] - whole[v]) * (got[v] - whole[v]) / 97;
        rows.push_back(std::sqrt(sum));
      }
      std::nth_element(rows.begin(), rows.begin() + 35, rows.end());
      EXPECT_LE(rows[35], bound() * scale) << "chunk " << chunk;
    }
  }
}

TEST_P(Equivalence, OverExpandedRowsEveryTokenHasTheBitsOfTraining) {
  std::vector<int32_t> ids = random_ids(70, 6);
  Batch b;
  b.append(ids);
  Ctx c = ctx();
  std::vector<double> whole = values(model_->logits(c, model_->hidden(c, b, {})).t);
  for (int64_t chunk : {1, 9, 64, 70})
    EXPECT_EQ(cached(ids, chunk, MlaForm::kByCost, MlaRows::kExpanded), whole) << "chunk " << chunk;
}

TEST_P(Equivalence, ARowDoesNotDependOnItsCompanyBitForBit) {
  std::vector<int32_t> ids = random_ids(21, 8);
  Batch alone, company;
  alone.append(ids);
  company.append(random_ids(50, 9));
  company.append(ids);
  company.append(random_ids(3, 10));
  Ctx c = ctx();
  std::vector<double> one = values(model_->hidden(c, alone, {}).t);
  std::vector<double> all = values(model_->hidden(c, company, {}).t);
  size_t d = static_cast<size_t>(model_->config().hidden_size);
  EXPECT_EQ(one, std::vector<double>(all.begin() + static_cast<long>(50 * d),
                                     all.begin() + static_cast<long>(71 * d)));
}

TEST_P(Equivalence,
       GeneratedTokensDoNotDependOnWhoElseIsServedAndTheTrainerFindsTheirLogProbabilities) {
  auto request = [&](uint64_t seed, int64_t length) {
    GenerateRequest r;
    r.prompt = random_ids(length, seed);
    r.max_new_tokens = 12;
    r.sampling.temperature = 1;
    r.sampling.top_p = 1;
    r.sampling.seed = seed;
    r.reuse = Reuse::kExact;
    return r;
  };
  for (MlaRows rows : {MlaRows::kLatent, MlaRows::kExpanded}) {
    Engine engine(*dev_, *model_, dtype_, 1024, CacheOptions{.rows = rows});
    std::vector<GenerateRequest> single{request(11, 9)};
    GenerateResult alone = engine.run(single)[0];
    GenerateResult company = engine.run({request(12, 40), request(11, 9), request(13, 2)})[1];
    EXPECT_EQ(alone.tokens, company.tokens);
    EXPECT_EQ(alone.logp, company.logp);
    if (rows == MlaRows::kLatent && dtype_ == DType::kBF16)
      continue;  // sampler-trainer mismatch in bf16 is reported by runs, not bounded here
    TrainerConfig config;
    config.dtype = dtype_;
    Trainer trainer(*dev_, *model_, config);
    std::vector<int32_t> ids = single[0].prompt;
    ids.insert(ids.end(), alone.tokens.begin(), alone.tokens.end());
    MicroBatch mb;
    mb.batch.append(std::span(ids).first(ids.size() - 1));
    mb.targets.assign(ids.begin() + 1, ids.end());
    std::vector<double> logp = trainer.log_probabilities(mb);
    logp.erase(logp.begin(), logp.end() - static_cast<long>(alone.tokens.size()));
    // Over expanded rows the heads' rounding alone is left.
    double bound = rows == MlaRows::kExpanded ? 5e-6 : dtype_ == DType::kF64 ? 1e-5 : 1e-4;
    EXPECT_LE(max_difference(logp, alone.logp), bound);
  }
}

TEST_P(Equivalence, AConversationInTheCacheIsTheOneFromScratch) {
  // Four turns: two that extend what is cached, one that takes back the middle of it (thinking that
  // is dropped), one that repeats the second.
  Engine engine(*dev_, *model_, dtype_, 512);
  std::vector<int32_t> last;
  auto turn = [&](std::vector<int32_t> prompt, int64_t cached) {
    GenerateRequest kept;
    kept.prompt = prompt;
    kept.max_new_tokens = 9;
    kept.sampling.temperature = 1;
    kept.sampling.top_p = 1;
    kept.sampling.seed = prompt.size();
    GenerateRequest scratch = kept;
    scratch.reuse = Reuse::kNone;
    GenerateTiming timing;
    GenerateResult got = engine.run({kept}, &timing)[0], want = engine.run({scratch})[0];
    EXPECT_EQ(timing.cached_tokens, cached);
    last = got.tokens;
    if (dtype_ == DType::kBF16) return;  // rounding may flip an expert, and then a token
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_LE(max_difference(got.logp, want.logp), dtype_ == DType::kF64 ? 1e-5 : 1e-4);
  };
  std::vector<int32_t> first = random_ids(70, 21);
  turn(first, 0);
  std::vector<int32_t> answer = last, second = first;
  second.insert(second.end(), answer.begin(), answer.end());
  for (int32_t id : random_ids(30, 22)) second.push_back(id);
  turn(second, 78);  // the last token of an answer has not been in the model
  std::vector<int32_t> third = first;
  for (int32_t id : random_ids(5, 23))
    third.push_back(third.size() == 70 ? (answer[0] + 1) % 97 : id);
  turn(third, 70);
  turn(second, static_cast<int64_t>(second.size()) - 1);
}

// Prefixes of other requests, pages taken away, drafts and cancelled neighbours change no bit.
TEST_P(Equivalence, ServedAmongManyWithSharedPrefixesAndFewPagesARequestGetsItsBitsAlone) {
  std::vector<GenerateRequest> requests;
  std::vector<int32_t> shared = random_ids(140, 31);
  for (uint64_t i = 0; i < 9; ++i) {
    GenerateRequest r;
    r.prompt.assign(shared.begin(), shared.begin() + (i % 3 == 0 ? 20 : i % 3 == 1 ? 100 : 140));
    for (int32_t id : random_ids(static_cast<int64_t>(3 + 2 * i), 40 + i)) r.prompt.push_back(id);
    for (size_t j = 0; j < 5; ++j) r.prompt.push_back(shared[j]);  // n-grams know what follows
    r.max_new_tokens = 50 + static_cast<int64_t>(i) * 4;
    r.sampling.temperature = i % 2 == 0 ? 0 : 1;
    r.sampling.seed = i;
    r.sampling.logit_bias[static_cast<int32_t>(i)] = 3;
    r.reuse = Reuse::kExact;
    r.drafts = 1 + static_cast<int64_t>(i % 4);
    requests.push_back(r);
  }
  std::vector<GenerateResult> alone, together(requests.size());
  for (const GenerateRequest& r : requests) {
    Engine engine(*dev_, *model_, dtype_, 256);
    alone.push_back(engine.run({r})[0]);
  }
  Engine engine(*dev_, *model_, dtype_, 256, 256);
  size_t next = 0;
  std::vector<int64_t> neighbours;
  for (int step = 0; next < requests.size() || engine.running() + engine.waiting() > 0; ++step) {
    if (step % 2 == 0 && next < requests.size()) {
      GenerateRequest r = requests[next];
      bool module = model_->config().num_nextn_predict_layers > 0;
      if (next % 3 < 2) r.speculate = next % 3 == 0 && module ? Speculate::kMtp : Speculate::kNgram;
      r.on_finish = [&together, next](GenerateResult result) {
        together[next] = std::move(result);
      };
      engine.submit(r);
      r.sampling.seed += 100;  // a neighbour that is cancelled on the way
      r.on_finish = nullptr;
      neighbours.push_back(engine.submit(r));
      ++next;
    }
    if (step > 6 && step % 3 == 0 && !neighbours.empty()) {
      engine.cancel(neighbours.front());
      neighbours.erase(neighbours.begin());
    }
    engine.step();
  }
  EXPECT_GT(engine.timing().preempted, 0);
  EXPECT_GT(engine.timing().cached_tokens, 0);
  EXPECT_GT(engine.timing().drafted, 0);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(alone[i].tokens, together[i].tokens) << i;
    EXPECT_EQ(alone[i].logp, together[i].logp) << i;
  }
}

TEST(Engine, ACancelledPromptStaysInTheCacheAsFarAsItCame) {
  auto dev = make_device("cpu");
  Model model(small_config("v3"));
  model.init(DType::kF32, 5, true);
  Engine engine(*dev, model, DType::kF32, 2048);
  GenerateRequest r;
  r.prompt = random_ids(1200, 3);
  r.max_new_tokens = 1;
  int steps = 0;
  r.cancelled = [&] { return steps++ == 2; };
  GenerateResult result = engine.run({r})[0];
  EXPECT_EQ(result.finish, GenerateResult::Finish::kCancelled);
  EXPECT_TRUE(result.tokens.empty());
  EXPECT_EQ(engine.run({r})[0].cached_tokens, 2 * Engine::kStepRows);
}

std::vector<Param> params() {
  std::vector<Param> out;
  for (const char* model : {"v3", "v2", "gqa"}) {
    out.emplace_back(model, "ref:double", DType::kF64);
    for (const std::string& device : test_devices()) {
      out.emplace_back(model, device, DType::kF32);
      if (device != "ref") out.emplace_back(model, device, DType::kBF16);
    }
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(Models, Equivalence, testing::ValuesIn(params()),
                         [](const testing::TestParamInfo<Param>& info) {
                           std::string n = std::get<0>(info.param) + "_" + std::get<1>(info.param) +
                                           "_" + std::string(name(std::get<2>(info.param)));
                           std::replace_if(
                               n.begin(), n.end(),
                               [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
                               '_');
                           return n;
                         });

}  // namespace
}  // namespace wels
