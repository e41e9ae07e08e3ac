// GGUF files as models: the logits of the same weights loaded from Hugging Face's folder, bit for
// bit, on every device; and of every quantised type those of its decoded values: bit for bit where
// products take those, and as far as activations in int8 go where they are the devices' own.
#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "backend/ref/ref_device.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "formats/gguf_export.h"
#include "formats/gguf_folder_test.h"
#include "formats/hf_config.h"
#include "model/tiny_config_test.h"
#include "tensor/quant.h"
#include "tests/golden.h"

namespace wels {
namespace {

// Of a whole prefill, then of the last tokens one by one over a cache (both forms of MLA).
std::vector<double> logits(Device& dev, Model& model, DType dtype) {
  Pool pool;
  Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = dtype};
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 9; ++i)
    ids.push_back(i * 37 % static_cast<int32_t>(model.config().vocab_size));
  Batch whole;
  whole.append(ids);
  std::vector<double> out = values(model.logits(ctx, model.hidden(ctx, whole, {})).t);
  KvCache kv(model.config(), dtype, 64);
  int32_t sequence = kv.add_sequence();
  ForwardOptions options;
  options.kv = &kv;
  size_t at = 0;
  for (size_t n : {size_t{6}, size_t{1}, size_t{2}}) {
    Batch batch;
    batch.append(std::span(ids).subspan(at, n), static_cast<int64_t>(at), sequence);
    std::vector<double> z = values(model.logits(ctx, model.hidden(ctx, batch, options)).t);
    out.insert(out.end(), z.begin(), z.end());
    at += n;
  }
  if (model.config().num_nextn_predict_layers > 0) {
    std::vector<int32_t> rows(ids.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
    Model::MtpOut mtp = model.mtp(ctx, 0, model.hidden(ctx, whole, {}), rows, whole, {});
    std::vector<double> z = values(model.logits(ctx, mtp.hidden).t);
    out.insert(out.end(), z.begin(), z.end());
  }
  return out;
}

// RefDevice whose products take the decoded values of quantised weights, and so do not round x:
// what a file's blocks must give bit for bit if every tensor is where it belongs.
template <class R>
class DecodedProducts : public RefDevice<R> {
 public:
  void matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y, bool fp8) override {
    std::vector<Mat<float>> values;
    RefDevice<R>::matmul(x, decoded(w, values), bias, y, fp8);
  }
  void grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y,
                      bool fp8) override {
    std::vector<Mat<float>> values;
    RefDevice<R>::grouped_matmul(x, decoded(w, values), offsets, y, fp8);
  }

 private:
  static Weight decoded(const Weight& w, std::vector<Mat<float>>& values) {
    Weight out = w;
    if (!is_quantised(w.value[0].dtype)) return out;
    for (const Tensor& t : w.value) values.push_back(read<float>(t));
    for (size_t e = 0; e < values.size(); ++e)
      out.value[e] = Tensor(values[e].v.data(), DType::kF32, w.rows, w.cols);
    return out;
  }
};

class GgufCheckpointTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() /
            ("wels_checkpoint_test_" + std::to_string(::getpid()) + ".gguf");
    dev_ = make_device(GetParam());
    exact_ = GetParam() == "ref:double";
    dtypes_ = {exact_ ? DType::kF64 : DType::kF32};
    if (GetParam().starts_with("cpu")) dtypes_.push_back(DType::kBF16);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::unique_ptr<Model> gguf(WeightStorage storage) {
    auto file = std::make_shared<GgufCheckpoint>(path_.string());
    auto model = std::make_unique<Model>(file->config());
    load_weights(*model, file, storage);
    return model;
  }
  WeightStorage decoded() const { return exact_ ? WeightStorage::kF64 : WeightStorage::kF32; }
  void expect_same_logits(Model& a, Model& b) {
    for (DType t : dtypes_) {
      std::vector<double> x = logits(*dev_, a, t), y = logits(*dev_, b, t);
      for (double z : x) ASSERT_TRUE(std::isfinite(z)) << name(t);
      EXPECT_EQ(x, y) << name(t);
    }
  }

  // Rows that are no multiple of 32 stay f16.
  static bool has_quantised_matrix(Model& model) {
    bool any = false;
    visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
      any |= s.kind == WeightKind::kMatrix && is_quantised(w.value[0].dtype);
    });
    return any || is_quantised(model.head().value[0].dtype);
  }

  // A quarter of the rows of logits differ by no more than what rounding activations to int8 does;
  // further ones by experts that it made others. A tensor in the wrong place would make all differ
  // by as much as the logits themselves.
  void expect_logits_of_decoded(Model& quantised, Model& decoded) {
    for (DType t : dtypes_) {
      std::vector<double> x = logits(*dev_, quantised, t), y = logits(*dev_, decoded, t), errors;
      ASSERT_EQ(x.size(), y.size());
      EXPECT_TRUE(x != y || !has_quantised_matrix(quantised)) << "activations were not rounded";
      size_t v = static_cast<size_t>(decoded.config().vocab_size);
      for (size_t row = 0; row < x.size(); row += v) {
        double sum = 0;
        for (size_t i = row; i < row + v; ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
        errors.push_back(std::sqrt(sum / static_cast<double>(v)));
      }
      std::sort(errors.begin(), errors.end());
      EXPECT_LE(errors[errors.size() / 4], 0.2 * standard_deviation(y)) << name(t);
    }
    if (GetParam() == "ref") dev_ = std::make_unique<DecodedProducts<float>>();
    if (exact_) dev_ = std::make_unique<DecodedProducts<double>>();
    if (!GetParam().starts_with("cpu")) expect_same_logits(quantised, decoded);
    dev_ = make_device(GetParam());
  }

  std::filesystem::path path_;
  std::unique_ptr<Device> dev_;
  std::vector<DType> dtypes_;
  bool exact_ = false;
};

