// Low-rank adapters: what they add, its gradient, merging, and their files.
#include "model/lora.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using testing::HasSubstr;

ModelConfig small_config(bool mla) {
  ModelConfig c;
  c.architecture = mla ? Architecture::kDeepseekV3 : Architecture::kQwen2;
  c.attention = mla ? AttentionKind::kMla : AttentionKind::kGqa;
  c.vocab_size = 37;
  c.hidden_size = 32;
  c.num_hidden_layers = 2;
  c.intermediate_size = 64;
  c.num_attention_heads = 2;
  c.num_key_value_heads = mla ? 2 : 1;
  c.max_position_embeddings = 64;
  c.initializer_range = 0.2;
  if (!mla) {
    c.head_dim = 16;
    c.attention_bias = true;
    return c;
  }
  c.q_lora_rank = 32;
  c.kv_lora_rank = 32;
  c.qk_nope_head_dim = 16;
  c.qk_rope_head_dim = 8;
  c.v_head_dim = 16;
  c.first_k_dense_replace = 1;
  c.n_routed_experts = 4;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.moe_intermediate_size = 32;
  c.scoring_func = ScoringFunc::kSigmoid;
  c.topk_method = TopkMethod::kNoauxTc;
  c.n_group = c.topk_group = 1;
  c.norm_topk_prob = true;
  c.routed_scaling_factor = 1;
  return c;
}

template <class Fn>
void each_adapter(Model& model, Fn&& fn) {
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec&) {
    if (w.lora) fn(w.lora->down), fn(w.lora->up);
  });
}

void randomise(Model& model, uint64_t seed, double size = 0.3) {
  each_adapter(model, [&](Weight& w) {
    Rng rng(seed, hash_name(w.name));
    for (int64_t i = 0; i < w.size(); ++i) {
      double x = size * rng.normal();
      if (w.value[0].dtype == DType::kF64)
        static_cast<double*>(w.value[0].data)[i] = x;
      else
        static_cast<float*>(w.value[0].data)[i] = static_cast<float>(x);
    }
    ++w.version;
  });
}

const std::vector<int32_t> kIds = {3, 1, 4, 1, 5, 9, 2, 6};

std::vector<double> on_host(Device& dev, const Tensor& t) {
  std::vector<double> out(static_cast<size_t>(t.size()));
  std::vector<float> f(out.size());
  if (t.dtype == DType::kF64) {
    dev.download(t, out.data());
  } else {
    dev.download(t, f.data());
    out.assign(f.begin(), f.end());
  }
  return out;
}

// Logits of a whole sequence, or of the same through the cache in pieces.
std::vector<double> logits(Device& dev, Model& model, DType dtype, bool cached,
                           MlaForm form = MlaForm::kByCost) {
  Pool pool;
  Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = dtype};
  if (!cached) {
    Batch batch;
    batch.append(kIds);
    return on_host(dev, model.logits(ctx, model.hidden(ctx, batch, {})).t);
  }
  KvCache kv(model.config(), dtype, 64);
  int32_t sequence = kv.add_sequence();
  ForwardOptions options;
  options.kv = &kv;
  std::vector<double> out;
  size_t at = 0;
  for (size_t n : {size_t{5}, size_t{1}, size_t{2}}) {
    Batch batch;
    batch.append(std::span(kIds).subspan(at, n), static_cast<int64_t>(at), sequence);
    batch.segments[0].mla = form;
    std::vector<double> z = on_host(dev, model.logits(ctx, model.hidden(ctx, batch, options)).t);
    out.insert(out.end(), z.begin(), z.end());
    at += n;
  }
  return out;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b, double bound) {
  ASSERT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  EXPECT_LE(worst, bound);
}

class LoraTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "wels_lora_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
  LoraConfig config_{.rank = 3, .alpha = 6, .base = "base"};
};

TEST_P(LoraTest, ChangesNothingAtFirst) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model(small_config(GetParam()));
  model.init(DType::kF32, 7, false);
  std::vector<double> before = logits(*dev, model, DType::kF32, false);
  add_lora(model, config_, DType::kF32, 1);
  expect_near(logits(*dev, model, DType::kF32, false), before, 1e-5);
  EXPECT_GT(count_lora(model), 0);
}

