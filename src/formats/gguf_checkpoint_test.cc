#include "formats/gguf_checkpoint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>

#include "base/error.h"
#include "formats/gguf_deepseek.h"
#include "formats/hf_config.h"
#include "formats/safetensors.h"
#include "tensor/float_formats.h"
#include "tensor/quant.h"

namespace wels {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// --- Config alone: the published models, as files of metadata. ---

ModelConfig v3() {
  ModelConfig c;
  c.vocab_size = 129280;
  c.hidden_size = 7168;
  c.num_hidden_layers = 61;
  c.intermediate_size = 18432;
  c.num_attention_heads = c.num_key_value_heads = 128;
  c.q_lora_rank = 1536;
  c.kv_lora_rank = 512;
  c.qk_nope_head_dim = c.v_head_dim = 128;
  c.qk_rope_head_dim = 64;
  c.n_routed_experts = 256;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 8;
  c.moe_intermediate_size = 2048;
  c.first_k_dense_replace = 3;
  c.n_group = 8;
  c.topk_group = 4;
  c.routed_scaling_factor = 2.5;
  c.max_position_embeddings = 163840;
  c.rope.scaling = RopeScaling::kYarn;
  c.rope.factor = 40;
  c.rope.original_max_position_embeddings = 4096;
  c.rope.mscale = c.rope.mscale_all_dim = 1;
  return c;
}
ModelConfig v2() {
  ModelConfig c = v3();
  c.architecture = Architecture::kDeepseekV2;
  c.vocab_size = 102400;
  c.hidden_size = 5120;
  c.num_hidden_layers = 60;
  c.intermediate_size = 12288;
  c.n_routed_experts = 160;
  c.n_shared_experts = 2;
  c.num_experts_per_tok = 6;
  c.moe_intermediate_size = 1536;
  c.first_k_dense_replace = 1;
  c.topk_group = 3;
  c.scoring_func = ScoringFunc::kSoftmax;
  c.topk_method = TopkMethod::kGroupLimitedGreedy;
  c.norm_topk_prob = false;
  c.routed_scaling_factor = 16;
  c.rope.mscale = c.rope.mscale_all_dim = 0.707;
  return c;
}
ModelConfig v2_lite() {
  ModelConfig c = v2();
  c.hidden_size = 2048;
  c.num_hidden_layers = 27;
  c.intermediate_size = 10944;
  c.num_attention_heads = c.num_key_value_heads = 16;
  c.q_lora_rank = 0;
  c.n_routed_experts = 64;
  c.moe_intermediate_size = 1408;
  c.n_group = c.topk_group = 1;
  c.topk_method = TopkMethod::kGreedy;
  c.routed_scaling_factor = 1;
  return c;
}
ModelConfig distill(Architecture a, int64_t d, int64_t layers, int64_t ffn, int64_t heads,
                    int64_t kv_heads, int64_t vocab) {
  ModelConfig c;
  c.architecture = a;
  c.attention = AttentionKind::kGqa;
  c.attention_bias = a == Architecture::kQwen2;
  c.hidden_size = d;
  c.num_hidden_layers = layers;
  c.intermediate_size = ffn;
  c.num_attention_heads = heads;
  c.num_key_value_heads = kv_heads;
  c.head_dim = d / heads;
  c.vocab_size = vocab;
  c.max_position_embeddings = 131072;
  if (a == Architecture::kQwen2) {
    c.rope.theta = d == 1536 || d == 3584 ? 10000 : 1000000;
    return c;
  }
  c.rms_norm_eps = 1e-5;
  c.rope.theta = 500000;
  c.rope.scaling = RopeScaling::kLlama3;
  c.rope.factor = 8;
  c.rope.original_max_position_embeddings = 8192;
  return c;
}

// What GGUF does not hold.
ModelConfig comparable(ModelConfig c) {
  c.initializer_range = 0;
  c.torch_dtype = "bfloat16";
  c.fp8 = {};
  c.aux_loss_alpha = 0;
  c.seq_aux = true;
  c.bos_token_id = c.pad_token_id = -1;
  c.eos_token_ids = {};
  return c;
}

TensorSource floats(const std::string& name, std::vector<int64_t> shape,
                    std::vector<float> values) {
  return {name, DType::kF32, std::move(shape),
          [values](const ByteSink& sink) { sink(values.data(), values.size() * sizeof(float)); }};
}

class GgufFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("wels_gguf_checkpoint_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const std::string& name = "m.gguf") const { return (folder_ / name).string(); }

  // The metadata of c as written, but for `edit`, and what its tensors tell about the config.
  ModelConfig through_metadata(const ModelConfig& c,
                               const std::function<void(GgufMetadata&)>& edit = {}) {
    GgufMetadata metadata = gguf_metadata(c, nullptr, {});
    if (edit) edit(metadata);
    std::vector<TensorSource> tensors;
    if (!c.tie_word_embeddings) tensors.push_back(floats("output.weight", {1}, {0}));
    if (c.has_router_bias()) tensors.push_back(floats("blk.3.exp_probs_b.bias", {1}, {0}));
    if (c.rope.scaling == RopeScaling::kLlama3)
      tensors.push_back(floats("rope_freqs.weight", {c.head_dim / 2}, gguf_rope_factors(c)));
    write_gguf(path(), metadata, tensors);
    return gguf_model_config(GgufReader(path()).content());
  }
  std::string refusal_of_metadata(const ModelConfig& c,
                                  const std::function<void(GgufMetadata&)>& edit) {
    try {
      through_metadata(c, edit);
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }
  fs::path folder_;
};

void remove_key(GgufMetadata& m, const std::string& ending) {
  size_t n = std::erase_if(m, [&](auto& pair) { return pair.first.ends_with(ending); });
  EXPECT_GT(n, 0u) << ending;
}
void set_key(GgufMetadata& m, const std::string& key, GgufValue value) {
  for (auto& [k, v] : m) {
    if (k == key) {
      v = std::move(value);
      return;
    }
  }
  m.emplace_back(key, std::move(value));
}

TEST_F(GgufFolder, ConfigsOfThePublishedModelsComeBack) {
  ModelConfig v3_mtp = v3();
  v3_mtp.num_nextn_predict_layers = 1;
  ModelConfig tied = distill(Architecture::kQwen2, 1536, 28, 8960, 12, 2, 151936);
  tied.tie_word_embeddings = true;
  for (const ModelConfig& c : {v3(), v3_mtp, v2(), v2_lite(), tied,
                               distill(Architecture::kQwen2, 1536, 28, 8960, 12, 2, 151936),
                               distill(Architecture::kQwen2, 3584, 28, 18944, 28, 4, 152064),
                               distill(Architecture::kQwen2, 5120, 48, 13824, 40, 8, 152064),
                               distill(Architecture::kQwen2, 5120, 64, 27648, 40, 8, 152064),
                               distill(Architecture::kLlama, 4096, 32, 14336, 32, 8, 128256),
                               distill(Architecture::kLlama, 8192, 80, 28672, 64, 8, 128256)}) {
    EXPECT_EQ(comparable(through_metadata(c)), comparable(c))
        << c.hidden_size << " " << c.num_hidden_layers;
  }
}

TEST_F(GgufFolder, FilesWithoutGroupsGetThoseOfTheModelWithAsManyExpertsAndANote) {
  auto groupless = [](GgufMetadata& m) {
    remove_key(m, ".expert_group_count");
    remove_key(m, ".expert_group_used_count");
  };
  for (const ModelConfig& c : {v3(), v2(), v2_lite()}) {
    ::testing::internal::CaptureStderr();
    EXPECT_EQ(comparable(through_metadata(c, groupless)), comparable(c)) << c.n_routed_experts;
    std::string note = ::testing::internal::GetCapturedStderr();
    if (c.n_group == 1) {
      EXPECT_EQ(note, "");
    } else {
      EXPECT_THAT(note, HasSubstr("deepseek2.expert_group_count"));
      EXPECT_THAT(note, HasSubstr(c.n_routed_experts == 256 ? "4 of 8 groups as in DeepSeek-V3"
                                                            : "3 of 8 groups as in DeepSeek-V2"));
    }
  }
}

// Before the split of kv_b, lengths were those of a head.
void as_before_the_split(GgufMetadata& m, const ModelConfig& c) {
  remove_key(m, ".key_length_mla");
  remove_key(m, ".value_length_mla");
  set_key(m, "deepseek2.attention.key_length", gguf_u32(static_cast<uint32_t>(c.qk_head_dim())));
  set_key(m, "deepseek2.attention.value_length", gguf_u32(static_cast<uint32_t>(c.v_head_dim)));
  set_key(m, "deepseek2.attention.head_count_kv",
          gguf_u32(static_cast<uint32_t>(c.num_key_value_heads)));
}

TEST_F(GgufFolder, MetadataOfBeforeTheSplitOfKvBGiveTheSameConfig) {
  for (const ModelConfig& c : {v3(), v2(), v2_lite()}) {
    EXPECT_EQ(comparable(through_metadata(c, [&](GgufMetadata& m) { as_before_the_split(m, c); })),
              comparable(c));
  }
}

TEST_F(GgufFolder, Llama3ScalingIsFoundAgainFromItsDivisors) {
  for (int64_t head_dim : {16, 64, 128}) {
    for (double factor : {8.0, 32.0}) {
      for (int64_t original : {64, 512, 8192, 100000}) {
        ModelConfig c = distill(Architecture::kLlama, 4 * head_dim, 2, 64, 4, 2, 100);
        c.rope.factor = factor;
        c.rope.original_max_position_embeddings = original;
        ModelConfig got = through_metadata(c);
        EXPECT_EQ(gguf_rope_factors(got), gguf_rope_factors(c)) << head_dim << " " << original;
        EXPECT_EQ(got.rope.factor, factor);
      }
    }
  }
  ModelConfig c = distill(Architecture::kLlama, 64, 2, 64, 4, 2, 100);
  c.rope.high_freq_factor = 16;  // nobody's
  EXPECT_THAT(refusal_of_metadata(c, {}), HasSubstr("rope_freqs.weight divides frequency"));
}

TEST_F(GgufFolder, RefusesWhatItCannotComputeByName) {
  ModelConfig llama = distill(Architecture::kLlama, 64, 2, 64, 4, 2, 100);
  EXPECT_EQ(refusal_of_metadata(llama, {}), "accepted");
  auto with = [&](const ModelConfig& c, const std::string& key, GgufValue value) {
    return refusal_of_metadata(c, [&](GgufMetadata& m) { set_key(m, key, value); });
  };
  EXPECT_THAT(with(llama, "general.architecture", gguf_string("gemma3")),
              HasSubstr("architecture \"gemma3\" is not supported; supported: deepseek2, qwen2"));
  EXPECT_THAT(with(llama, "llama.expert_count", gguf_u32(8)), HasSubstr("llama.expert_count is 8"));
  EXPECT_THAT(with(llama, "llama.attention.sliding_window", gguf_u32(4096)),
              HasSubstr("llama.attention.sliding_window 4096"));
  EXPECT_THAT(with(llama, "llama.rope.dimension_count", gguf_u32(8)),
              HasSubstr("llama.rope.dimension_count 8 of heads of 16"));
  EXPECT_THAT(with(llama, "llama.rope.scaling.type", gguf_string("longrope")),
              HasSubstr("\"longrope\" is not supported"));
  EXPECT_THAT(with(v3(), "deepseek2.attention.temperature_scale", gguf_f32(0.1f)),
              HasSubstr("deepseek2.attention.temperature_scale 0.1"));
  EXPECT_THAT(refusal_of_metadata(v3(), [](GgufMetadata& m) { remove_key(m, "kv_lora_rank"); }),
              HasSubstr("deepseek2.attention.kv_lora_rank is missing"));
}

// --- Weights: the golden models. ---

std::vector<float> values(const TensorEntry& e) {
  std::vector<float> out(static_cast<size_t>(e.elements()));
  find_quant_format(e.dtype)->decode(e.data.data(), out.data(), e.elements());
  return out;
}
std::vector<float> hf_values(const SafetensorsReader& r, const ModelConfig& c,
                             const TensorEntry& e) {
  if (e.dtype != DType::kF8E4M3) return values(e);
  std::vector<float> out(static_cast<size_t>(e.elements()));
  std::vector<float> scales = values(r.at(e.name + "_scale_inv"));
  fp8_dequantise_blocks(e.data.data(), scales.data(), e.shape[0], e.shape[1], c.fp8.block_rows,
                        c.fp8.block_cols, out.data());
  return out;
}
// n values, `step` apart, as they come back from a row of that type.
void round_trip(DType type, float* x, int64_t n, int64_t step) {
  if (n % info(type).block != 0) type = DType::kF16;
  std::vector<float> row(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) row[static_cast<size_t>(i)] = x[i * step];
  std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(type, n)));
  find_quant_format(type)->encode(row.data(), bytes.data(), n);
  find_quant_format(type)->decode(bytes.data(), row.data(), n);
  for (int64_t i = 0; i < n; ++i) x[i * step] = row[static_cast<size_t>(i)];
}
// What a weight is after it was in a file of that type: rows encoded, but the keys of kv_b, which
// lie transposed there, by columns of a head.
void as_in_file(DType type, GgufKvB form, const ModelConfig& c, const TensorEntry& e,
                std::vector<float>& x) {
  if (e.shape.size() == 1 || e.name.ends_with("mlp.gate.weight")) return;  // full precision
  int64_t cols = e.shape[1], dn = c.qk_nope_head_dim, dv = c.v_head_dim;
  bool split = form == GgufKvB::kSplit && e.name.ends_with("kv_b_proj.weight");
  for (int64_t r = 0; r < e.shape[0]; ++r) {
    if (split && r % (dn + dv) < dn) continue;
    round_trip(type, x.data() + r * cols, cols, 1);
  }
  for (int64_t h = 0; split && h < c.num_attention_heads; ++h) {
    for (int64_t i = 0; i < cols; ++i)
      round_trip(type, x.data() + h * (dn + dv) * cols + i, dn, cols);
  }
}

