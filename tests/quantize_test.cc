// Models quantised and opened again: how far their logits are from the original's, for every type
// and every architecture, and that calibration brings them nearer.
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "backend/registry.h"
#include "base/rng.h"
#include "engine/calibration.h"
#include "formats/gguf_export.h"
#include "formats/gguf_folder_test.h"
#include "formats/hf_config.h"
#include "model/checkpoint.h"
#include "tests/golden.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

// The relative error of a type's weights, as far as this test is concerned.
double weight_error(DType type) {
  switch (type) {
    case DType::kF32:
      return 1e-7;
    case DType::kF16:
      return 0.0002;
    case DType::kBF16:
      return 0.0017;
    case DType::kQ8_0:
      return 0.005;
    case DType::kQ6_K:
      return 0.017;
    case DType::kQ5_K:
    case DType::kQ5_1:
    case DType::kQ5_0:
      return 0.04;
    case DType::kQ3_K:
      return 0.145;
    case DType::kQ2_K:
      return 0.26;
    default:
      return 0.08;  // those of 4 bits
  }
}

class Quantized : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("wels_quantize_test_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    dev_ = make_device("cpu");
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path() const { return (folder_ / "m.gguf").string(); }

  // A model of rows of 256 with random weights, as a folder.
  std::string wide_model(Architecture a) {
    ModelConfig c;
    c.architecture = a;
    c.vocab_size = 256;
    c.hidden_size = c.intermediate_size = 256;
    c.num_hidden_layers = 2;
    c.num_attention_heads = c.num_key_value_heads = 2;
    c.max_position_embeddings = 512;
    c.initializer_range = 0.06;  // 1 / sqrt(256): every product keeps its input's size
    if (a == Architecture::kDeepseekV3) {
      c.q_lora_rank = c.kv_lora_rank = c.qk_nope_head_dim = c.v_head_dim = 256;
      c.qk_rope_head_dim = 32;
      c.n_routed_experts = 4;
      c.n_shared_experts = 1;
      c.num_experts_per_tok = 2;
      c.moe_intermediate_size = 256;
      c.first_k_dense_replace = 1;
      c.n_group = c.topk_group = 1;
    } else {
      c.attention = AttentionKind::kGqa;
      c.attention_bias = a == Architecture::kQwen2;
      c.head_dim = 128;
      c.num_key_value_heads = 1;
      c.tie_word_embeddings = a == Architecture::kQwen2;
    }
    Model model(c);
    model.init(DType::kF32, 7, false);
    std::string folder = (folder_ / architecture_name(a)).string();
    fs::create_directories(folder);
    save_model(folder, model, DType::kF32);
    return folder;
  }
  void write(const std::string& folder, DType type, const ColumnImportance* importance = nullptr) {
    GgufExportOptions options;
    options.dtype = type;
    options.include_mtp = false;
    options.importance = importance;
    export_gguf(path(), config_of_folder(folder), SafetensorsReader(folder), nullptr, options);
  }
  std::unique_ptr<Model> open() {
    auto file = std::make_shared<GgufCheckpoint>(path());
    auto model = std::make_unique<Model>(file->config());
    load_weights(*model, file, WeightStorage::kMapped);
    return model;
  }
  // experts: what is chosen before (Batch::experts), or where it is empty becomes what is chosen
  // now: where a router's choice is close, a small error would send a token to another expert.
  std::vector<double> logits(Model& model, const std::vector<int32_t>& ids,
                             std::vector<int16_t>& experts) {
    Pool pool;
    Ctx ctx{.dev = *dev_, .pool = pool, .tape = nullptr, .dtype = DType::kF32};
    Batch batch;
    batch.append(ids);
    batch.experts = experts;
    ForwardRecord record;
    Var z = model.logits(ctx, model.hidden(ctx, batch, {}, &record));
    if (experts.empty()) {
      for (int64_t row = 0; row < batch.rows(); ++row) {
        for (const ForwardRecord::Layer& l : record.routed) {
          const int32_t* chosen = l.routed.expert.t.row<int32_t>(row);
          for (int64_t j = 0; j < l.routed.expert.t.cols; ++j)
            experts.push_back(static_cast<int16_t>(chosen[j]));
        }
      }
    }
    return values(z.t);
  }
  static std::vector<int32_t> ids_of(const Model& model, int64_t n, uint64_t seed) {
    Rng rng(seed);
    std::vector<int32_t> ids(static_cast<size_t>(n));
    for (int32_t& id : ids)
      id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.config().vocab_size)));
    return ids;
  }
  static double difference(const std::vector<double>& got, const std::vector<double>& want) {
    double error = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      size += want[i] * want[i];
    }
    return std::sqrt(error / size);
  }
  // Rows that are no multiple of 32 stay f16.
  static bool mostly_quantised(Model& model) {
    int64_t quantised = 0, all = 0;
    visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
      if (s.kind != WeightKind::kMatrix || s.full_precision) return;
      all += w.rows * w.cols * s.experts;
      quantised += is_quantised(w.value[0].dtype) ? w.rows * w.cols * s.experts : 0;
    });
    return 2 * quantised > all;
  }
  // grows: by how much the layers make an error larger. Logits of another model would be off
  // by 1.4.
  void expect_near_original(const std::string& folder, double grows) {
    std::unique_ptr<Model> original = load_model(folder, WeightStorage::kMapped);
    std::vector<int32_t> ids = ids_of(*original, 24, 3);
    std::vector<int16_t> experts;
    std::vector<double> want = logits(*original, ids, experts);
    double precise = 0;
    for (const QuantMix& mix : quant_mixes()) {
      write(folder, mix.base);
      std::unique_ptr<Model> quantised = open();
      double got = difference(logits(*quantised, ids, experts), want);
      RecordProperty(fs::path(folder).filename().string() + "_" + mix.name, std::to_string(got));
      EXPECT_LT(got, std::min(grows * weight_error(mix.base), 1.0)) << folder << " " << mix.name;
      if (mix.base == DType::kQ8_0) precise = got;
      bool coarse = mix.base == DType::kQ2_K && mostly_quantised(*quantised);
      EXPECT_TRUE(!coarse || got > 3 * precise) << folder << ": is it quantised at all?";
    }
  }
  fs::path folder_;
  std::unique_ptr<Device> dev_;
};

