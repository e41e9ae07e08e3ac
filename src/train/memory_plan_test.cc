// The plan against real steps: every part that can be counted is the plan's to the byte, and the
// sum is within the bound that `wels info` and the refusal of a run promise.
#include "train/memory_plan.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "backend/registry.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/rng.h"
#include "base/threads.h"
#include "train/ema.h"
#include "train/presets.h"

namespace wels {
namespace {

constexpr double kBound = 1.2;  // measured / planned, and its inverse

std::vector<MicroBatch> random_batch(const TrainingShape& s, int64_t vocab) {
  Rng rng(1);
  std::vector<MicroBatch> out;
  int64_t at_once = std::max<int64_t>(1, s.micro_batch_tokens / s.sequence_length);
  for (int64_t i = 0; i < s.batch_tokens / s.sequence_length; ++i) {
    if (i % at_once == 0) out.emplace_back();
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < s.sequence_length; ++t)
      ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
    out.back().batch.append(ids);
    out.back().targets.insert(out.back().targets.end(), ids.begin(), ids.end());
  }
  return out;
}

// Some steps, part by part against the plan.
void compare(const std::string& device, const ModelConfig& cfg, const TrainingShape& shape) {
  auto dev = make_device(device);
  int64_t start = host_bytes();
  MemoryPlan plan = plan_training(*dev, cfg, shape);
  EXPECT_EQ(host_bytes(), start);

  Model model(cfg);
  model.init(DType::kF32, 1, true);
  EXPECT_EQ(host_bytes() - start, plan.weights + plan.gradients);
  int64_t before = host_bytes();
  std::optional<WeightEma> average;
  if (shape.average) average.emplace(*dev, model, 0.999);
  EXPECT_EQ(host_bytes() - before, plan.average);
  Trainer trainer(*dev, model, shape.trainer);
  std::vector<MicroBatch> batch = random_batch(shape, cfg.vocab_size);
  int depths = static_cast<int>(cfg.num_nextn_predict_layers);
  StepStats stats;
  for (int i = 0; i < 4; ++i)  // as many as the plan's
    stats = trainer.step(batch, pretrain_objective(batch, depths, 0.3), 1e-4);
  EXPECT_EQ(stats.activation_bytes, plan.activations);
  EXPECT_EQ(trainer.pool().bytes_held(), plan.activations + plan.backward);

  int64_t all = host_bytes() - start;
  visit_weights(cfg, model.weights(), [](Weight& w, const WeightSpec&) { w.cache.reset(); });
  EXPECT_EQ(all - (host_bytes() - start), plan.packed);
  // What is left: the optimiser's, and work space (threads may hold theirs from earlier tests).
  int64_t known = plan.weights + plan.gradients + plan.average + plan.packed + plan.activations +
                  plan.backward + plan.optimizer;
  EXPECT_GE(all, known);
  EXPECT_LE(all, known + plan.work);
  double ratio = static_cast<double>(all) / static_cast<double>(plan.total() - plan.program);
  EXPECT_LE(ratio, kBound);
  EXPECT_GE(ratio, 1 / kBound);
}

TrainingShape small_shape(int64_t sequence) {
  return {.sequence_length = sequence, .batch_tokens = sequence, .micro_batch_tokens = sequence};
}

using Choice = std::tuple<int64_t, bool, bool, bool>;  // sequence, dense, MTP, recompute

class MemoryPlanTest : public testing::TestWithParam<Choice> {};

TEST_P(MemoryPlanTest, AStepOfNanoTakesWhatWasPlanned) {
  auto [sequence, dense, mtp, recompute] = GetParam();
  ModelConfig cfg = preset("nano").model;
  if (dense) make_dense(cfg);
  cfg.num_nextn_predict_layers = mtp;
  TrainingShape shape = small_shape(sequence);
  shape.trainer.recompute = recompute;
  shape.trainer.optimizer.muon = dense != mtp;  // so that it meets both values of all
  compare("cpu", cfg, shape);
}

INSTANTIATE_TEST_SUITE_P(All, MemoryPlanTest,
                         testing::Combine(testing::Values(256, 1024), testing::Bool(),
                                          testing::Bool(), testing::Bool()));

TEST(MemoryPlan, LargerPresetsTakeWhatWasPlanned) {
  for (std::string name : {"micro", "mini"}) {
    SCOPED_TRACE(name);
    compare("cpu", preset(name).model, small_shape(256));
  }
  ModelConfig cfg = preset("micro").model;
  cfg.num_nextn_predict_layers = 0;
  TrainingShape shape = small_shape(1024);
  shape.trainer.recompute = shape.trainer.optimizer.muon = true;
  compare("cpu", cfg, shape);
}

TEST(MemoryPlan, EveryDeviceAndTypeTakesWhatWasPlanned) {
  TrainingShape f32 = small_shape(256), fp8 = f32;
  f32.trainer.dtype = DType::kF32;
  f32.average = true;
  fp8.trainer.fp8 = true;
  ModelConfig cfg = preset("nano").model;
  for (const std::string& device : test_devices()) {
    SCOPED_TRACE(device);
    if (device == "ref") {  // plain loops: fewer rows
      TrainingShape few = f32;
      few.sequence_length = 64;
      few.batch_tokens = 64;
      compare(device, cfg, few);
      continue;
    }
    compare(device, cfg, f32);
    compare(device, cfg, fp8);
  }
}

TEST(MemoryPlan, ALastMicroBatchThatIsShorterCountsToo) {
  TrainingShape shape{.sequence_length = 128, .batch_tokens = 768, .micro_batch_tokens = 512};
  compare("cpu", preset("nano").model, shape);
}

TEST(MemoryPlan, CopiesOfAdaptersTakeWhatWasPlanned) {
  ModelConfig cfg = preset("nano").model;
  auto dev = make_device("cpu");
  TrainingShape shape = small_shape(256);
  shape.lora = LoraConfig{.rank = 5};
  shape.stored = [](const WeightSpec&) { return DType::kF32; };
  MemoryPlan alone = plan_training(*dev, cfg, shape);
  shape.other_lora = true;
  MemoryPlan plan = plan_training(*dev, cfg, shape);
  EXPECT_EQ(plan.packed, alone.packed);
  EXPECT_EQ(alone.teacher, 0);
  Model model(cfg);
  model.init(DType::kF32, 1, false);
  add_lora(model, *shape.lora, DType::kF32, 1);
  auto forward = [&] {
    Pool pool;
    Ctx ctx{.dev = *dev, .pool = pool, .tape = nullptr, .dtype = shape.trainer.dtype};
    model.hidden(ctx, random_batch(shape, cfg.vocab_size)[0].batch, {});
  };
  // Of several threads, which one's work space grows when is chance.
  int threads = thread_count();
  set_thread_count(1);
  forward();
  int64_t before = host_bytes();
  LoraSet others = copy_lora(model);
  {
    OtherLora there(model, others);
    forward();
  }
  set_thread_count(threads);
  EXPECT_GT(plan.teacher, 4 * count_lora(model));
  EXPECT_EQ(host_bytes() - before, plan.teacher);
}

// DeepSeek-V3 itself: 671 billion parameters are planned without any memory.
InferenceShape stored_as(DType type) {
  return {.dtype = DType::kF32, .context = 64, .stored = [type](const WeightSpec& s) {
            return s.kind == WeightKind::kMatrix && !s.full_precision ? type : DType::kF32;
          }};
}

TEST(MemoryPlan, GeneratingFromEveryStoredTypeKeepsWhatWasPlanned) {
  ModelConfig cfg = preset("nano").model;
  cfg.num_nextn_predict_layers = 0;
  int64_t before = 0;
  for (DType type : {DType::kF32, DType::kBF16, DType::kQ8_0, DType::kQ4_0}) {
    SCOPED_TRACE(std::string(name(type)));
    auto dev = make_device("cpu");
    InferenceShape shape = stored_as(type);
    MemoryPlan plan = plan_inference(*dev, cfg, shape);
    Model model(cfg);
    int64_t start = host_bytes();
    model.allocate(shape.stored);
    EXPECT_EQ(host_bytes() - start, plan.weights);
    visit_weights(cfg, model.weights(), [](Weight& w, const WeightSpec&) {
      for (Tensor& t : w.value) std::memset(t.data, 0, static_cast<size_t>(t.bytes()));
    });
    start = host_bytes();
    KvCache cache(cfg, shape.dtype, shape.context);
    EXPECT_EQ(host_bytes() - start, plan.cache);
    Pool pool;
    Batch batch;
    batch.append(std::vector<int32_t>{0}, 0, cache.add_sequence());
    ForwardOptions options;
    options.kv = &cache;
    Ctx ctx{.dev = *dev, .pool = pool, .tape = nullptr, .dtype = shape.dtype};
    model.logits(ctx, model.hidden(ctx, batch, options));
    int64_t all = host_bytes();
    visit_weights(cfg, model.weights(), [](Weight& w, const WeightSpec&) { w.cache.reset(); });
    EXPECT_EQ(all - host_bytes(), plan.packed);
    EXPECT_TRUE(before == 0 || plan.packed < before) << "larger than the type before";
    before = plan.packed;
  }
}

TEST(MemoryPlan, FewerExpertsAndACacheInEightBitsNeedLess) {
  ModelConfig cfg = preset("nano").model;  // 8 experts a layer
  auto dev = make_device("cpu");
  InferenceShape shape = stored_as(DType::kQ8_0);
  MemoryPlan all = plan_inference(*dev, cfg, shape);
  int64_t experts = expert_pack_bytes(*dev, cfg, shape);
  EXPECT_GT(experts, 0);
  EXPECT_LT(experts, all.packed);
  shape.expert_share = 0.5;
  int64_t half = plan_inference(*dev, cfg, shape).packed;
  EXPECT_GE(half, all.packed - experts / 2);
  EXPECT_LT(half, all.packed - experts / 4);
  shape.expert_share = 0;  // one of a layer stays
  EXPECT_LT(plan_inference(*dev, cfg, shape).packed, half);
  shape.cache_dtype = DType::kQ8_0;
  EXPECT_EQ(plan_inference(*dev, cfg, shape).cache, 64 * kv_token_bytes(cfg, DType::kQ8_0));
  cfg.n_routed_experts = cfg.n_shared_experts = cfg.num_experts_per_tok = 0;
  cfg.moe_intermediate_size = 0;
  EXPECT_EQ(expert_pack_bytes(*dev, cfg, shape), 0);
}

TEST(MemoryPlan, AModelThatCannotGenerateIsRefusedWithWhatWouldFit) {
  ModelConfig cfg = preset("mini").model;
  auto dev = make_device("cpu");
  InferenceShape shape = stored_as(DType::kBF16);
  MemoryPlan plan = plan_inference(*dev, cfg, shape);
  int64_t rest = plan.packed + plan.work;
  EXPECT_EQ(plan.resident(), rest + plan.cache);
  InferenceNeed need = require_inference_memory(*dev, cfg, shape, rest + plan.cache);
  EXPECT_EQ(need.longest_context, shape.context);
  EXPECT_THAT(need.text, testing::HasSubstr("KV cache of 64 tokens"));
  EXPECT_EQ(need.hint, "");
  auto refusal = [&](int64_t available) -> std::string {
    try {
      require_inference_memory(*dev, cfg, shape, available);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  shape.context = 640;
  plan = plan_inference(*dev, cfg, shape);
  EXPECT_THAT(refusal(rest + plan.cache / 2), testing::HasSubstr("a context of 320 tokens"));
  EXPECT_THAT(refusal(plan.packed * 3 / 4 + plan.work + plan.cache),
              testing::HasSubstr("--type q8_0"));
  EXPECT_THAT(refusal(1000), testing::HasSubstr("a smaller model"));
}

TEST(MemoryPlan, WithoutACheckpointTheConfigSaysWhatWeightsAreStoredAs) {
  ModelConfig cfg = preset("nano").model;
  cfg.torch_dtype = "bfloat16";
  auto dev = make_device("cpu");
  auto weights = [&] { return plan_inference(*dev, cfg, {.stored = config_types(cfg)}).weights; };
  int64_t bf16 = weights();
  cfg.torch_dtype = "float32";
  EXPECT_EQ(weights(), 2 * bf16);
  cfg.torch_dtype = "bfloat16";
  cfg.fp8 = {.block_rows = 128, .block_cols = 128};
  int64_t fp8 = weights();  // all but embedding, head, norms and router
  EXPECT_LT(fp8, bf16 * 3 / 4);
  EXPECT_GT(fp8, bf16 / 2);
}

TEST(MemoryPlan, AModelFarBeyondTheMachineIsPlanned) {
  ModelConfig cfg = preset("nano").model;
  cfg.vocab_size = 129280;
  cfg.hidden_size = 7168;
  cfg.num_hidden_layers = 61;
  cfg.intermediate_size = 18432;
  cfg.num_attention_heads = cfg.num_key_value_heads = 128;
  cfg.q_lora_rank = 1536;
  cfg.kv_lora_rank = 512;
  cfg.qk_nope_head_dim = cfg.v_head_dim = 128;
  cfg.qk_rope_head_dim = 64;
  cfg.n_routed_experts = 256;
  cfg.num_experts_per_tok = 8;
  cfg.n_group = 8;
  cfg.topk_group = 4;
  cfg.moe_intermediate_size = 2048;
  cfg.first_k_dense_replace = 3;
  auto dev = make_device("cpu");
  int64_t before = rss_bytes();
  MemoryPlan plan = plan_training(*dev, cfg, {});
  EXPECT_LT(rss_bytes() - before, 200 << 20);
  ParameterCount n = count_parameters(cfg);
  EXPECT_EQ(plan.gradients, 4 * (n.total + n.mtp));
  EXPECT_EQ(plan.weights, 4 * (n.total + n.mtp + n.router_bias));
  EXPECT_GE(plan.optimizer, 8 * (n.total + n.mtp));
  EXPECT_GT(plan.total(), int64_t{9} << 40);
}

std::string refusal(const TrainingShape& shape, int64_t available) {
  auto dev = make_device("cpu");
  try {
    require_memory(*dev, preset("mini").model, shape, available);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(MemoryPlan, ARefusalSaysWhatIsMissingAndWhichFlagsWouldFit) {
  auto dev = make_device("cpu");
  TrainingShape shape{.sequence_length = 1024, .batch_tokens = 8192, .micro_batch_tokens = 8192};
  ModelConfig cfg = preset("mini").model;
  auto need = [&](int64_t tokens, bool recompute) {
    TrainingShape s = shape;
    s.micro_batch_tokens = tokens;
    s.trainer.recompute = recompute;
    return plan_training(*dev, cfg, s).total() +
           (64 << 20);  // the program grows, under a sanitizer by more
  };
  EXPECT_EQ(refusal(shape, need(8192, false)), "");
  EXPECT_THAT(refusal(shape, need(2048, false)),
              testing::AllOf(testing::HasSubstr("are missing"), testing::HasSubstr("activations"),
                             testing::EndsWith("use --micro-batch 2048")));
  EXPECT_THAT(refusal(shape, need(1024, true)),
              testing::ContainsRegex("use --micro-batch [0-9]+ --recompute$"));
  EXPECT_THAT(refusal(shape, 1 << 20), testing::HasSubstr("use a smaller --preset"));
}

TEST(MemoryPlan, ATeacherIsAPartOfTheSum) {
  ModelConfig cfg = preset("nano").model;
  auto dev = make_device("cpu");
  TrainingShape shape;
  MemoryPlan alone = plan_training(*dev, cfg, shape);
  InferenceShape says = stored_as(DType::kF32);
  says.context = 0;
  int64_t some = teacher_bytes(*dev, cfg, says, 512), more = teacher_bytes(*dev, cfg, says, 4096);
  EXPECT_GT(some, plan_inference(*dev, cfg, says).packed);
  EXPECT_GT(more, some);
  says.context = 1000;
  int64_t answers = teacher_bytes(*dev, cfg, says, 512);
  EXPECT_GT(answers, some);
  says.context = 2000;
  EXPECT_EQ(teacher_bytes(*dev, cfg, says, 512) - answers, 1000 * kv_token_bytes(cfg, says.dtype));
  shape.teacher = more;
  MemoryPlan plan = plan_training(*dev, cfg, shape);
  EXPECT_EQ(plan.total() - plan.program, alone.total() - alone.program + more);
  try {
    require_memory(*dev, cfg, shape, plan.total() - more / 2);
    FAIL() << "a plan beyond the memory is not refused";
  } catch (const Error& e) {
    EXPECT_THAT(std::string(e.what()), testing::HasSubstr("other models"));
  }
}

}  // namespace
}  // namespace wels
