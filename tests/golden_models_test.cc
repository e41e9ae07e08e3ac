// Every checkpoint of golden/models, loaded as a user would, on ref and on the CPU: all stored
// logits, hidden states, router choices with their weights, and MTP logits; in f32 (and f64 on
// ref:double), bf16 within the case's measure; and the same logits again by chunked prefill and
// token by token over the KV cache, in both forms of MLA; the same bits with a tape and in company.
#include "backend/registry.h"
#include "model/checkpoint.h"
#include "tests/golden.h"

namespace wels {
namespace {

struct Pass {
  std::map<std::string, Var> seen;
  std::vector<double> logits;  // [n, v]
  std::vector<double> mtp_logits;
};

class GoldenModel : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    folder_ = golden_folder() + "/models/" + std::get<0>(GetParam());
    dev_ = make_device(std::get<1>(GetParam()));
    exact_ = std::get<1>(GetParam()) == "ref:double";
    model_ = load_model(folder_, exact_ ? WeightStorage::kF64 : WeightStorage::kF32);
    expected_ = std::make_unique<SafetensorsReader>(folder_ + "/expected.safetensors");
    case_ = read_json(folder_ + "/case.json");
    inputs_ = read_json(folder_ + "/inputs.json");
    dtype_ = exact_ ? DType::kF64 : DType::kF32;
  }

  Pass forward(const std::vector<int32_t>& ids) {
    Pass run;
    Ctx ctx{.dev = *dev_, .pool = pool_, .tape = nullptr, .dtype = dtype_};
    Batch batch;
    batch.append(ids);
    ForwardOptions options;
    options.observe = [&](const std::string& name, const Var& v) { run.seen[name] = v; };
    Var stream;
    Var h = model_->hidden(ctx, batch, options, nullptr, &stream);
    run.logits = values(model_->logits(ctx, h).t);
    if (model_->config().num_nextn_predict_layers > 0 && ids.size() > 1) {
      std::vector<int32_t> rows(ids.size());
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
      auto out = model_->mtp(ctx, 0, model_->config().mtp_hidden_after_norm ? h : stream, rows,
                             batch, options);
      run.mtp_logits = values(model_->logits(ctx, out.hidden).t);
    }
    return run;
  }

  std::vector<double> cached_logits(const std::vector<int32_t>& ids, size_t chunk, MlaForm form) {
    KvCache kv(model_->config(), dtype_, static_cast<int64_t>(ids.size()));
    int32_t sequence = kv.add_sequence();
    Ctx ctx{.dev = *dev_, .pool = pool_, .tape = nullptr, .dtype = dtype_};
    ForwardOptions options;
    options.kv = &kv;
    std::vector<double> out;
    for (size_t i = 0; i < ids.size(); i += chunk) {
      Batch batch;
      batch.append(
          std::vector<int32_t>(ids.begin() + static_cast<long>(i),
                               ids.begin() + static_cast<long>(std::min(ids.size(), i + chunk))),
          static_cast<int64_t>(i), sequence);
      batch.segments[0].mla = form;
      std::vector<double> z = values(model_->logits(ctx, model_->hidden(ctx, batch, options)).t);
      out.insert(out.end(), z.begin(), z.end());
    }
    return out;
  }

  std::vector<double> rows_of(const std::vector<double>& all, const nlohmann::json& positions) {
    std::vector<double> out;
    size_t v = static_cast<size_t>(model_->config().vocab_size);
    for (size_t p : positions.get<std::vector<size_t>>()) {
      out.insert(out.end(), all.begin() + static_cast<long>(p * v),
                 all.begin() + static_cast<long>((p + 1) * v));
    }
    return out;
  }

