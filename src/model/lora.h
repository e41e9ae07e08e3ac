// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): a frozen matrix w [out, in] becomes
// w + α/rank · up · down with small trained matrices down [rank, in] and up [out, rank]. Only these
// have gradients and optimiser state; the frozen weights stay as they are stored, quantised ones
// too, whose product with x is rounded as in inference and whose gradient takes their decoded
// values (backend/device.h).
//
// Adapted are matrices of attention and of dense and shared feed-forward parts. Routed experts are
// not: each sees a k-th of e of the tokens, a matrix of rank r costs (in + out) · r values in each
// of them, and there is no grouped product of low rank. Norms, router, embedding and head stay as
// well, and MTP modules.
//
// On disk: Hugging Face PEFT's layout, adapter_config.json and adapter_model.safetensors with
// tensors base_model.model.<matrix>.lora_A.weight (down) and .lora_B.weight (up).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/model.h"

namespace wels {

struct LoraConfig {
  int64_t rank = 16;
  double alpha = 32;
  bool rank_stabilised = false;  // scale α/√rank (arXiv 2312.03732) instead of α/rank
  std::vector<std::string> targets =
      {};                 // "q_proj", "gate_proj", ...; empty: all that can be adapted
  std::string base = {};  // the model that is adapted, for adapter_config.json
  double scale() const;
};

// The names that targets may have in a model of this config, in the order of its weights.
std::vector<std::string> lora_targets(const ModelConfig& cfg);
// Throws Error("--lora-targets", ...) for others.
void check_lora_targets(const ModelConfig& cfg, const LoraConfig& config);

// Gives the targets of the model adapters with gradients, which change nothing at first: down
// uniform in ±1/√in by `seed` and its name, up zero. dtype: f32 or f64. Takes the gradients of all
// other weights. Throws Error("--lora-targets", ...) for a target that the model does not have.
void add_lora(Model& model, const LoraConfig& config, DType dtype, uint64_t seed);

// Parameters in the model's adapters.
int64_t count_lora(Model& model);

// Adapters of one model, in the order of the weights that have them.
using LoraSet = std::vector<std::shared_ptr<LowRank>>;
LoraSet lora_of(Model& model);
// Adapters with the values that the model's have now and without gradients. The model keeps their
// memory.
LoraSet copy_lora(Model& model);

// For as long as it lives, the model computes with these adapters in place of its own, or with none
// where the set is empty. Else it must be of the model (CHECK).
class OtherLora {
 public:
  OtherLora(Model& model, const LoraSet& set);
  ~OtherLora();
  OtherLora(const OtherLora&) = delete;
  OtherLora& operator=(const OtherLora&) = delete;

 private:
  std::vector<std::pair<Weight*, std::shared_ptr<LowRank>>> own_;
};

// w becomes w + scale · up · down in every adapted weight, and the adapters go. The weights must be
// f32 or f64 (CHECK).
void merge_lora(Model& model);

// Writes adapter_config.json and adapter_model.safetensors into an existing folder.
void save_lora(const std::string& folder, Model& model, const LoraConfig& config);

// Reads adapter_config.json. Throws Error naming the field for what wels does not compute (DoRA,
// trained biases or whole modules, ranks of their own).
LoraConfig load_lora_config(const std::string& folder);
// Reads the adapters of such a folder into those that the model has already. Throws Error naming
// the tensor for what is missing, too much, of another shape, or not finite; nothing is changed
// then.
void load_lora(const std::string& folder, Model& model);

}  // namespace wels
