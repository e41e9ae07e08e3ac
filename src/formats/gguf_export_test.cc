// Values that a GGUF file has no room for: they are named, and no file is left. (What files hold:
// gguf_checkpoint_test.cc, gguf_deepseek_test.cc.)
#include "formats/gguf_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "base/error.h"
#include "base/rng.h"
#include "base/test_folder.h"
#include "formats/safetensors.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class GgufExportValues : public ::testing::Test {
 protected:
  void SetUp() override {
    c_.architecture = Architecture::kQwen2;
    c_.attention = AttentionKind::kGqa;
    c_.attention_bias = true;
    c_.vocab_size = 96;
    c_.hidden_size = 256;
    c_.intermediate_size = 512;
    c_.num_hidden_layers = 3;
    c_.num_attention_heads = 8;
    c_.num_key_value_heads = 2;
    c_.head_dim = 32;
    c_.max_position_embeddings = 64;
  }
  std::string path(const char* name) const { return folder_ / name; }

  // Normal values of 0.05, but for this one in a row of blk.2.ffn_down.
  void write_model_with(float value) {
    std::vector<TensorSource> tensors;
    Rng rng(11);
    for (const GgufTensorPlan& t : gguf_tensor_plan(c_, false)) {
      int64_t n = 1;
      for (int64_t s : t.shape) n *= s;
      std::vector<float> x(static_cast<size_t>(n));
      for (float& v : x) v = 0.05f * static_cast<float>(rng.normal());
      if (t.name == "blk.2.ffn_down.weight") x[512 * 3 + 7] = value;
      tensors.push_back({t.source, DType::kF32, t.shape,
                         [x](const ByteSink& sink) { sink(x.data(), x.size() * sizeof(float)); }});
    }
    write_safetensors(path("model.safetensors"), tensors);
  }
  // blk.2.ffn_down as that type.
  std::string refusal(DType type) {
    GgufExportOptions options;
    options.choices = {{"blk.2.ffn_down.weight", type}};
    fs::remove(path("m.gguf"));
    try {
      export_gguf(path("m.gguf"), c_, SafetensorsReader(path("model.safetensors")), nullptr,
                  options);
    } catch (const Error& e) {
      EXPECT_FALSE(fs::exists(path("m.gguf")));
      return e.what();
    }
    return "accepted";
  }
  TestFolder folder_;
  ModelConfig c_;
};

TEST_F(GgufExportValues, ThatAreNotFiniteAreNamed) {
  write_model_with(std::numeric_limits<float>::quiet_NaN());
  for (const QuantFormat& f : quant_formats())
    EXPECT_THAT(refusal(f.dtype), HasSubstr("blk.2.ffn_down.weight: value [3, 7] is not finite"))
        << f.gguf_name;
}

// Blocks of most types have scales in f16, which end at 65504.
TEST_F(GgufExportValues, BeyondAType) {
  auto has_room = [](DType t, float value) {
    if (t == DType::kF32 || t == DType::kBF16 || t == DType::kMXFP4) return true;
    return is_quantised(t) && value == 70000;
  };
  for (float value : {70000.0f, 0x1p32f, -0x1p100f}) {
    write_model_with(value);
    for (const QuantFormat& f : quant_formats()) {
      std::string lost = "blk.2.ffn_down.weight: value [3, 7] is too large for ";
      EXPECT_THAT(refusal(f.dtype), HasSubstr(has_room(f.dtype, value) ? "accepted" : lost))
          << f.gguf_name << " " << value;
    }
  }
}

}  // namespace
}  // namespace wels
