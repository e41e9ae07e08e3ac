// One policy update: completions packed into micro-batches, the trainer's step over them with a
// policy objective, and what was measured on the way. Loss on completion tokens only; the main head
// alone learns, MTP modules take no part (R1 says nothing of them; drafts get rarer hits, the text
// does not change).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "rl/policy_objective.h"
#include "train/trainer.h"

namespace wels {

// A completion as the trainer sees it. Spans belong to the caller.
struct TrainSequence {
  std::span<const int32_t> prompt, tokens;
  std::span<const double> sampled_logp;   // of each token, by the engine
  std::span<const int32_t> kept = {};     // Rollout::kept; all sequences of a call have it or none
  std::span<const int16_t> experts = {};  // Rollout::experts, likewise
  std::vector<double> old_logp = {}, ref_logp = {};  // filled where the loss needs them
  bool counts = true;                                // false: no token of it does
  double advantage = 0, weight = 0;
};

// Sequences as segments of micro-batches of at most `rows` rows (a longer one has its own), each
// target in the row before it: sorted by length, best fit (R1 v2, B.1).
struct PackedSequences {
  std::vector<MicroBatch> micro_batches;
  std::vector<std::vector<size_t>> sequence;  // [micro-batch][segment]: index into the sequences
  int64_t rows = 0;
};
PackedSequences pack_sequences(std::span<const TrainSequence> sequences,
                               std::span<const size_t> chosen, int64_t rows);

// Differences of log-probabilities, engine against trainer.
struct Mismatch {
  double largest = 0, sum = 0;
  int64_t tokens = 0;
  void add(std::span<const double> a, std::span<const double> b);
  void add(const Mismatch& other);
  double mean() const { return tokens > 0 ? sum / static_cast<double>(tokens) : 0; }
};

// What rounding may make of log-probabilities at a temperature, where rollouts are exact
// (RolloutSettings) or in bf16 over the latent cache (docs/rl.md).
double mismatch_bound(bool exact, double temperature);

// values(mb) gives log-probabilities of a micro-batch's targets; fn(i, logp) gets those of sequence
// i's tokens. Throws Interrupted (base/signal.h) after a stop signal.
void each_sequence_logp(const PackedSequences& packed, std::span<const TrainSequence> sequences,
                        const std::function<std::vector<double>(const MicroBatch&)>& values,
                        const std::function<void(size_t i, std::span<const double>)>& fn);

struct UpdateReport {
  StepStats stats;
  PolicyStats policy;
  Mismatch mismatch;
  int64_t rows = 0;  // trained on; 0: nothing had a gradient, and no update was made
};

struct UpdateSettings {
  PolicyLoss loss;
  int64_t micro_batch_tokens = 4096;
  // The weights are those that sampled: old log-probabilities are the trainer's own of this very
  // pass.
  bool on_policy = true;
  bool to_its_end = false;  // not given up for a signal (Trainer::step)
};

// Gives sequences their weights in the mean and makes one step. Those without any gradient
// (advantage 0 and no KL, or not counting) count in the mean and are left out of the passes.
// groups: sizes, in order.
UpdateReport update_policy(Trainer& trainer, std::span<TrainSequence> sequences,
                           std::span<const int64_t> groups, const UpdateSettings& settings,
                           double lr);

}  // namespace wels