TEST_P(GgufCheckpointTest, GivesTheLogitsOfTheFolderItWasMadeFrom) {
  SKIP_WITHOUT_GOLDEN();
  for (const std::string& golden : golden_cases("models")) {
    std::string folder = golden_folder() + "/models/" + golden;
    ModelConfig cfg = checkpoint_config(folder, SafetensorsReader(folder));
    if (std::string why = beyond_gguf(cfg); !why.empty()) {
      std::cout << golden << " left out: " << why << "\n";
      continue;
    }
    bool bf16_matrices = true;
    SafetensorsReader stored(folder);
    for (const TensorEntry& e : stored.tensors())
      bf16_matrices &= e.shape.size() != 2 || e.name.ends_with(".gate.weight") ||
                       beside_the_weights(e.name, cfg) || e.dtype == DType::kBF16;
    for (DType type : {DType::kF32, DType::kBF16, DType::kQ8_0, DType::kQ4_1}) {
      SCOPED_TRACE(golden + " " + std::string(name(type)));
      GgufExportOptions options;
      options.dtype = type;
      export_gguf(path_.string(), cfg, SafetensorsReader(folder), nullptr, options);
      std::unique_ptr<Model> mapped = gguf(WeightStorage::kMapped);
      // FP8 times its scale is rounded to f32 on its way into a file, so the folder's is too.
      bool same_values = type == DType::kF32 || (type == DType::kBF16 && bf16_matrices);
      WeightStorage from = type == DType::kBF16 ? WeightStorage::kMapped : WeightStorage::kF32;
      std::unique_ptr<Model> other = same_values ? load_model(folder, from) : gguf(decoded());
      is_quantised(type) ? expect_logits_of_decoded(*mapped, *other)
                         : expect_same_logits(*mapped, *other);
    }
  }
}

// Blocks whose values are of a weight's size: random bytes, kept where they happen to be.
std::vector<uint8_t> random_blocks(const QuantFormat& f, int64_t count, Rng& rng) {
  size_t bytes = static_cast<size_t>(info(f.dtype).bytes);
  std::vector<std::vector<uint8_t>> good;
  std::vector<float> x(static_cast<size_t>(info(f.dtype).block));
  while (good.size() < 24) {
    std::vector<uint8_t> block(bytes);
    for (uint8_t& b : block) b = static_cast<uint8_t>(rng.below(256));
    f.decode(block.data(), x.data(), info(f.dtype).block);
    float most = 0;
    for (float v : x) most = std::isfinite(v) ? std::max(most, std::fabs(v)) : INFINITY;
    if (most > 1e-3f && most < 0.5f) good.push_back(block);
  }
  std::vector<uint8_t> out;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<uint8_t>& block = good[static_cast<size_t>(rng.below(good.size()))];
    out.insert(out.end(), block.begin(), block.end());
  }
  return out;
}