  // Sets of experts and the weight of each; tokens that are nearly undecided are excused.
  void compare_experts(Pass& run, const std::string& layer, const std::string& seq) {
    std::string seen = layer.substr(0, layer.size() - 1);  // "layer1"
    ASSERT_TRUE(run.seen.contains(seen + ".expert")) << seq << layer;
    std::vector<double> want = values(*expected_->find(seq + layer + "topk_idx"));
    std::vector<double> weight = values(*expected_->find(seq + layer + "topk_weight"));
    std::vector<double> margin = values(*expected_->find(seq + layer + "margin"));
    double bound = exact_ ? 2e-6 : tolerance()["topk_weight_max_abs"].get<double>();
    Tensor expert = run.seen[seen + ".expert"].t;
    std::vector<double> got_weight = values(run.seen[seen + ".weight"].t);
    size_t k = static_cast<size_t>(expert.cols);
    for (size_t t = 0; t < margin.size(); ++t) {
      if (margin[t] < 1e-6) continue;
      for (size_t j = 0; j < k; ++j) {
        const int32_t* row = expert.row<int32_t>(static_cast<int64_t>(t));
        const int32_t* at = std::find(row, row + k, static_cast<int32_t>(want[t * k + j]));
        ASSERT_NE(at, row + k) << seq << layer << " token " << t << " lacks expert "
                               << want[t * k + j];
        EXPECT_NEAR(got_weight[t * k + static_cast<size_t>(at - row)], weight[t * k + j], bound)
            << seq << layer << t;
      }
    }
  }

  const nlohmann::json& tolerance() { return case_["tolerance"]["float32 computation"]; }

  std::string folder_;
  Pool pool_;  // before what holds its memory
  std::unique_ptr<Device> dev_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<SafetensorsReader> expected_;
  nlohmann::json case_, inputs_;
  DType dtype_ = DType::kF32;
  bool exact_ = false;
};

TEST_P(GoldenModel, GivesTheReferenceLogitsHiddenStatesAndExperts) {
  double logit_tolerance = exact_ ? 2e-5 : tolerance()["logits_max_abs"].get<double>();
  double hidden_tolerance =
      exact_ ? 1e-6 : tolerance()["hidden_max_abs_divided_by_std_of_the_tensor"].get<double>();
  for (size_t k = 0; k < inputs_["sequences"].size(); ++k) {
    const auto& input = inputs_["sequences"][k];
    Pass run = forward(input["ids"].get<std::vector<int32_t>>());
    std::string seq = "seq" + std::to_string(k) + ".";
    EXPECT_LE(max_difference(rows_of(run.logits, input["logit_positions"]),
                             values(*expected_->find(seq + "logits"))),
              logit_tolerance)
        << seq;
    if (const TensorEntry* e = expected_->find(seq + "mtp_logits")) {
      EXPECT_LE(max_difference(rows_of(run.mtp_logits, input["mtp_logit_positions"]), values(*e)),
                logit_tolerance)
          << seq;
    }
    for (const TensorEntry& entry : expected_->tensors()) {
      const std::string& name = entry.name;
      if (!name.starts_with(seq)) continue;
      std::string what = name.substr(seq.size()), seen = what;
      if (what == "hidden.final_norm") seen = "final_norm";
      if (what == "mtp.input") seen = "mtp0.input";
      if (what == "mtp.hidden") seen = "mtp0.hidden";
      if (run.seen.contains(seen)) {
        std::vector<double> want = values(entry);
        EXPECT_LE(max_difference(values(run.seen[seen].t), want),
                  hidden_tolerance * standard_deviation(want))
            << name;
      } else if (what.ends_with(".topk_idx")) {
        compare_experts(run, what.substr(0, what.size() - std::string("topk_idx").size()), seq);
      }
    }
  }
}

TEST_P(GoldenModel, GivesTheSameLogitsOverTheKvCacheInChunksAndTokenByToken) {
  double bound = exact_ ? 2e-5 : tolerance()["logits_max_abs"].get<double>();
  std::vector<MlaForm> forms{MlaForm::kByCost};
  if (model_->config().is_mla()) forms = {MlaForm::kByCost, MlaForm::kExpanded, MlaForm::kAbsorbed};
  for (size_t k = 0; k < inputs_["sequences"].size(); ++k) {
    const auto& input = inputs_["sequences"][k];
    auto ids = input["ids"].get<std::vector<int32_t>>();
    if (ids.size() > 80) continue;  // the long ones are for positions; the cache is the same code
    std::vector<double> want = values(*expected_->find("seq" + std::to_string(k) + ".logits"));
    for (MlaForm form : forms) {
      for (size_t chunk : {size_t{1}, size_t{5}, ids.size()}) {
        EXPECT_LE(max_difference(rows_of(cached_logits(ids, chunk, form), input["logit_positions"]),
                                 want),
                  bound)
            << "sequence " << k << " chunk " << chunk << " form " << static_cast<int>(form);
      }
    }
  }
}

