// The checkpoints of a run: <run>/checkpoints/step-00001200/, each a Hugging Face folder
// (config.json, model.safetensors in f32, tokenizer.json) plus the trainer's state
// (trainer.safetensors: optimiser moments; trainer.json: everything else). A checkpoint is written
// under a temporary name and renamed when all of it is on disk, so it is there whole or not at all.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/model.h"

namespace wels {

struct TrainerState {
  int64_t step = 0;             // steps done
  int64_t optimizer_steps = 0;  // of these, not skipped
  int64_t ema_updates = 0;
  int64_t sequences = 0;  // sequences consumed
  int64_t tokens = 0;
  double elapsed_s = 0;         // training time so far
  double best_validation = -1;  // nats per token; -1: none yet
  int64_t skipped_in_a_row = 0;
  int64_t planned_steps = 0;  // of the whole run; not stored, the settings have it
  std::string settings;       // JSON of the run's settings, to refuse a resume with others
};

std::string checkpoint_folder(const std::string& run, int64_t step);
// Steps for which a complete checkpoint folder exists, ascending. Throws Error naming a folder that
// is called like one but of no step.
std::vector<int64_t> list_checkpoints(const std::string& run);
// The folder of the best checkpoint, or the newest where that is not there; empty: there is none.
// Throws Error naming what is damaged.
std::string best_checkpoint(const std::string& run);

// The tensors of the trainer's state by name (optimiser moments, averages), in their live memory.
using StateTensors = std::vector<std::pair<std::string, Tensor>>;

// What a checkpoint's folder holds beside the trainer's state.
struct CheckpointParts {
  std::function<void(const std::string& folder)> save_model;
  std::function<void(const std::string& folder)> load_model;
  std::map<std::string, std::string> files;  // name → content: tokenizer.json, ...
};
// All of the model's weights, in f32. The model must outlive the result.
CheckpointParts whole_model(Model& model, std::map<std::string, std::string> files);

// Writes the checkpoint of state.step.
void save_checkpoint(const std::string& run, const CheckpointParts& parts,
                     const StateTensors& tensors, const TrainerState& state);
// Loads values, state tensors and state; the model must have been built with the run's config.
// Throws Error naming what is damaged; the weights are then as they were.
TrainerState load_checkpoint(const std::string& folder, const CheckpointParts& parts,
                             const StateTensors& tensors);
// What a run that goes on must agree with, from its newest checkpoint; nothing where there is none.
// Throws Error naming what is damaged.
struct RunStart {
  std::string folder;  // of the checkpoint
  std::string tokenizer_json, settings;
  uint64_t source_hash = 0;  // of the training shard; 0: the run has none
};
std::optional<RunStart> find_run_start(const std::string& run);
// The same error with the hint to go on from the checkpoint before the newest.
[[noreturn]] void throw_damaged_checkpoint(const std::string& run, const Error& error);
// Removes all but the last `keep` checkpoints and those of the steps that are spared: each is first
// renamed to checkpoints/removed-00001200, so that a kill leaves no half checkpoint that counts.
void prune_checkpoints(const std::string& run, int64_t keep, const std::set<int64_t>& spared);
// What a kill left of a removal.
void remove_leftovers(const std::string& run);
// Renames those of later steps to checkpoints/collapsed-00001200, where nobody resumes from them.
void set_aside_checkpoints(const std::string& run, int64_t last_good_step);

}  // namespace wels
