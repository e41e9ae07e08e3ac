// --expert-memory: how much of the experts stays ready in memory.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>

#include "apps/loaded_model.h"
#include "backend/cpu/cpu_device.h"
#include "train/memory_plan.h"

namespace wels {

struct ExpertFlags {
  double gigabytes = 0;
  void add(CLI::App* sub) {
    sub->add_option("--expert-memory", gigabytes,
                    "GB for routed experts: those used most stay in memory, the others are read "
                    "from the file when they are called (0: all stay)")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
  }
  // Tells the device, and gives the share of the experts that stays (1: all). Throws Error where
  // there is nothing to share.
  double apply(const LoadedModel& m) const;
  // The same before there is a model: of this config, kept as these types.
  double apply(Device& dev, const ModelConfig& cfg, const InferenceShape& shape) const;
  // "71.3 % of 5,120 calls of experts found them in memory"; empty without the flag.
  std::string summary(const LoadedModel& m) const;
};

}  // namespace wels
