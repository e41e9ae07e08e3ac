// The shapes of published models by name, for benchmarks on random weights.
#pragma once
#include <string>
#include <vector>

#include "formats/model_config.h"

namespace wels {

// "deepseek-v2-lite", "deepseek-v3", "qwen2-1.5b", "qwen2-7b", "llama3-8b", "tiny" (V3's
// architecture at d = 512, as reinforcement learning on one machine uses it). Throws Error with the
// names there are.
ModelConfig published_shape(const std::string& name);
std::vector<std::string> published_shape_names();

}  // namespace wels
