// The model that `wels sft`, `wels dpo` and `wels rl` train: a checkpoint, whole or by adapters, or
// a new one with a vocabulary of its own; its tokenizer and chat template, and the files that go
// along into every checkpoint.
#pragma once
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "apps/sft_data.h"
#include "apps/stage_flags.h"
#include "model/lora.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"
#include "train/stage.h"

namespace wels {

struct SftModelFlags {
  std::string path;  // a checkpoint; unused for a new model
  std::string preset, config, tokenizer, chat_template = "auto";
  int64_t vocab = 0;
  int mtp = -1;
  bool dense = false;
  LoraConfig lora{.rank = 0};  // rank 0: the whole model is trained
  double lora_alpha = 0;       // 0: twice the rank
  bool is_new() const { return !preset.empty() || !config.empty(); }
  void add(CLI::App* sub);           // all but the path
  void add_template(CLI::App* sub);  // the chat template alone
  void add_lora(CLI::App* sub);      // adapters alone
};

struct SftModel {
  ModelConfig config;
  std::unique_ptr<Model> model;
  std::string folder;  // of the checkpoint, or a GGUF file; empty: a new model
  std::optional<LoraConfig> lora;
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::map<std::string, std::string> files;  // beside the weights: tokenizer.json, chat template
  double learning_rate = 0;                  // a new model's, by its preset
  std::string about;                         // "preset nano", or the folder
};

// "FOLDER: 1.48M parameters, 820k active, 96k of them in adapters".
std::string describe(SftModel& m);
// Throws Error where a setting goes with whole models only.
void require_adaptable(const StageSettings& s, const SftModel& m);
// The same of flags whose model is not open yet.
void check_adapters(const LoraConfig& lora, const StageFlags& f, StageSettings s);
// What changes a run beyond the stage's settings: adapters, and the weights that it began with.
nlohmann::json model_settings(SftModel& m);
// What a checkpoint of it holds: the whole model, or its adapters.
CheckpointParts checkpoint_parts(SftModel& m);
// The text of an example up to its last answer, and what the model answers now, at temperature 0.
std::string answer_now(Device& dev, SftModel& m, DType dtype, const TrainingTokens& example);

// Everything but the weights. A new model's tokenizer is the run's where the folder `out` holds a
// run that goes on, else the given one or one learned from the data. Throws Error.
SftModel open_sft_model(const SftModelFlags& f, const SftDataFlags& data, const std::string& out,
                        uint64_t seed);
// The same of a checkpoint.
SftModel open_checkpoint(const SftModelFlags& f);
// The weights: in f32 with gradients, or as they are stored with adapters.
void load_sft_model(SftModel& m, uint64_t seed);

}  // namespace wels