TEST_P(LoraTest, MergedIsUnmergedAlsoOverTheCache) {
  std::unique_ptr<Device> dev = make_device("ref:double");
  Model model(small_config(GetParam()));
  model.init(DType::kF64, 7, false);
  std::vector<double> plain = logits(*dev, model, DType::kF64, false);
  add_lora(model, config_, DType::kF64, 1);
  randomise(model, 2);
  std::vector<double> whole = logits(*dev, model, DType::kF64, false);
  double change = 0;
  for (size_t i = 0; i < plain.size(); ++i) change += std::abs(whole[i] - plain[i]);
  EXPECT_GT(change, 1.0) << "the adapters do something";
  for (MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed})
    expect_near(logits(*dev, model, DType::kF64, true, form), whole, 1e-10);
  merge_lora(model);
  EXPECT_EQ(count_lora(model), 0);
  expect_near(logits(*dev, model, DType::kF64, false), whole, 1e-10);
}

TEST_P(LoraTest, EveryDeviceHasBothFormsOverTheCache) {
  for (const std::string& name : test_devices()) {
    SCOPED_TRACE(name);
    std::unique_ptr<Device> dev = make_device(name);
    for (int64_t rank : {1, 3, 16, 33}) {
      Model model(small_config(GetParam()));
      model.init(DType::kF32, 7, false);
      add_lora(model, {.rank = rank, .alpha = 6}, DType::kF32, 1);
      randomise(model, 2, 0.1);
      std::vector<double> whole = logits(*dev, model, DType::kF32, false);
      for (MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed})
        expect_near(logits(*dev, model, DType::kF32, true, form), whole, 1e-4);
    }
  }
}

TEST_P(LoraTest, OthersTakeTheirPlaceForAWhile) {
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model(small_config(GetParam()));
  model.init(DType::kF32, 7, false);
  add_lora(model, config_, DType::kF32, 1);
  auto now = [&] { return logits(*dev, model, DType::kF32, true); };
  std::vector<double> plain = now();
  randomise(model, 2);
  LoraSet then = copy_lora(model);
  std::vector<double> second = now();
  randomise(model, 3);
  std::vector<double> third = now();
  EXPECT_NE(second, plain);
  EXPECT_NE(third, second);
  {
    OtherLora other(model, then);
    EXPECT_EQ(now(), second);
  }
  EXPECT_EQ(now(), third);
  {
    OtherLora without(model, {});
    expect_near(now(), plain, 1e-5);
    EXPECT_TRUE(lora_of(model).empty());
  }
  EXPECT_EQ(now(), third);
  ASSERT_EQ(then.size(), lora_of(model).size());
  for (const auto& lora : then) EXPECT_FALSE(lora->down.trainable() || lora->up.trainable());
}

// Σ c · logp of the next tokens; with a tape its gradient is left in the adapters.
double loss(Device& dev, Model& model, bool tape_wanted) {
  Pool pool;
  Tape tape(dev, pool);
  Ctx ctx{.dev = dev, .pool = pool, .tape = tape_wanted ? &tape : nullptr, .dtype = DType::kF64};
  Batch batch;
  batch.append(kIds);
  std::vector<int32_t> targets(kIds.begin() + 1, kIds.end());
  targets.push_back(7);
  Var h = model.hidden(ctx, batch, {});
  Var logp = token_logp(ctx, h, model.head(), ctx.make_ids(targets.data(), 8));
  std::vector<double> values = on_host(dev, logp.t), c(8);
  double sum = 0;
  for (size_t i = 0; i < 8; ++i) sum += (c[i] = std::sin(static_cast<double>(i + 1))) * values[i];
  if (tape_wanted) {
    model.clear_gradients();
    dev.upload(c.data(), tape.grad_out(logp).t);
    tape.backward();
  }
  return sum;
}

