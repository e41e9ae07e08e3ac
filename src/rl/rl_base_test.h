// A small base model for the tests of reinforcement learning: parity of a few bits, mostly answered
// at once (a guess) and sometimes after a chain (right), learned in some seconds.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "backend/registry.h"
#include "base/file.h"
#include "base/rng.h"
#include "model/checkpoint.h"
#include "model/tiny_config_test.h"
#include "rl/rl_stage.h"
#include "text/bpe_trainer.h"

namespace wels {

inline std::string test_tokenizer_json() {
  BpeTrainerOptions names = deepseek_style_options(512);
  std::vector<AddedToken> first = names.first;
  for (const AddedToken& t : names.last) {
    if (t.content.find("think") != std::string::npos || t.content == "<｜User｜>" ||
        t.content == "<｜Assistant｜>")
      first.push_back(t);
  }
  std::vector<std::string_view> text = {"abcdefghijklmnopqrstuvwxyz 0123456789"};
  return write_tokenizer_json(train_characters(text, first));
}

inline ModelConfig test_config(int64_t vocab) {
  ModelConfig c = tiny_moe_config(vocab);
  c.hidden_size = 48;
  c.intermediate_size = 96;
  c.num_attention_heads = c.num_key_value_heads = 3;
  c.kv_lora_rank = c.qk_nope_head_dim = c.v_head_dim = 16;
  c.moe_intermediate_size = 32;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 256;
  c.initializer_range = 0.05;
  return c;
}

inline const char* kTestTask = "parity:6";

// Steps of supervised learning on examples of kTestTask, one in four with its chain.
inline void learn_base(Device& dev, Model& model, const Tokenizer& tokenizer, int64_t steps) {
  TaskMixture tasks{kTestTask};
  TrainerConfig config;
  config.dtype = DType::kF32;
  Trainer trainer(dev, model, config);
  RolloutSampler sampler(dev, model, tokenizer, {.dtype = DType::kF32, .max_tokens = 16});
  constexpr int64_t kBatch = 64;
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<std::vector<int32_t>> prompts, answers;
    std::vector<TrainSequence> sequences;
    for (int64_t i = step * kBatch; i < (step + 1) * kBatch; ++i) {
      TaskExample e = tasks.item(7, i, TaskSplit::kTrain).example;
      bool chain = Rng(7, 1, static_cast<uint64_t>(2 * i)).uniform() < 0.25;
      prompts.push_back(sampler.prompt(e.question));
      answers.push_back(tokenizer.encode((chain ? e.chain : "") + "</think>" + e.answer));
      answers.back().push_back(*tokenizer.eos());
    }
    std::vector<size_t> chosen;
    for (size_t i = 0; i < prompts.size(); ++i) {
      sequences.push_back({.prompt = prompts[i], .tokens = answers[i], .sampled_logp = {}});
      chosen.push_back(i);
    }
    PackedSequences packed = pack_sequences(sequences, chosen, 4096);
    double decay =
        std::min(1.0, 2.0 * static_cast<double>(steps - step) / static_cast<double>(steps));
    trainer.step(packed.micro_batches, pretrain_objective(packed.micro_batches, 1, 0.3),
                 4e-3 * decay);
  }
}

// The base as a model folder. It takes a while to learn, and every test may run in a process of its
// own, so the first one leaves it for all others of this very program.
inline const std::string& test_base_folder() {
  static const std::string folder = [] {
    namespace fs = std::filesystem;
    std::string self = fs::read_symlink("/proc/self/exe").string();
    auto changed = fs::last_write_time(self).time_since_epoch().count();
    std::string path = testing::TempDir() + "/wels_rl_base_" + std::to_string(hash_name(self)) +
                       "_" + std::to_string(changed);
    if (fs::exists(path)) return path;
    std::string made = path + "." + std::to_string(::getpid());
    fs::create_directories(made);
    std::string json = test_tokenizer_json();
    Tokenizer tokenizer = Tokenizer::from_json(json);
    auto dev = make_device("cpu");
    Model model(test_config(tokenizer.vocab_size()));
    model.init(DType::kF32, 3, true);
    learn_base(*dev, model, tokenizer, 500);
    save_model(made, model, DType::kF32);
    write_file_atomic(made + "/tokenizer.json", json);
    std::error_code another_was_first;
    fs::rename(made, path, another_was_first);
    if (another_was_first) fs::remove_all(made);
    return path;
  }();
  return folder;
}

// Everything a stage needs, from the base.
struct RlTest : testing::Test {
  std::unique_ptr<Device> dev = make_device("cpu");
  Tokenizer tokenizer = Tokenizer::load(test_base_folder());
  std::unique_ptr<Model> start = load_model(test_base_folder(), WeightStorage::kMapped);
  std::unique_ptr<Model> policy = trainable();

  static std::unique_ptr<Model> trainable() {
    auto model = load_model(test_base_folder(), WeightStorage::kF32);
    model->make_gradients();
    freeze_mtp(*model);
    return model;
  }
  // The base as it is stored, with adapters.
  static LoraConfig lora_config() { return {.rank = 8, .alpha = 16}; }
  static std::unique_ptr<Model> adapted() {
    auto model = load_model(test_base_folder(), WeightStorage::kMapped);
    add_lora(*model, lora_config(), DType::kF32, 1);
    return model;
  }
  static TrainerConfig trainer_config(DType dtype = DType::kF32) {
    TrainerConfig c;
    c.dtype = dtype;
    c.optimizer.weight_decay = 0;
    c.balance_alpha = c.bias_update = 0;
    return c;
  }
  static RlSettings settings(const std::string& algorithm) {
    RlSettings s;
    s.tasks = kTestTask;
    s.algorithm = rl_algorithm(algorithm);
    s.rollout = {.dtype = DType::kF32, .max_tokens = 16};
    s.groups = 8;
    s.samples = 8;
    s.micro_batch_tokens = 512;
    s.evaluation.items = 64;
    return s;
  }
};

}  // namespace wels
