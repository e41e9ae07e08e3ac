// A whole model as a Hugging Face folder of its own: config, weights, tokenizer, chat template, and
// nothing of a trainer's.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "model/model.h"

namespace wels {

// The weights in f32 of a model folder, a run folder or a GGUF file. Throws Error.
std::unique_ptr<Model> load_whole_model(const std::string& path);

// The files beside the weights of the same, by their names in a folder: tokenizer, chat template,
// settings of generation. A GGUF file's are made from its metadata.
std::map<std::string, std::string> files_beside_weights(const std::string& path);

// Writes the folder, which appears whole or not at all. dtype f32 or bf16. Throws Error where
// `folder` holds something already, and where it cannot be written.
void write_model_folder(const std::string& folder, Model& model, DType dtype,
                        const std::map<std::string, std::string>& files);

}  // namespace wels