TEST_P(LoraTest, GradientIsTheSlopeOfTheLoss) {
  std::unique_ptr<Device> dev = make_device("ref:double");
  Model model(small_config(GetParam()));
  model.init(DType::kF64, 7, false);
  add_lora(model, config_, DType::kF64, 1);
  randomise(model, 2);
  loss(*dev, model, true);
  int checked = 0;
  each_adapter(model, [&](Weight& w) {
    EXPECT_FALSE(w.fresh_grad) << w.name << " got no gradient";
    double largest = 1e-3;
    for (int64_t i = 0; i < w.size(); ++i)
      largest = std::max(largest, std::abs(static_cast<double*>(w.grad[0].data)[i]));
    for (int64_t i : {int64_t{0}, w.size() / 2, w.size() - 1}) {
      double &x = static_cast<double*>(w.value[0].data)[i], at = x, h = 1e-5;
      x = at + h;
      double up = loss(*dev, model, false);
      x = at - h;
      double down = loss(*dev, model, false);
      x = at;
      EXPECT_NEAR(static_cast<double*>(w.grad[0].data)[i], (up - down) / (2 * h), 1e-6 * largest)
          << w.name << " " << i;
      ++checked;
    }
  });
  EXPECT_GE(checked, 60);
}

TEST_P(LoraTest, OverQuantisedWeightsGradientsAreThoseOfTheirDecodedValues) {
  std::unique_ptr<Device> dev = make_device("cpu");
  auto make = [&](bool quantised) {
    auto model = std::make_unique<Model>(small_config(GetParam()));
    Model plain(model->config());
    plain.init(DType::kF32, 7, false);
    std::map<std::string, Weight*> from;
    visit_weights(plain.config(), plain.weights(),
                  [&](Weight& w, const WeightSpec& s) { from[s.name] = &w; });
    auto blocks = [](const WeightSpec& s) {
      return s.kind == WeightKind::kMatrix && !s.full_precision;
    };
    model->allocate(
        [&](const WeightSpec& s) { return quantised && blocks(s) ? DType::kQ8_0 : DType::kF32; });
    const QuantFormat& q8 = *find_quant_format(DType::kQ8_0);
    visit_weights(model->config(), model->weights(), [&](Weight& w, const WeightSpec& s) {
      for (size_t e = 0; e < w.value.size(); ++e) {
        for (int64_t r = 0; r < s.rows; ++r) {
          const float* x = from[s.name]->value[e].row<float>(r);
          std::vector<uint8_t> codes(
              static_cast<size_t>(row_bytes(DType::kQ8_0, (s.cols + 31) / 32 * 32)));
          if (!blocks(s)) {
            std::copy_n(x, s.cols, w.value[e].row<float>(r));
          } else if (quantised) {
            q8.encode(x, nullptr, w.value[e].row_raw(r), s.cols);
          } else {
            q8.encode(x, nullptr, codes.data(), s.cols);
            q8.decode(codes.data(), w.value[e].row<float>(r), s.cols);
          }
        }
      }
      ++w.version;
    });
    add_lora(*model, config_, DType::kF32, 1);
    randomise(*model, 2, 0.05);  // probabilities near 0 and 1 would magnify the rounding
    return model;
  };
  auto gradients = [&](Model& model) {
    Pool pool;
    Tape tape(*dev, pool);
    Ctx ctx{.dev = *dev, .pool = pool, .tape = &tape, .dtype = DType::kF32};
    Batch batch;
    batch.append(kIds);
    Var h = model.hidden(ctx, batch, {});
    Var logp = token_logp(ctx, h, model.head(), ctx.make_ids(kIds.data(), 8));
    std::vector<float> ones(8, 1.0f);
    model.clear_gradients();
    dev->upload(ones.data(), tape.grad_out(logp).t);
    tape.backward();
    std::vector<double> all;
    each_adapter(model, [&](Weight& w) {
      std::vector<double> g = on_host(*dev, w.grad[0]);
      all.insert(all.end(), g.begin(), g.end());
    });
    return all;
  };
  auto blocks = make(true), decoded = make(false);
  std::vector<double> a = gradients(*blocks), b = gradients(*decoded);
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  EXPECT_GT(ab / std::sqrt(aa * bb), 0.99) << "activations are rounded to int8 in the forward";
  EXPECT_NEAR(aa / bb, 1, 0.1);
}

