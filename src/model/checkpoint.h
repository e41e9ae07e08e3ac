// Checkpoints: Hugging Face folders (config.json, safetensors) to and from a Model, and GGUF files
// to one.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "formats/gguf_checkpoint.h"
#include "formats/safetensors.h"
#include "model/model.h"

namespace wels {

// Gives the model the weights of a folder or file, whose config it must have. kF32, kF64: copied
// and converted (training, exact tests) into new memory; kCopyF32: into the memory that the model
// has already (resuming); kMapped: used in place, in whatever type they are stored (the reader
// stays alive with the model). Tensors that the config does not ask for are refused unless their
// name is known to be derived (rotary tables, MTP's copies of embedding and head); layers beyond
// the config's are left out with a note. NaN or infinite
// values are refused: in all that is converted, and of mapped weights in vectors and routers, which
// are small. Throws Error.
enum class WeightStorage { kF32, kF64, kCopyF32, kMapped };
void load_weights(Model& model, const std::shared_ptr<SafetensorsReader>& reader,
                  WeightStorage storage);
void load_weights(Model& model, const std::shared_ptr<GgufCheckpoint>& file, WeightStorage storage);

// The config of a folder without the last MTP modules of which the weights have no tensor: such
// checkpoints run without them, which is noted.
ModelConfig checkpoint_config(const std::string& folder, const SafetensorsReader& reader);

// Config and weights of a folder.
std::unique_ptr<Model> load_model(const std::string& folder, WeightStorage storage);

// Writes config.json and the weights into an existing folder. dtype f32 or bf16.
void save_model(const std::string& folder, Model& model, DType dtype,
                const std::map<std::string, std::string>& metadata = {});

}  // namespace wels
