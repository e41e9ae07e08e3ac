// A stage of a model's training (pretraining, SFT, DPO, RL, distillation), and the loop around it
// that people watch, stop, resume and read about afterwards. The stage says what a step learns
// from; the loop keeps the learning rate, metrics, events, checkpoints and the status line.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/error.h"
#include "train/metrics.h"
#include "train/run_folder.h"
#include "train/samples.h"
#include "train/schedule.h"
#include "train/trainer.h"

namespace wels {

// What every stage has.
struct StageSettings {
  std::string out = "out";  // run folder
  Schedule schedule;
  TrainerConfig trainer;
  double minutes = 0;  // > 0: as many steps as fit, measured over the first ones
  double ema = 0;      // > 0: decay of an average of the weights, kept beside them
  uint64_t seed = 1;
  // What is saved at its interval is always evaluated too.
  int64_t save_every = 500, eval_every = 100, sample_every = 200, keep = 2;
  bool quiet = false;
};

// What a step did.
struct StageStep {
  StepStats stats;                     // of its update; of the last one where there were several
  int64_t sequences = 0;               // consumed
  int64_t tokens = 0;                  // trained on
  double loss = 0;                     // what the status line shows
  bool nothing_to_learn = false;       // no update was made, and none was due
  std::optional<Error> collapse = {};  // the model is beyond use, and no update was made
};

class Stage {
 public:
  virtual ~Stage() = default;

  // Everything that changes the stage's numbers beyond StageSettings and the model: a run is
  // resumed only where all of it is the same. An object of scalars.
  virtual nlohmann::json settings() const = 0;

  // One step: forward, backward, update. Depends on the weights, the trainer's and the stage's own
  // state and the counts in `state` alone (which are those before the step), so that a resumed run
  // repeats it bit for bit. Adds what only this stage measures to m. Throws Interrupted
  // (base/signal.h) where it does not wait for the end: the step was none then.
  virtual StageStep step(Trainer& trainer, const TrainerState& state, double lr,
                         StepMetrics& m) = 0;

  // Held-out data; adds its figures to m where there is one. Returns what the best checkpoint has
  // least of (nats per token, or 1 - accuracy). averaged: the weights are the moving average.
  virtual double validate(Trainer& trainer, StepMetrics* m, bool averaged) = 0;

  // What the model writes now; empty: nothing to show. An Error is only warned of.
  virtual std::string sample() { return {}; }
  // Some of what the model wrote in the last step, for samples.jsonl; empty: it wrote nothing.
  virtual std::vector<StageSample> rollouts() const { return {}; }
  // A few words for the status line, after the loss.
  virtual std::string status() const { return {}; }
  // Tensors that a checkpoint keeps beside weights and optimiser (a reference policy, say), in
  // their live memory.
  virtual StateTensors state() { return {}; }
  // Anything else that it keeps: written into and read back from the checkpoint's settings.
  virtual nlohmann::json counters() const { return nlohmann::json::object(); }
  virtual void restore(const nlohmann::json& counters) { (void)counters; }
  // Steps in a row, up to the last one, after which the model may be beyond use: the newest
  // checkpoint from before them is kept.
  virtual int64_t doubtful_steps() const { return 0; }
  // Forward and backward of a typical step without an update, to measure its time (runs given in
  // minutes). May throw Interrupted.
  virtual void rehearse(Trainer& trainer) = 0;
  // Steps that are still to come, where the stage itself knows and not the schedule: 0 ends the run
  // with the step that was made. -1: the schedule says.
  virtual int64_t steps_left() const { return -1; }
  // Whether the tokens of a StageStep are most of what a step computes: their rate is then held
  // against the machine's peak.
  virtual bool rate_is_of_training() const { return true; }
};

struct StageContext {
  Device& dev;
  Model& model;           // allocated and initialised
  CheckpointParts parts;  // whole_model(), or what else a checkpoint of this run is
  // Writes the run's report; may be empty.
  std::function<void(int64_t total_steps)> report;
};

struct StageResult {
  int64_t steps = 0, tokens = 0;
  double best = 0;  // the least that validate() returned of saved steps; -1: of none
  double tokens_per_s = 0;
  double elapsed_s = 0;    // of all steps, those before a resume included
  bool stopped = false;    // by a signal; resume continues
  bool evaluated = false;  // as it is now; else what the stage says of its model is older
  std::string checkpoint;  // the last one's folder
};

// Operations of a token's forward and backward, attention not counted: 6 · active parameters.
double training_flops_per_token(const ModelConfig& cfg);

// Runs until the schedule's last step or a stop signal. If the run folder has a checkpoint it
// continues from the newest, bit for bit as if it had never stopped; with settings that differ in
// anything but output and intervals it throws Error, and Interrupted where a signal came before the
// steps of a run given in minutes were measured. A model whose last step or validation is not
// finite is not saved, and the run that ends with it throws Error. The caller holds the folder's
// lock.
StageResult run_stage(const StageContext& ctx, const StageSettings& settings, Stage& stage);

}  // namespace wels
