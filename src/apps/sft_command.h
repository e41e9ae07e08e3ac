// `wels sft` as a function, for commands that are supervised fine-tuning with something more.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/sft_data.h"
#include "apps/sft_model.h"
#include "apps/stage_flags.h"
#include "apps/ui_flags.h"
#include "train/sft_stage.h"

namespace wels {

struct SftFlags {
  DeviceFlags device;
  UiFlags ui;
  SftModelFlags model;
  SftDataFlags data;
  StageFlags stage;
  SftSettings settings;
  std::vector<std::string> paths;  // the model, unless a new one is asked for, and data files
  std::string kind = "supervised fine-tuning";  // what the report calls it
  int64_t seq = 0;
  // What other models take in memory; asked once the settings are known. Empty: there are none.
  std::function<int64_t(const Device& dev, const SftSettings& settings)> other_models;
  double epochs = 2, mtp_lambda = -1;
  void add(CLI::App* sub);
};

// Another stage in place of SftStage; everything given outlives it.
using SftStageMaker = std::function<std::unique_ptr<SftStage>(
    Device& dev, SftModel& model, const SftData& data, const SftSettings& settings,
    std::function<std::string()> sample)>;

// Throws Error for what can be seen of the flags without the model and its tokenizer.
void check_sft_flags(const SftFlags& f);
// The whole run, from flags to the last line. make: empty for SftStage. Throws Error.
StageResult sft_job(SftFlags f, const SftStageMaker& make);
// The same; the exit code.
int sft_command(SftFlags f, const SftStageMaker& make);

}  // namespace wels
