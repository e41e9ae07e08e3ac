// Hugging Face's config.json <-> ModelConfig. Architectures: DeepseekV2ForCausalLM (V2, V2-Lite),
// DeepseekV3ForCausalLM (V3, V3.1, R1), Qwen2ForCausalLM, LlamaForCausalLM; any other is refused by
// name. Fields that change the arithmetic and that wels does not compute (other activations, other
// scalings, biases of other layers) are refused too; unknown fields are not. Qwen2 with sliding
// windows is read with the window as its longest context. What only wels knows stands in an object
// "wels": {"mtp_hidden_after_norm": true}, which other readers ignore.
#pragma once
#include <string>
#include <string_view>

#include "formats/model_config.h"

namespace wels {

// Parses the text of a config.json; the result is valid (ModelConfig::validate). `where` names the
// text in messages. Throws Error: bad JSON, a missing or mistyped field, an unsupported
// architecture or feature, dimensions that do not fit.
ModelConfig parse_hf_config(std::string_view text, const std::string& where = "config.json");

// Reads a config.json, or the one in a folder.
ModelConfig load_hf_config(const std::string& file_or_folder);

// The config.json of cfg: what transformers reads, parse_hf_config(to_hf_config(cfg)) == cfg. cfg
// must be valid.
std::string to_hf_config(const ModelConfig& cfg);

}  // namespace wels
