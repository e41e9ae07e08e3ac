// Pretraining: the loop around Trainer that people watch, stop, resume and read about afterwards.
#pragma once
#include <functional>
#include <string>

#include "data/loader.h"
#include "text/tokenizer.h"
#include "train/memory_plan.h"
#include "train/schedule.h"
#include "train/trainer.h"

namespace wels {

struct PretrainSettings {
  std::string out = "out";            // run folder
  int64_t sequence_length = 256;      // T
  int64_t batch_tokens = 8192;        // per optimiser step
  int64_t micro_batch_tokens = 4096;  // per forward and backward
  double minutes = 0;                 // > 0: as many steps as fit, measured over the first ones
  Schedule schedule;
  TrainerConfig trainer;
  double mtp_lambda = 0.3;  // V3 §4.2
  double ema = 0;           // > 0: decay of an average of the weights, kept beside them
  bool document_mask = false;
  uint64_t seed = 1;
  int64_t save_every = 500, eval_every = 100, sample_every = 200, keep = 2;
  int64_t eval_sequences = 64;  // 0: the whole validation split
  bool quiet = false;
};

// What the run's memory depends on (memory_plan.h).
TrainingShape training_shape(const PretrainSettings& settings);

struct PretrainResult {
  int64_t steps = 0, tokens = 0;
  double validation_loss = 0;  // nats per token
  double validation_bits_per_byte = 0;
  double best_validation_loss = 0;
  double tokens_per_s = 0;
  bool stopped = false;    // by a signal; resume continues
  std::string checkpoint;  // the last one's folder
};

struct PretrainContext {
  Device& dev;
  Model& model;  // allocated and initialised
  const Tokenizer& tokenizer;
  const std::string& tokenizer_json;
  const TokenShard& train;
  const TokenShard& validation;
  std::function<std::string()> sample;  // what the model writes now; may be empty
  std::function<void()> report;         // writes the run's report; may be empty
};

// Throws Error saying how much is missing and what to change where a run cannot fit into the memory
// that is free now. To be called before the model is allocated.
void require_memory(const Device& dev, const PretrainSettings& settings, const ModelConfig& cfg);

// Runs until the schedule's last step or a stop signal. If the run folder has a checkpoint it
// continues from the newest, bit for bit as if it had never stopped; with settings that differ in
// anything but output and intervals it throws Error.
PretrainResult pretrain(const PretrainContext& ctx, PretrainSettings settings);

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
