// Pretraining: the stage that learns every next token of a text (and the ones behind it: MTP).
#pragma once
#include <functional>
#include <string>

#include "data/loader.h"
#include "text/tokenizer.h"
#include "train/memory_plan.h"
#include "train/stage.h"

namespace wels {

struct PretrainSettings : StageSettings {
  int64_t sequence_length = 256;      // T
  int64_t batch_tokens = 8192;        // per optimiser step
  int64_t micro_batch_tokens = 4096;  // per forward and backward
  double mtp_lambda = 0.3;            // V3 §4.2
  bool document_mask = false;
  std::string tokenizer;        // how it was made ("char", "bpe 512"); empty: not compared
  int64_t eval_sequences = 64;  // 0: the whole validation split
};

// What the run's memory depends on (memory_plan.h).
TrainingShape training_shape(const PretrainSettings& settings);

struct PretrainResult : StageResult {
  double validation_loss = 0;  // nats per token, as `best`
  double validation_bits_per_byte = 0;
};

struct PretrainContext {
  Device& dev;
  Model& model;  // allocated and initialised
  const Tokenizer& tokenizer;
  const std::string& tokenizer_json;
  const TokenShard& train;
  const TokenShard& validation;
  std::function<std::string()> sample;              // what the model writes now; may be empty
  std::function<void(int64_t total_steps)> report;  // writes the run's report; may be empty
};

// Throws Error saying how much is missing and what to change where a run cannot fit into the memory
// that is free now. To be called before the model is allocated.
void require_memory(const Device& dev, const PretrainSettings& settings, const ModelConfig& cfg);

// run_stage() of it.
PretrainResult pretrain(const PretrainContext& ctx, const PretrainSettings& settings);

// Mean cross-entropy and bits per byte over validation windows (count 0: all). Nats per token, bits
// per byte of text.
struct Evaluation {
  double loss = 0, bits_per_byte = 0;
  int64_t tokens = 0;
};
Evaluation evaluate(Trainer& trainer, const Tokenizer& tokenizer, const TokenShard& shard,
                    int64_t sequence_length, int64_t count, int64_t rows_at_once,
                    bool document_mask = false);

}  // namespace wels