TEST_P(LoraTest, FilesAreReadBack) {
  Model model(small_config(GetParam()));
  model.init(DType::kF32, 7, false);
  config_.targets = {"o_proj", "down_proj"};
  add_lora(model, config_, DType::kF32, 1);
  randomise(model, 2);
  save_lora(folder_, model, config_);
  auto json = nlohmann::json::parse(read_file(folder_ + "/adapter_config.json"));
  EXPECT_EQ(json["peft_type"], "LORA");
  EXPECT_EQ(json["target_modules"], config_.targets);
  LoraConfig read = load_lora_config(folder_);
  EXPECT_EQ(read.rank, 3);
  EXPECT_EQ(read.alpha, 6);
  EXPECT_EQ(read.base, "base");
  EXPECT_EQ(read.targets, config_.targets);
  Model other(small_config(GetParam()));
  other.init(DType::kF32, 7, false);
  add_lora(other, read, DType::kF32, 99);
  load_lora(folder_, other);
  std::unique_ptr<Device> dev = make_device("cpu");
  EXPECT_EQ(logits(*dev, other, DType::kF32, false), logits(*dev, model, DType::kF32, false));
  EXPECT_EQ(other.weights().blocks[0].attention.o.lora->down.name,
            "base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight");
}

INSTANTIATE_TEST_SUITE_P(OfMlaAndGqa, LoraTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Mla" : "Gqa"; });

TEST(Lora, AdaptsNoExpertsNormsOrRouter) {
  std::vector<std::string> names = lora_targets(small_config(true));
  EXPECT_THAT(names, testing::ElementsAre("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
                                          "o_proj", "gate_proj", "up_proj", "down_proj"));
  Model model(small_config(true));
  model.init(DType::kF32, 7, true);
  add_lora(model, {}, DType::kF32, 1);
  const MoeWeights& moe = model.weights().blocks[1].experts;
  EXPECT_FALSE(moe.experts.gate.lora);
  EXPECT_FALSE(moe.router.lora);
  EXPECT_TRUE(moe.shared.gate.lora);
  visit_weights(model.config(), model.weights(), [](Weight& w, const WeightSpec& s) {
    EXPECT_FALSE(w.trainable()) << s.name << " is frozen";
  });
}

TEST(Lora, RefusesWhatItDoesNotCompute) {
  auto message = [](auto&& fn) -> std::string {
    try {
      fn();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  Model model(small_config(false));
  model.init(DType::kF32, 7, false);
  LoraConfig bad;
  bad.targets = {"x_proj"};
  EXPECT_THAT(message([&] { add_lora(model, bad, DType::kF32, 1); }),
              HasSubstr("the model has no x_proj to adapt; some of q_proj,k_proj"));
  std::string pattern = testing::TempDir() + "wels_lora_XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  auto config = [&](const char* json) {
    write_file_atomic(pattern + "/adapter_config.json", json);
    return message([&] { load_lora_config(pattern); });
  };
  std::string good = R"("peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q_proj"])";
  EXPECT_EQ(config(("{" + good + "}").c_str()), "no error");
  EXPECT_THAT(config(("{" + good + R"(,"use_dora":true})").c_str()), HasSubstr("\"use_dora\""));
  EXPECT_THAT(config(("{" + good + R"(,"bias":"all"})").c_str()), HasSubstr("\"bias\""));
  EXPECT_THAT(config(R"({"peft_type":"IA3"})"), HasSubstr("\"peft_type\""));
  EXPECT_THAT(config("{}"), HasSubstr("lacks a field"));
  EXPECT_THAT(config("[1]"), HasSubstr("lacks a field"));
  for (const char* r : {"0", "-1", "2.5", "\"8\"", "65537", "1000000000000", "1e12",
                        "1152921504606846976", "18446744073709551615"}) {
    std::string json = R"({"peft_type":"LORA","lora_alpha":4,"target_modules":["q_proj"],"r":)";
    EXPECT_THAT(config((json + r + "}").c_str()),
                HasSubstr("it must be a whole number from 1 to 65536"))
        << r;
  }
  add_lora(model, {.rank = 2, .targets = {"q_proj"}}, DType::kF32, 1);
  save_lora(pattern, model, {.rank = 2, .targets = {"q_proj"}});
  Model wider(small_config(false));
  wider.init(DType::kF32, 7, false);
  add_lora(wider, {.rank = 4, .targets = {"q_proj"}}, DType::kF32, 1);
  EXPECT_THAT(message([&] { load_lora(pattern, wider); }), HasSubstr("the model asks for"));
  Model fewer(small_config(false));
  fewer.init(DType::kF32, 7, false);
  EXPECT_THAT(message([&] { load_lora(pattern, fewer); }), HasSubstr("has no place in this model"));
  std::filesystem::remove_all(pattern);
}

}  // namespace
}  // namespace wels
