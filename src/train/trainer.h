// Trainer: one optimiser step for any objective. The model gives log-probabilities of targets, the
// objective maps them to their gradient, the tape does the rest; pretraining, SFT, RL and
// distillation differ in nothing else.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"
#include "tensor/batch.h"
#include "train/optimizer.h"

namespace wels {

// Part of a step's batch: its rows, and for each row the token to predict (-1: none).
struct MicroBatch {
  Batch batch;
  std::vector<int32_t> targets;  // [n]
  // [n, ceil(vocab / 32)]: tokens that may come in the targets' places, as the sampler filtered
  // them (V3.2's "keep sampling mask"; Targets::kept). Empty: all.
  std::vector<int32_t> kept = {};
};

// What a teacher says at the rows of a micro-batch (Device::token_kl), in the device's memory, for
// as long as the micro-batch's forward and backward need it.
struct Lesson {
  TopTokens teacher;
  KlParams kl;
  std::shared_ptr<void> memory;  // of the teacher's tensors
};

// What a step makes smaller. rows: which rows of the micro-batch the values belong to.
struct Objective {
  // Loss of one prediction depth (0: next token, k: MTP module k-1) of one micro-batch; fills
  // dlogp, zeros before (the gradient of the loss with respect to every log-probability).
  std::function<double(const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                       std::span<const double> logp, std::span<double> dlogp)>
      loss;
  // The same dlogp, where it does not depend on the values (any loss that is linear in them): it
  // spares the head a quarter of its work. Empty: not known before.
  std::function<void(const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                     std::span<double> dlogp)>
      known_dlogp;
  int mtp_modules = -1;  // that take part, from the first; -1: all
  // Distillation: the teacher of the main head's rows. Empty: none, and nothing of it is computed.
  std::function<Lesson(const MicroBatch& mb)> lesson{};
  // The part of the loss that divergences from the teacher have, and its gradient dkl (zeros
  // before). logp as in `loss`; no gradient flows through it from here.
  std::function<double(const MicroBatch& mb, std::span<const double> logp,
                       std::span<const double> kl, std::span<double> dkl)>
      kl_loss{};
};

struct TrainerConfig {
  OptimizerConfig optimizer;
  DType dtype = DType::kBF16;  // T of the activations
  bool fp8 = false;
  bool recompute = false;
  double balance_alpha = 1e-4;  // sequence-wise balance loss, V3 eq. 17
  double bias_update = 1e-3;    // γ of the auxiliary-loss-free balancing; 0: off
  double qk_clip = 0;           // > 0: largest attention score a head may reach (train/qk_clip.h)
  // Log-probabilities are those of the logits divided by this: a policy that samples at another
  // temperature than 1 is trained as it samples.
  double temperature = 1;
  bool bias_centred = false;  //    // subtract the mean of the update (routing-invariant)
};

struct StepStats {
  std::vector<double> loss;  // by depth: main, MTP 1, ...: sums of the objective's values
  double kl_loss = 0;        // sum of the objective's kl_loss
  double balance_loss = 0;   // α · Σ f·P, mean over sequences, summed over layers
  double total() const {
    double sum = balance_loss + kl_loss;
    for (double x : loss) sum += x;
    return sum;
  }
  double gradient_norm = 0, clip = 1;
  bool skipped = false;  // not finite: nothing was updated
  struct LayerLoad {
    int64_t layer;
    std::vector<int64_t> load;     // rows per expert in this step
    double max_violation() const;  // MaxVio: max load / mean load - 1
  };
  std::vector<LayerLoad> load;
  int64_t activation_bytes = 0;  // kept for the backward, of the largest micro-batch
  double forward_s = 0, backward_s = 0, update_s = 0;
};

// The values of an f32 or f64 tensor.
std::vector<double> to_host(Device& dev, const Tensor& t);

// Log-probabilities of the targets without a tape, [n].
std::vector<double> log_probabilities(Device& dev, Pool& pool, Model& model,
                                      const TrainerConfig& config, const MicroBatch& mb);

class Trainer {
 public:
  // The model must be trainable (Model::init). Both outlive the trainer.
  Trainer(Device& dev, Model& model, TrainerConfig config);

  // Forward, backward and update over all micro-batches as one batch. lr: this step's learning
  // rate. After a stop signal, throws Interrupted (base/signal.h) at the next micro-batch, with
  // nothing updated; to_its_end: goes on (one of several updates of which some are made).
  StepStats step(std::span<const MicroBatch> batch, const Objective& objective, double lr,
                 bool to_its_end = false);
  // Forward and backward only: gradients stay in the weights (tests, gradient studies). Throws
  // Interrupted as step does.
  StepStats gradients(std::span<const MicroBatch> batch, const Objective& objective,
                      bool to_its_end = false);
  // The function of this name, with the trainer's model and types.
  std::vector<double> log_probabilities(const MicroBatch& mb);

  Optimizer& optimizer() { return optimizer_; }
  Pool& pool() { return pool_; }
  const TrainerConfig& config() const { return config_; }

 private:
  void one_micro_batch(const MicroBatch& mb, double sequences, const Objective& objective,
                       StepStats& stats);
  void update_router_bias(const StepStats& stats);
  std::vector<std::vector<double>> largest_scores(std::span<const MicroBatch> batch);
  Device& dev_;
  Model& model_;
  TrainerConfig config_;
  Pool pool_;
  Optimizer optimizer_;
};

// Mean cross-entropy over all targets of the step, MTP depths weighted λ/D (V3 eq. 24-25). batch:
// the whole step's.
Objective pretrain_objective(std::span<const MicroBatch> batch, int mtp_depths, double mtp_lambda);

}  // namespace wels
