// A model written as a GGUF file: metadata and names of gguf_deepseek.h, types of quant_mix.h, rows
// read from any checkpoint, encoded in parallel and streamed. Memory: the file's header, a few
// megabytes a thread, and for MLA one layer's kv_b in f32.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/gguf_checkpoint.h"
#include "formats/gguf_deepseek.h"
#include "formats/quant_mix.h"
#include "formats/safetensors.h"

namespace wels {

// The weights of a checkpoint by Hugging Face's names. Refers to the reader, which must outlive it.
class CheckpointWeights {
 public:
  CheckpointWeights(const SafetensorsReader& weights);
  CheckpointWeights(const GgufCheckpoint& file);
  const std::string& where() const { return where_; }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const TensorEntry* find(const std::string& name) const;  // nullptr: not there
  const TensorEntry& at(const std::string& name) const;    // throws Error: not there
  // One of the halves of kv_b as a GGUF file holds them, which tensors() has joined, by its name
  // there; nullptr: the weights have no halves.
  const TensorEntry* find_half(const std::string& gguf_name) const;

 private:
  std::string where_;
  const std::vector<TensorEntry>& tensors_;
  const GgufContent* split_ = nullptr;  // the file that holds halves
  std::unordered_map<std::string_view, const TensorEntry*> by_name_;
};

// How much each column of a weight matters: the mean square of what it is multiplied by.
struct ColumnImportance {
  // By the weight's name (of experts with their number): one value a column.
  std::map<std::string, std::vector<float>> inputs;
  // By kv_b_proj's name: the unrotated query, [heads · dn], which attn_k_b is multiplied by.
  std::map<std::string, std::vector<float>> queries;
};

struct GgufExportOptions {
  std::string name = "wels";   // general.name
  DType dtype = DType::kBF16;  // base of the mixture
  bool include_mtp = true;     // the MTP modules too, where the model has them
  std::vector<TensorChoice> choices;
  const ColumnImportance* importance = nullptr;
  // Called after every few million values with their number; may throw to stop, which leaves
  // nothing behind.
  std::function<void(int64_t values)> progress;
};

// What became of a tensor. Sums over its values of the squared error and of the squares; with
// importance also of both times their column's (0: it had none).
struct GgufTensorReport {
  std::string name;
  ChosenType type;
  bool copied = false;  // had the type already: the same bytes
  int64_t values = 0, bytes = 0;
  double error = 0, squares = 0, weighted_error = 0, weighted_squares = 0;
};

// The types that export_gguf is going to give; throws what choose_types does, and where a tensor is
// missing or has another shape.
struct GgufExportPlan {
  std::vector<GgufTensorPlan> tensors;
  std::vector<ChosenType> types;
  int64_t values() const;
};
GgufExportPlan plan_gguf_export(const ModelConfig& cfg, const CheckpointWeights& weights,
                                const GgufExportOptions& options);

struct GgufExport {
  std::vector<GgufTensorReport> tensors;
  int64_t bytes = 0;  // of the file
};

// Writes the file. Weights of any float type (FP8 is decoded by its weight_scale_inv) and of any
// quantised one; tensors that have their type already are copied. Throws Error: a tensor missing or
// of another shape, values that are not finite or too large for their type, what gguf_metadata and
// choose_types refuse.
GgufExport export_gguf(const std::string& path, const ModelConfig& cfg,
                       const CheckpointWeights& weights, const GgufTokenizer* tokenizer,
                       const GgufExportOptions& options);

}  // namespace wels
