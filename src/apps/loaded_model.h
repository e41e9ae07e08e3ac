// A checkpoint folder or GGUF file opened for inference: model, tokenizer, device.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "backend/device.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace wels {

struct LoadedModel {
  std::unique_ptr<Device> dev;
  std::unique_ptr<Model> model;
  std::optional<Tokenizer> tokenizer;
  DType dtype = DType::kF32;  // of activations
  std::string folder;         // or the GGUF file
};

// path: a Hugging Face folder, a run folder (its best checkpoint, else its newest), a folder of
// adapters (with the model that they name), or a GGUF file (of several parts the first). dtype:
// "auto" (bf16 where the device is a CPU with a bf16 kernel, else f32), "bf16" or "f32". Weights
// stay memory mapped. Throws Error.
LoadedModel open_model(const std::string& path, const std::string& device,
                       const std::string& dtype);

// Throws Error where the model has no tokenizer: a folder without tokenizer.json.
void require_tokenizer(const LoadedModel& m);

// Throws Error where generating with a KV cache of `context` tokens does not fit into what is free:
// what it needs, and which context or type of cache or weights would fit. tell: large needs, which
// take a while to load, are also told in a line on stderr.
void require_memory_for(const LoadedModel& m, int64_t context, DType cache_dtype,
                        double expert_share = 1, bool tell = false);

// The tokens that end a text: the tokenizer's and those that config.json names.
std::vector<int32_t> end_tokens(const LoadedModel& m);

// --template: "auto" (the model's own), "none" (nullopt: continue the text), or a name. Throws
// Error, also where the model's tokenizer lacks one of the template's markers.
std::optional<ChatTemplate> choose_template(const std::string& name, const LoadedModel& m);
std::string template_flag_help();

// T of the activations by the same rule.
DType activation_type(const Device& dev, const std::string& dtype);

// The type of the KV cache that --kv-cache names (commands.h): auto is T of the activations.
DType cache_type(const std::string& flag, DType dtype);

// The checkpoint folder that `path` means (see open_model).
std::string resolve_checkpoint(const std::string& path);

// The same for whole models: throws Error where the folder holds adapters alone.
std::string resolve_whole_model(const std::string& path);

// The model of a folder of adapters: `given`, or, where that is empty, the one that its
// adapter_config.json names. Throws Error where it is not there.
std::string adapter_base(const std::string& folder, const std::string& given = "");

}  // namespace wels
