// Distillation from a teacher's distributions as a stage of training, of two kinds of steps:
//
//   gold       examples:  ce · cross-entropy + kl · T² · KL over the learned tokens
//              (Hinton et al. 2015, with ce + kl = 1), forward or reverse
//   own text   the student answers tasks itself and learns, token by token, what the teacher would
//              have said there: reverse KL on its own samples (GKD, arXiv 2306.13649; on-policy
//              distillation)
//
// `own` is the probability of a step of the second kind (GKD's λ). A gate lets only those tokens
// count that the teacher knows better than the student.
#pragma once
#include <string>

#include "distill/teacher.h"
#include "rl/evaluation.h"
#include "rl/rollout.h"
#include "tasks/task.h"
#include "train/sft_stage.h"

namespace wels {

struct DistillSettings {
  double ce = 0.5, kl = 0.5;  // weights of the two in gold steps: α and 1 - α
  bool reverse = false;       // KL(student || teacher) in gold steps; own text always has it
  bool gated = false;         // gold steps: KL only where the teacher's gold token is more probable
  double own = 0;             // probability of a step on the student's own text
  double sampling_temperature = 1;
  EvaluationSettings evaluation = {};  // of the tasks, where `own` > 0
};

class DistillStage : public SftStage {
 public:
  // tasks and sampler (of the student): needed where own > 0, else null. Everything outlives the
  // stage. Where own > 0 the student's MTP modules are frozen.
  DistillStage(Device& dev, Model& student, Teacher& teacher, const ExampleSource& train,
               const ExampleSource& held_out, const SftSettings& settings,
               const DistillSettings& distill, const TaskMixture* tasks, RolloutSampler* sampler,
               std::function<std::string()> sample);

  nlohmann::json settings() const override;
  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override;
  // Without own text the held-out examples' nats per token, else 1 - the tasks' greedy accuracy.
  double validate(Trainer& trainer, StepMetrics* m, bool averaged) override;
  std::string status() const override;
  bool rate_is_of_training() const override { return d_.own == 0; }
  const TaskEvaluation& last_tasks() const { return tasks_evaluation_; }
  // Floating-point operations of the last step: student, teacher and sampling.
  double step_flops() const { return step_flops_; }

 protected:
  Objective objective(std::span<const MicroBatch> batch) override;
  double cross_entropy_weight() const override { return d_.ce > 0 ? d_.ce : 1; }

 private:
  bool own_step(int64_t step) const;
  StageStep learn_own(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m);

  Teacher& teacher_;
  DistillSettings d_;
  const TaskMixture* tasks_;
  RolloutSampler* sampler_;
  TaskEvaluation tasks_evaluation_;
  double kl_sum_ = 0, kl_tokens_ = 0, gate_open_ = 0;  // of the step that runs
  double last_kl_ = 0, step_flops_ = 0;
};

}  // namespace wels