TEST_P(GoldenModel, NeitherATapeNorTheRowsBesideChangeABit) {
  std::vector<int32_t> ids, others{1};
  for (const auto& input : inputs_["sequences"]) {
    auto s = input["ids"].get<std::vector<int32_t>>();
    if (s.size() <= 80 && s.size() > ids.size()) std::swap(others = s, ids);
  }
  ASSERT_FALSE(ids.empty());
  model_->make_gradients();
  auto hidden = [&](const Batch& batch, Tape* tape) {
    Ctx ctx{.dev = *dev_, .pool = pool_, .tape = tape, .dtype = dtype_};
    return values(model_->hidden(ctx, batch, {}).t);
  };
  Batch alone, company;
  alone.append(ids);
  company.append(others.empty() ? ids : others);
  company.append(ids);
  std::vector<double> want = hidden(alone, nullptr), all = hidden(company, nullptr);
  EXPECT_EQ(std::vector<double>(all.end() - static_cast<long>(want.size()), all.end()), want);
  Tape tape(*dev_, pool_);
  EXPECT_EQ(hidden(alone, &tape), want);
}

TEST_P(GoldenModel, StaysWithinTheReferenceErrorInBf16) {
  if (exact_ || std::get<1>(GetParam()) == "ref") GTEST_SKIP() << "bf16 is for the fast devices";
  dtype_ = DType::kBF16;
  double median_of_reference = 0;
  for (auto& [key, value] : case_["tolerance"]["bf16 activations"].items()) {
    if (key.starts_with("observed")) median_of_reference = value[0].get<double>();
  }
  if (!(median_of_reference > 0)) GTEST_SKIP() << "the case says no error of bf16";
  std::vector<double> all, errors;
  size_t v = static_cast<size_t>(model_->config().vocab_size);
  for (size_t k = 0; k < inputs_["sequences"].size(); ++k) {
    std::vector<double> want = values(*expected_->find("seq" + std::to_string(k) + ".logits"));
    std::vector<double> got =
        rows_of(forward(inputs_["sequences"][k]["ids"].get<std::vector<int32_t>>()).logits,
                inputs_["sequences"][k]["logit_positions"]);
    all.insert(all.end(), want.begin(), want.end());
    for (size_t p = 0; p < want.size() / v; ++p) {
      double squares = 0;
      for (size_t i = p * v; i < (p + 1) * v; ++i)
        squares += (want[i] - got[i]) * (want[i] - got[i]);
      errors.push_back(std::sqrt(squares / static_cast<double>(v)));
    }
  }
  std::nth_element(errors.begin(), errors.begin() + static_cast<long>(errors.size() / 2),
                   errors.end());
  EXPECT_LE(errors[errors.size() / 2] / standard_deviation(all), 1.5 * median_of_reference);
}

std::vector<std::string> devices() {
  std::vector<std::string> out = test_devices();
  out.push_back("ref:double");
  return out;
}

std::string test_name(const testing::TestParamInfo<std::tuple<std::string, std::string>>& info) {
  std::string name = std::get<0>(info.param) + "_on_" + std::get<1>(info.param);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GoldenModel);
INSTANTIATE_TEST_SUITE_P(Golden, GoldenModel,
                         testing::Combine(testing::ValuesIn(golden_cases("models")),
                                          testing::ValuesIn(devices())),
                         test_name);

TEST(GoldenModels, AreThere) { SKIP_WITHOUT_CASES(golden_cases("models"), "models/*/case.json"); }

}  // namespace
}  // namespace wels
