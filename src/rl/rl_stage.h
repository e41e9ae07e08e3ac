// Reinforcement learning with verifiable rewards as a stage of training: rollouts, advantages, one
// or several policy updates, measurements. R1-Zero is this stage on a base model with the outcome
// as its only reward (R1, Nature 645:633).
//
// A step is a function of the seed, the step's first item, the weights and the optimiser's state,
// so a resumed run repeats it bit for bit.
//
// In a mixture of experts the router is trained like any weight; its selection bias moves only
// where TrainerConfig::bias_update says so (off in `wels rl`: V3 ended its balancing before RL
// began, and a bias that moves between rollout and update would be one more difference between
// them). MTP modules are frozen.
//
// A policy may be a frozen model with trained adapters (model/lora.h). Then start and reference are
// that very model with other adapters: none at the start, those of some steps ago in the reference.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "model/lora.h"
#include "rl/algorithm.h"
#include "rl/collapse.h"
#include "rl/curriculum.h"
#include "rl/evaluation.h"
#include "rl/reward.h"
#include "rl/update.h"
#include "train/stage.h"

namespace wels {

struct RlSettings {
  std::string tasks = "parity";  // TaskMixture
  RlAlgorithm algorithm;
  RewardSettings reward;
  RolloutSettings rollout;
  int64_t groups = 16, samples = 16;  // questions of a step, completions of each
  double temperature = 1;             // also TrainerConfig's (CHECK)
  int64_t epochs = 1;                 // passes over a step's completions
  int64_t micro_batch_tokens = 4096;
  int64_t reference_refresh = 400;  // steps until the reference becomes the policy; 0: never
  bool curriculum = false;
  // Questions that come more often: each group's is one of these with this probability, else the
  // tasks' next. Their tasks outlive the stage.
  std::vector<TaskMixture::Item> favoured = {};
  double favoured_share = 0;
  EvaluationSettings evaluation;
  uint64_t seed = 1;
  // What else a resumed run must agree with: adapters, and in "start" the weights that they are
  // over (model_settings). Without: a hash of all bits of the start.
  nlohmann::json model = nlohmann::json::object();
};

// Throws Error where questions, answers, updates and algorithm don't go together.
void check_groups(const RlSettings& s);
// What the modules that predict further tokens have of gradients is taken away: they are frozen.
void freeze_mtp(Model& model);
// Of the bits of all weights, which lie in the host's memory: a run is resumed with the models only
// that it was started with.
uint64_t hash_of_weights(Model& model);

class RlStage : public Stage {
 public:
  // policy: trainable, or with adapters. start: the same weights, frozen, for the divergence from
  // them; of a policy with adapters itself (CHECK). Everything outlives the stage. Throws Error
  // where tasks, tokenizer or settings don't go together.
  RlStage(Device& dev, Model& policy, Model& start, const Tokenizer& tokenizer,
          const RlSettings& settings, const TrainerConfig& trainer);

  nlohmann::json settings() const override;
  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override;
  double validate(Trainer& trainer, StepMetrics* m, bool averaged) override;
  std::string sample() override { return evaluation_.example; }
  std::vector<StageSample> rollouts() const override { return samples_; }
  std::string status() const override;
  StateTensors state() override;
  nlohmann::json counters() const override;
  void restore(const nlohmann::json& counters) override;
  void rehearse(Trainer& trainer) override;
  bool rate_is_of_training() const override { return false; }
  int64_t doubtful_steps() const override { return guard_.doubtful_steps(); }

  const TaskEvaluation& last_evaluation() const { return evaluation_; }
  const Mismatch& last_mismatch() const { return mismatch_; }
  // Of the answers of all steps so far; neither prompts nor evaluations are counted.
  int64_t sampled_tokens() const { return sampled_tokens_; }
  // Answers of all steps and evaluations whose checker failed: they count as wrong.
  int64_t checker_failures() const { return checker_failures_; }

 private:
  // Items with their completions, group after group.
  struct Groups {
    std::vector<TaskMixture::Item> items;
    std::vector<std::vector<int32_t>> prompts;
    std::vector<Rollout> rollouts;
    std::vector<Reward> rewards;
    void append(const Groups& from, size_t group, size_t samples);
  };
  struct Times {
    double rollout_s = 0, reward_s = 0, scoring_s = 0, train_s = 0;
    int64_t new_tokens = 0, answer_tokens = 0;
  };
  std::vector<int64_t> sizes(size_t groups) const {
    return std::vector<int64_t>(groups, s_.samples);
  }
  bool on_policy() const { return s_.epochs * s_.algorithm.mini_batches == 1; }
  TaskMixture::Item question(int64_t i) const;
  void check_questions() const;
  Groups draw(int64_t count, Times& times);
  Groups collect(Groups& all, Times& times);
  bool teaches(const Groups& g, size_t group) const;
  std::vector<TrainSequence> sequences_of(const Groups& g) const;
  std::vector<double> start_logp(const MicroBatch& mb);
  std::vector<double> reference_logp(const MicroBatch& mb);
  void probe(Trainer& trainer, const Groups& g, StepMetrics& m);
  void fill_logp(Trainer& trainer, std::vector<TrainSequence>& sequences);
  UpdateReport learn(Trainer& trainer, std::vector<TrainSequence>& sequences, int64_t step,
                     double lr);
  void refresh_reference();
  void keep_samples(const Groups& all);
  // failures: of checkers, in this step. An error where the policy has collapsed.
  std::optional<Error> add_rollout_metrics(const Groups& all, int64_t step, int64_t failures,
                                           StepMetrics& m);
  void add_task_metrics(const Groups& all, StepMetrics& m) const;
  void add_update_metrics(const UpdateReport& u, const Times& times, StepMetrics& m) const;
  int64_t failures_so_far() const;
  void say_failures(int64_t step, int64_t failures, int64_t answers);
  void say_mismatch(int64_t step);
  void say_nothing_to_learn(int64_t step, double reward, bool checked);

  Device& dev_;
  Model& policy_;
  Model& start_;
  RlSettings s_;
  TrainerConfig trainer_config_;
  std::string start_hash_;
  Curriculum curriculum_;
  uint64_t task_files_ = 0;  // TaskMixture::hash_of_files
  RolloutSampler sampler_;
  // Where beta > 0: a model of its own, or adapters for the policy's.
  std::unique_ptr<Model> reference_model_;
  LoraSet reference_lora_;
  std::vector<Weight*> policy_values_, reference_;  // what a refresh copies, and where to
  Pool pool_;
  CollapseGuard guard_;
  std::vector<StageSample> samples_;
  TaskEvaluation evaluation_;
  Mismatch mismatch_;
  int64_t next_item_ = 0, silent_steps_ = 0, sampled_tokens_ = 0;
  int64_t checker_failures_ = 0, failing_steps_ = 0;
  bool mismatch_said_ = false;
  double reward_ = 0, length_ = 0, long_share_ = 0;
};

}  // namespace wels