class GgufWeightsTest : public GgufFolder {
 protected:
  void SetUp() override {
    GgufFolder::SetUp();
    const char* env = std::getenv("WELS_GOLDEN");
    models_ = fs::path(env ? env : "../shared/golden") / "models";
    if (!fs::exists(models_))
      GTEST_SKIP() << "no reference data at " << models_ << "; set WELS_GOLDEN";
  }
  std::string model(const std::string& name) const { return (models_ / name).string(); }
  void export_model(const std::string& name, DType type = DType::kF32) {
    GgufExportOptions options;
    options.dtype = type;
    export_gguf(path(), load_hf_config(model(name)), SafetensorsReader(model(name)), nullptr,
                options);
  }
  // The file written again with other metadata and tensors.
  void edit(const std::function<void(GgufMetadata&, std::vector<TensorSource>&)>& change) {
    {
      GgufReader from(path());
      GgufMetadata metadata = from->metadata;
      std::vector<TensorSource> tensors;
      for (const TensorEntry& t : from->tensors) tensors.push_back(copy_of(t));
      change(metadata, tensors);
      write_gguf(path("edited.gguf"), metadata, tensors);
    }
    fs::rename(path("edited.gguf"), path());
  }
  // Old form: the halves of every kv_b replaced by the whole.
  void join_kv_b(const std::string& name, DType type) {
    ModelConfig c = load_hf_config(model(name));
    SafetensorsReader hf(model(name));
    if (c.kv_lora_rank % info(type).block != 0) type = DType::kF16;
    edit([&](GgufMetadata& m, std::vector<TensorSource>& tensors) {
      as_before_the_split(m, c);
      std::erase_if(tensors, [](auto& t) { return t.name.ends_with(".attn_k_b.weight"); });
      for (TensorSource& t : tensors) {
        size_t at = t.name.find(".attn_v_b.weight");
        if (at == std::string::npos) continue;
        std::string layer = t.name.substr(4, at - 4);
        const TensorEntry& e = hf.at("model.layers." + layer + ".self_attn.kv_b_proj.weight");
        std::vector<float> x = hf_values(hf, c, e);
        t = {"blk." + layer + ".attn_kv_b.weight", type, e.shape, [x, type](const ByteSink& sink) {
               int64_t n = static_cast<int64_t>(x.size());
               std::vector<uint8_t> bytes(static_cast<size_t>(row_bytes(type, n)));
               find_quant_format(type)->encode(x.data(), bytes.data(), n);
               sink(bytes.data(), bytes.size());
             }};
      }
    });
  }
  // Every weight of the checkpoint is there under its name, with the value that the file gives it.
  void expect_weights_of(const std::string& name, DType type, GgufKvB form) {
    ModelConfig c = load_hf_config(model(name));
    SafetensorsReader hf(model(name));
    GgufCheckpoint g(path());
    EXPECT_EQ(comparable(g.config()), comparable(c));
    std::set<std::string> names;
    for (const TensorEntry& e : g.tensors()) {
      ASSERT_TRUE(names.insert(e.name).second) << e.name;
      const TensorEntry* from = hf.find(e.name);
      ASSERT_NE(from, nullptr) << e.name;
      ASSERT_EQ(e.shape, from->shape) << e.name;
      ASSERT_TRUE(e.aligned()) << e.name;
      std::vector<float> want = hf_values(hf, c, *from);
      as_in_file(type, form, c, e, want);
      ASSERT_EQ(values(e), want) << e.name;
    }
    for (const TensorEntry& e : hf.tensors()) {
      bool copy =
          e.name.ends_with("_scale_inv") || e.name.ends_with("shared_head.head.weight") ||
          (e.name.ends_with(".embed_tokens.weight") && e.name != "model.embed_tokens.weight");
      EXPECT_EQ(names.contains(e.name), !copy) << e.name;
    }
  }
  std::string refusal() {
    try {
      GgufCheckpoint g(path());
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  }
  fs::path models_;
};

TEST_F(GgufWeightsTest, EveryTypeOfEveryGoldenModelComesBackUnderItsNames) {
  for (const auto& folder : fs::directory_iterator(models_)) {
    std::string name = folder.path().filename().string();
    for (const QuantFormat& f : quant_formats()) {
      if (!f.encode) continue;
      SCOPED_TRACE(name + " " + f.gguf_name);
      export_model(name, f.dtype);
      expect_weights_of(name, f.dtype, GgufKvB::kSplit);
      if (!load_hf_config(model(name)).is_mla()) continue;
      join_kv_b(name, f.dtype);
      expect_weights_of(name, f.dtype, GgufKvB::kWhole);
    }
  }
}

TEST_F(GgufWeightsTest, NearlyAllWeightsStayInTheMappedFile) {
  auto copied = [&](const std::string& name) {
    export_model(name);
    GgufCheckpoint g(path());
    auto data = [](const TensorEntry& e) { return e.data.data(); };
    std::vector<const uint8_t*> in_file;
    for (const TensorEntry& e : g.content().tensors) in_file.push_back(data(e));
    const uint8_t* first = *std::min_element(in_file.begin(), in_file.end());
    const uint8_t* last = *std::max_element(in_file.begin(), in_file.end());
    std::set<std::string> out;
    for (const TensorEntry& e : g.tensors()) {
      if (data(e) < first || data(e) > last + (1 << 20)) out.insert(e.name);
    }
    return out;
  };
  EXPECT_EQ(copied("qwen2_tied_f32").size(), 0u);
  for (const std::string& n : copied("v3_f32")) EXPECT_THAT(n, HasSubstr("kv_b_proj"));
  EXPECT_EQ(copied("v3_f32").size(), 4u);  // with the MTP module's
  for (const std::string& n : copied("llama_small_orig_f32"))
    EXPECT_TRUE(n.ends_with("q_proj.weight") || n.ends_with("k_proj.weight")) << n;
  EXPECT_EQ(copied("llama_small_orig_f32").size(), 4u);
}

TEST_F(GgufWeightsTest, ModelsInSeveralFilesAreOpenedByTheFirst) {
  export_model("v3_f32");
  std::string first = path("m-00001-of-00003.gguf");
  {
    GgufReader whole(path());
    size_t n = whole->tensors.size();
    for (uint32_t part = 0; part < 3; ++part) {
      GgufMetadata m = part == 0 ? whole->metadata : GgufMetadata();
      m.emplace_back("split.no", GgufValue{GgufType::kU16, uint64_t{part}});
      m.emplace_back("split.count", GgufValue{GgufType::kU16, uint64_t{3}});
      m.emplace_back("split.tensors.count", GgufValue{GgufType::kI32, static_cast<int64_t>(n)});
      std::vector<TensorSource> tensors;  // the first part may hold metadata only
      for (size_t i = 0; part > 0 && i < n; ++i) {
        if (i % 2 == part - 1) tensors.push_back(copy_of(whole->tensors[i]));
      }
      write_gguf(path(fmt::format("m-0000{}-of-00003.gguf", part + 1)), m, tensors);
    }
  }
  GgufCheckpoint whole(path()), parts(first);
  ASSERT_EQ(parts.tensors().size(), whole.tensors().size());
  for (const TensorEntry& e : parts.tensors()) {
    auto same = std::find_if(whole.tensors().begin(), whole.tensors().end(),
                             [&](const TensorEntry& w) { return w.name == e.name; });
    ASSERT_NE(same, whole.tensors().end()) << e.name;
    EXPECT_EQ(values(e), values(*same)) << e.name;
  }
  auto refusal_of = [&](const std::string& file) {
    try {
      GgufReader g(file);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  std::string second = path("m-00002-of-00003.gguf"), third = path("m-00003-of-00003.gguf");
  EXPECT_THAT(refusal_of(second), HasSubstr("part 2 of 3; give the first part"));
  fs::remove(third);
  EXPECT_THAT(refusal_of(first), HasSubstr(third));
  fs::copy(second, third);
  EXPECT_THAT(refusal_of(first), HasSubstr("is not part 3 of 3"));
  fs::copy(path(), third, fs::copy_options::overwrite_existing);
  EXPECT_THAT(refusal_of(first), HasSubstr("split.no is missing"));
}

TEST_F(GgufWeightsTest, ATensorThatIsMissingMisshapenMistypedOrUnknownIsNamed) {
  auto with = [&](const std::string& name, const std::function<void(TensorSource&)>& change) {
    export_model("v3_f32");
    edit([&](GgufMetadata&, std::vector<TensorSource>& tensors) {
      for (TensorSource& t : tensors) {
        if (t.name == name) change(t);
      }
      std::erase_if(tensors, [](auto& t) { return t.name.empty(); });
    });
    return refusal();
  };
  const std::string up = "blk.2.ffn_up_exps.weight", v_b = "blk.0.attn_v_b.weight";
  EXPECT_EQ(with(up, [](TensorSource&) {}), "accepted");
  EXPECT_THAT(with(up, [](TensorSource& t) { t.name.clear(); }),
              HasSubstr("tensor " + up + " is missing; its metadata ask for [16, 24, 128]"));
  EXPECT_THAT(with(v_b, [](TensorSource& t) { t.name.clear(); }),
              HasSubstr("tensor " + v_b + " is missing; its metadata ask for [4, 24, 32]"));
  EXPECT_THAT(
      with(up,
           [](TensorSource& t) {
             t.shape = {16, 128, 24};
           }),
      HasSubstr("tensor " + up + " has shape [16, 128, 24]; its metadata ask for [16, 24, 128]"));
  EXPECT_THAT(with(up, [](TensorSource& t) { t.dtype = DType::kI32; }),
              HasSubstr("tensor " + up + " is i32"));
  export_model("v3_f32");
  edit([](GgufMetadata&, std::vector<TensorSource>& tensors) {
    tensors.push_back(floats("blk.1.ffn_norm.bias", {1}, {0}));
  });
  EXPECT_THAT(refusal(), HasSubstr("tensor blk.1.ffn_norm.bias has no place in this deepseek2"));
  // A type that is none of ours is refused where the file is parsed: gguf_test.
}

TEST_F(GgufWeightsTest, CopiesThatOtherWritersAddAreLeftAlone) {
  export_model("v3_f32");
  join_kv_b("v3_f32", DType::kF32);
  edit([](GgufMetadata&, std::vector<TensorSource>& tensors) {
    tensors.push_back(floats("blk.0.attn_k_b.weight", {1}, {0}));
    tensors.push_back(floats("blk.3.nextn.embed_tokens.weight", {1}, {0}));
    tensors.push_back(floats("blk.3.nextn.shared_head_head.weight", {1}, {0}));
  });
  expect_weights_of("v3_f32", DType::kF32, GgufKvB::kWhole);
}

}  // namespace
}  // namespace wels
