// The model that `wels sft` and `wels dpo` train: a checkpoint, or a new one with a vocabulary of
// its own; its tokenizer and chat template, and the files that go along into every checkpoint.
#pragma once
#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "apps/sft_data.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace wels {

struct SftModelFlags {
  std::string path;  // a checkpoint; unused for a new model
  std::string preset, config, tokenizer, chat_template = "auto";
  int64_t vocab = 0;
  int mtp = -1;
  bool dense = false;
  bool is_new() const { return !preset.empty() || !config.empty(); }
  void add(CLI::App* sub);           // all but the path
  void add_template(CLI::App* sub);  // the chat template alone
};

struct SftModel {
  ModelConfig config;
  std::unique_ptr<Model> model;
  std::string folder;  // of the checkpoint; empty: a new model
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::map<std::string, std::string> files;  // beside the weights: tokenizer.json, chat template
  double learning_rate = 0;                  // a new model's, by its preset
  std::string about;                         // "preset nano", or the folder
};

// Everything but the weights. A new model's tokenizer is the run's where the folder `out` holds a
// run that goes on, else the given one or one learned from the data. Throws Error.
SftModel open_sft_model(const SftModelFlags& f, const SftDataFlags& data, const std::string& out,
                        uint64_t seed);
// The same of a checkpoint.
SftModel open_checkpoint(const SftModelFlags& f);
// The weights, in f32, with gradients.
void load_sft_model(SftModel& m, uint64_t seed);

}  // namespace wels
