// Supervised fine-tuning: the stage that learns answers behind their prompts (data/examples.h).
#pragma once
#include <functional>
#include <string>

#include "data/examples.h"
#include "train/stage.h"

namespace wels {

struct SftSettings : StageSettings {
  int64_t batch = 128;                              // examples per step
  int64_t longest = 256;                            // tokens of an example, at most
  int64_t micro_batch_tokens = 4096;                // rows per forward and backward
  double mtp_lambda = 0.3;                          // V3 §4.2
  int64_t eval_examples = 256;                      // held-out ones; 0: all
  nlohmann::json model = nlohmann::json::object();  // what else a resumed run must agree with
};

// The micro-batches of examples [first, first + count) of a run in the order of `seed`: best fit,
// each example a segment of its own, so that none sees another. A pure function of its arguments.
// Throws Error where a generated example is longer than `longest` tokens.
std::vector<MicroBatch> example_batch(const ExampleSource& source, uint64_t seed, int64_t first,
                                      int64_t count, const SftSettings& settings);

// How well the model says what is learned, told the truth before every token.
struct AnswerEvaluation {
  double loss = 0;      // nats per learned token
  double accuracy = 0;  // share of the learned tokens that it holds most probable
  int64_t tokens = 0;   // learned ones
};
// Over examples 0 ... count - 1 (0: all; of an endless source not 0), as settings.trainer computes.
AnswerEvaluation evaluate_answers(Device& dev, Model& model, Pool& pool,
                                  const ExampleSource& source, int64_t count,
                                  const SftSettings& settings);

// A step's loss is the mean over its learned tokens, MTP as in pretraining.
class SftStage : public Stage {
 public:
  // held_out: without any, every checkpoint counts as the best by its training loss. sample: what
  // the model writes now; may be empty. All arguments outlive the stage.
  SftStage(Device& dev, Model& model, const ExampleSource& train, const ExampleSource& held_out,
           const SftSettings& settings, std::function<std::string()> sample);

  nlohmann::json settings() const override;
  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override;
  double validate(Trainer& trainer, StepMetrics* m, bool averaged) override;
  std::string sample() override { return sample_ ? sample_() : ""; }
  std::string status() const override;
  void rehearse(Trainer& trainer) override;

  const AnswerEvaluation& last_evaluation() const { return last_; }

 protected:
  // What a step over `batch` makes smaller.
  virtual Objective objective(std::span<const MicroBatch> batch);
  // The factor that it gives the cross-entropy of the next token.
  virtual double cross_entropy_weight() const { return 1; }

  Device& dev_;
  Model& model_;
  const ExampleSource& train_;
  const ExampleSource& held_out_;
  const SftSettings& s_;
  std::function<std::string()> sample_;
  std::vector<MicroBatch> rehearsal_;
  AnswerEvaluation last_;
  double training_loss_ = 1e30;  // of the last step; none yet: worse than any
};

}  // namespace wels