TEST_P(GgufCheckpointTest, EveryTypeOfFileGivesTheLogitsOfItsDecodedValues) {
  ModelConfig cfg;
  cfg.vocab_size = 40;
  cfg.hidden_size = cfg.kv_lora_rank = cfg.q_lora_rank = cfg.qk_nope_head_dim = 256;
  cfg.num_hidden_layers = 2;
  cfg.intermediate_size = cfg.moe_intermediate_size = 256;
  cfg.num_attention_heads = cfg.num_key_value_heads = 2;
  cfg.qk_rope_head_dim = 32;
  cfg.v_head_dim = 128;
  cfg.n_routed_experts = 4;
  cfg.num_experts_per_tok = 2;
  cfg.n_shared_experts = 1;
  cfg.first_k_dense_replace = 1;
  cfg.max_position_embeddings = 64;
  Rng rng(7);
  for (const QuantFormat& f : quant_formats()) {
    SCOPED_TRACE(f.gguf_name);
    std::vector<TensorSource> tensors;
    for (const GgufTensorPlan& t : gguf_tensor_plan(cfg, true)) {
      const QuantFormat& format = t.full_precision ? *find_quant_format(DType::kF32) : f;
      int64_t n = 1;
      for (int64_t s : t.shape) n *= s;
      std::vector<uint8_t> bytes = random_blocks(format, n / info(format.dtype).block, rng);
      tensors.push_back({t.name, format.dtype, t.shape,
                         [bytes](const ByteSink& sink) { sink(bytes.data(), bytes.size()); }});
    }
    write_gguf(path_.string(), gguf_metadata(cfg, nullptr, {}), tensors);
    std::unique_ptr<Model> mapped = gguf(WeightStorage::kMapped), values = gguf(decoded());
    is_quantised(f.dtype) ? expect_logits_of_decoded(*mapped, *values)
                          : expect_same_logits(*mapped, *values);
    EXPECT_EQ(mapped->weights().blocks[1].experts.experts.up.value[3].dtype, f.dtype);
  }
}

TEST(Checkpoint, NaNInARouterOrAVectorIsNamedAlsoWhereWeightsAreMapped) {
  std::string folder = testing::TempDir() + "wels_nan_" + std::to_string(::getpid());
  Model model(tiny_moe_config(40));
  model.init(DType::kF32, 3, false);
  BlockWeights& block = model.weights().blocks.back();
  auto refusal = [&](Weight& w, int64_t row, int64_t column) -> std::string {
    float& x = w.value[0].row<float>(row)[column];
    float before = x;
    x = NAN;
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    save_model(folder, model, DType::kF32);
    x = before;
    try {
      load_model(folder, WeightStorage::kMapped);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(block.experts.router, 1, 2),
              testing::HasSubstr("mlp.gate.weight: value [1, 2] is not finite"));
  EXPECT_THAT(refusal(block.experts.bias, 0, 3),
              testing::HasSubstr("e_score_correction_bias: value [0, 3] is not finite"));
  EXPECT_THAT(refusal(block.attention_norm, 0, 0), testing::HasSubstr("input_layernorm.weight"));
  EXPECT_EQ(refusal(block.attention.o, 0, 0), "") << "of large matrices it shows in the logits";
  std::filesystem::remove_all(folder);
}

TEST(Checkpoint, ConfigAndTensorsMayDifferInTheirMtpModules) {
  std::string folder = testing::TempDir() + "wels_mtp_" + std::to_string(::getpid());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  ModelConfig two = tiny_moe_config(40), one = two, none = two;
  two.num_nextn_predict_layers = 2;
  one.num_nextn_predict_layers = 1;
  Model model(one);
  model.init(DType::kF32, 3, false);
  save_model(folder, model, DType::kF32);
  auto modules = [&](const ModelConfig& config, const char* note) {
    write_file_atomic(folder + "/config.json", to_hf_config(config));
    testing::internal::CaptureStderr();
    int64_t n = load_model(folder, WeightStorage::kMapped)->config().num_nextn_predict_layers;
    EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr(note));
    return n;
  };
  EXPECT_EQ(modules(one, ""), 1);
  EXPECT_EQ(modules(two, "has 1 of the 2 MTP modules"), 1);
  EXPECT_EQ(modules(none, "layers 2 are beyond the 2 of config.json"), 0);
  std::filesystem::remove_all(folder);
}

std::vector<std::string> devices() {
  std::vector<std::string> out = test_devices();
  out.push_back("ref:double");
  return out;
}
INSTANTIATE_TEST_SUITE_P(Devices, GgufCheckpointTest, testing::ValuesIn(devices()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string n = info.param;
                           std::replace(n.begin(), n.end(), ':', '_');
                           return n;
                         });

}  // namespace
}  // namespace wels