TEST_F(Quantized, ModelsOfEveryArchitectureStayNearTheOriginal) {
  for (Architecture a : {Architecture::kDeepseekV3, Architecture::kQwen2, Architecture::kLlama})
    expect_near_original(wide_model(a), 5.5);
}

TEST_F(Quantized, GoldenModelsStayNearTheOriginal) {
  SKIP_WITHOUT_GOLDEN();
  for (const std::string& name : golden_cases("models")) {
    std::string folder = golden_folder() + "/models/" + name;
    std::string why = beyond_gguf(config_of_folder(folder));
    if (why.empty()) {
      bool experts = load_hf_config(folder).n_routed_experts > 0;  // routers' weights differ too
      expect_near_original(folder, experts ? 50 : 13);
    } else {
      std::cout << name << " left out: " << why << "\n";
    }
  }
}

// Inputs of very different sizes, as trained models have them: the gains of the norms differ by
// column.
TEST_F(Quantized, CalibrationBringsTheLogitsNearer) {
  for (Architecture a : {Architecture::kDeepseekV3, Architecture::kLlama}) {
    std::string folder = wide_model(a), uneven = folder + "_uneven";
    std::unique_ptr<Model> model = load_model(folder, WeightStorage::kF32);
    visit_weights(model->config(), model->weights(), [&](Weight& w, const WeightSpec& s) {
      if (s.kind != WeightKind::kNorm) return;
      Rng rng(9);
      for (int64_t i = 0; i < s.cols; ++i)
        w.value[0].row<float>(0)[i] = static_cast<float>(std::exp(rng.normal() - 0.5));
    });
    fs::create_directories(uneven);
    save_model(uneven, *model, DType::kF32);
    Calibration calibration(*dev_, *model, DType::kF32, false);
    for (uint64_t seed : {21, 22, 23, 24}) calibration.add(ids_of(*model, 128, seed));
    ColumnImportance importance = calibration.importance();
    std::vector<int32_t> ids = ids_of(*model, 64, 3);
    std::vector<int16_t> experts;
    std::vector<double> want = logits(*model, ids, experts);
    for (DType type : {DType::kQ6_K, DType::kQ4_K, DType::kQ3_K, DType::kQ4_1}) {
      write(uneven, type);
      double plain = difference(logits(*open(), ids, experts), want);
      write(uneven, type, &importance);
      double calibrated = difference(logits(*open(), ids, experts), want);
      RecordProperty(std::string(architecture_name(a)) + "_" + std::string(name(type)),
                     std::to_string(plain) + " -> " + std::to_string(calibrated));
      EXPECT_LT(calibrated, 0.92 * plain) << name(type);
    }
  }
}

}  // namespace
}  // namespace wels
