// Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290): the stage that makes the
// better of two answers more probable, the worse one less, measured against the model it began as.
//
//   L = -log σ(β · ((log π(c) - log π₀(c)) - (log π(r) - log π₀(r))))       (eq. 7)
//
// c, r: the chosen and the rejected answer, log π(y): the sum over its tokens behind the prompt.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/preferences.h"
#include "train/stage.h"

namespace wels {

struct DpoSettings : StageSettings {
  int64_t batch = 64;                 // pairs per step
  int64_t longest = 1024;             // tokens of a prompt with an answer, at most
  int64_t micro_batch_tokens = 4096;  // rows per forward and backward
  double beta = 0.1;
  int64_t eval_pairs = 256;                         // held-out ones; 0: all
  nlohmann::json model = nlohmann::json::object();  // what else a resumed run must agree with
};

// Log-probabilities of a pair's answers, in nats.
struct PairLogp {
  double chosen = 0, rejected = 0;
};

struct DpoTerm {
  double loss = 0;
  double margin = 0;    // β times the difference in the loss: the implied rewards' difference
  double gradient = 0;  // of the loss by chosen; by rejected: its negative
};
DpoTerm dpo_term(const PairLogp& now, const PairLogp& reference, double beta);

// Pairs in micro-batches: segment 2j is pair j's chosen answer behind its prompt, 2j + 1 the
// rejected one.
struct PairBatch {
  std::vector<MicroBatch> micro_batches;
  std::vector<std::vector<int64_t>> pairs;  // by micro-batch: numbers of the pairs
};
PairBatch pack_pairs(const Preferences& data, const std::vector<int64_t>& pairs,
                     int64_t micro_batch_tokens);

// Means over a step's pairs.
struct DpoSummary {
  int64_t pairs = 0;
  double loss = 0, margin = 0, accuracy = 0;  // accuracy: share of margins above 0
  double chosen_reward = 0, rejected_reward = 0;
  void add(const PairLogp& now, const PairLogp& reference, const DpoTerm& term, double beta);
  DpoSummary mean() const;
};

// The mean loss of the step's pairs. reference: by number of pair. batch, reference and sum outlive
// the objective; sum, if given, gets what the loss saw.
Objective dpo_objective(const PairBatch& batch, const std::vector<PairLogp>& reference, double beta,
                        DpoSummary* sum = nullptr);

// Log-probabilities of all pairs under the model as it is now. tick, called after every
// micro-batch with the pairs done: false stops, and the result is empty.
std::vector<PairLogp> pair_logps(Device& dev, Model& model, const TrainerConfig& config,
                                 const Preferences& data, int64_t micro_batch_tokens,
                                 const std::function<bool(int64_t done)>& tick = {});

class DpoStage : public Stage {
 public:
  // References: of the model that the run began with. All arguments outlive the stage.
  DpoStage(const PreferenceData& data, const std::vector<PairLogp>& train_reference,
           const std::vector<PairLogp>& held_out_reference, const DpoSettings& settings,
           std::function<std::string()> sample);

  nlohmann::json settings() const override;
  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override;
  double validate(Trainer& trainer, StepMetrics* m, bool averaged) override;
  std::string sample() override { return sample_ ? sample_() : ""; }
  std::string status() const override;
  void rehearse(Trainer& trainer) override;

  const DpoSummary& last_step() const { return last_step_; }
  const DpoSummary& last_evaluation() const { return last_; }

 private:
  PairBatch draw(int64_t first) const;

  const PreferenceData& data_;
  const std::vector<PairLogp>&train_reference_, &held_out_reference_;
  const DpoSettings& s_;
  std::function<std::string()> sample_;
  DpoSummary last_, last_step_;
};

}  // namespace wels
