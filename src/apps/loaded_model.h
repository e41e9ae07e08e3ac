// A checkpoint folder or GGUF file opened for inference: model, tokenizer, device.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "backend/device.h"
#include "model/model.h"
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

// Throws Error where generating with a KV cache of `context` tokens does not fit into what is free:
// what it needs, and which context or type of cache or weights would fit.
void require_memory_for(const LoadedModel& m, int64_t context, DType cache_dtype,
                        double expert_share = 1);

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
