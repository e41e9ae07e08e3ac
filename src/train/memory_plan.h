// What a run needs in memory, part by part, known before any of it is taken: for refusing a run
// that cannot fit, and for `wels info`.
//
// Nothing is estimated by formula: the trainer's own step runs on a device that computes
// nothing (dry_device.h), and its buffers are added up. A change of the model, the optimiser or the
// tape is a change of the plan.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "model/lora.h"
#include "train/trainer.h"

namespace wels {

struct MemoryPlan {
  int64_t program = 0;      // what the process holds now: code, libraries, tokenizer
  int64_t weights = 0;      // f32 masters, or a checkpoint as it is stored
  int64_t gradients = 0;    // f32
  int64_t optimizer = 0;    // m and v, f32; Muon: m, and work space of one matrix
  int64_t average = 0;      // the weights' moving average, f32
  int64_t packed = 0;       // the device's copies of weights in its kernels' layout
  int64_t activations = 0;  // kept for the backward, of one micro-batch
  int64_t backward = 0;     // their gradients, and what the pool holds beyond its peak
  int64_t cache = 0;        // KV rows
  int64_t teacher = 0;      // other models that take part: a teacher, or the one in turns with it
  int64_t work = 0;         // the device's work space, of all threads; an upper bound
  int64_t total() const;
  // Of generating: what has to stay. Pages of the mapped file are given back once they are packed.
  int64_t resident() const { return packed + cache + work; }
  struct Part {
    std::string name;
    int64_t bytes;
  };
  std::vector<Part> parts() const;  // in the order above
};

// How a run trains, as far as memory is concerned.
struct TrainingShape {
  TrainerConfig trainer;
  int64_t sequence_length = 256, batch_tokens = 4096, micro_batch_tokens = 4096;
  double mtp_lambda = 0.3;
  bool average = false;  // with a moving average of the weights
  bool samples = false;  // the model generates in between
  int64_t teacher = 0;   // bytes of other models that take part, as teacher_bytes says
  // Low-rank adapters over weights as they are stored; none: all weights are trained in f32.
  std::optional<LoraConfig> lora = {};
  std::function<DType(const WeightSpec&)> stored = {};
  // Copies of the adapters that take part too (rl's reference).
  bool other_lora = false;
};

// The plan of a run after its first steps. Parts are exact but `work`. cfg must be valid.
MemoryPlan plan_training(const Device& dev, const ModelConfig& cfg, const TrainingShape& shape);

// How a checkpoint is opened for generating.
struct InferenceShape {
  DType dtype = DType::kF32;              // T of activations
  std::optional<DType> cache_dtype = {};  // of the KV cache, if not T
  double expert_share = 1;                // of each stack of experts, what stays packed
  int64_t context = 0;                    // tokens of the KV cache
  // As what each weight is stored.
  std::function<DType(const WeightSpec&)> stored = [](const WeightSpec&) { return DType::kBF16; };
};
// The types that an opened model's weights have.
std::function<DType(const WeightSpec&)> stored_types(Model& model);
// The types of a checkpoint of which only the config is known: FP8 where it says so and V3 has it,
// else its torch_dtype.
std::function<DType(const WeightSpec&)> config_types(const ModelConfig& cfg);

// What the packs of all routed experts take on dev. 0: there are none.
int64_t expert_pack_bytes(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape);

// The plan of generating from a checkpoint that is memory mapped, without MTP modules. `weights`
// are pages of the file: they are read once, and the system may drop them again.
MemoryPlan plan_inference(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape);

// What a model that only says what it thinks takes beside the one that learns: its packed weights,
// its activations over `rows` tokens at once, and its cache where it writes answers. Its weights
// are mapped from their file.
int64_t teacher_bytes(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape,
                      int64_t rows);

// What generating needs against what is free.
struct InferenceNeed {
  MemoryPlan plan;
  int64_t available = 0;
  int64_t longest_context = 0;  // tokens of the KV cache for which what is free suffices
  bool fits() const { return plan.resident() <= available; }
  std::string text =
      {};  // "generating needs 1.2 GiB (weights for the kernels ...), 8 GiB are free"
  std::string hint = {};  // where it does not fit: which context, type or share of experts would
};
InferenceNeed inference_need(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape,
                             int64_t available_bytes);

// The same; throws Error where it does not fit.
InferenceNeed require_inference_memory(const Device& dev, const ModelConfig& cfg,
                                       const InferenceShape& shape, int64_t available_bytes);

// Throws Error where the plan of `shape` exceeds what is available: what is missing, and which
// flags of `wels pretrain` would make it fit.
void require_memory(const Device& dev, const ModelConfig& cfg, const TrainingShape& shape,
                    int64_t available_bytes);

}  // namespace wels
