#include "apps/r1_stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "apps/collect_command.h"
#include "apps/flag_settings.h"
#include "apps/loaded_model.h"
#include "apps/rl_command.h"
#include "apps/sft_command.h"
#include "apps/tasks_command.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "data/hash.h"
#include "data/json_lines.h"

namespace wels {
namespace {

using Settings = std::set<std::string>;

// Where it runs and how long is not the recipe's to say: the same recipe gives the same bits. A
// stage leaves whole weights, no adapters.
const Settings kReserved = {"out",  "minutes",    "device",      "threads",
                            "lora", "lora-alpha", "lora-targets"};
const Settings kOfNewModels = {"preset", "config", "tokenizer", "vocab", "mtp", "dense"};

Settings with(Settings a, const Settings& b) {
  a.insert(b.begin(), b.end());
  return a;
}

void require_tasks(const std::string& spec, const std::string& where) {
  if (spec.empty()) throw Error(where, "has no \"task\"", "such as \"task\": \"parity:20\"");
  try {
    TaskMixture tasks(spec);
  } catch (const Error& e) {
    throw Error(where + ".task: " + e.where(), e.fact(), e.hint());
  }
}

SftFlags sft_flags(const RecipeStage& s, const StageInputs& in) {
  SftFlags f;
  CLI::App app;
  f.add(&app);
  bool fresh = s.kind == StageKind::kBase;
  std::vector<std::string> paths = in.data;
  if (!in.from.empty()) paths.insert(paths.begin(), in.from);
  apply_settings(app, s.settings, s.where, paths,
                 fresh ? kReserved : with(kReserved, kOfNewModels));
  if (fresh && !f.model.is_new()) f.model.preset = "nano";
  if (fresh || s.data.empty()) {
    require_tasks(f.data.task, s.where);
  } else if (!f.data.task.empty()) {
    throw Error(s.where, "has both data and a task", "make the task's examples a stage of its own");
  }
  f.kind = fmt::format("recipe, stage {}", s.name);
  return f;
}

RlFlags rl_flags(const RecipeStage& s, const StageInputs& in) {
  RlFlags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, s.settings, s.where, {in.from}, kReserved);
  require_tasks(f.rl.tasks, s.where);
  rl_algorithm(f.algorithm);
  return f;
}

CollectFlags collect_flags(const RecipeStage& s) {
  CollectFlags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, s.settings, s.where, {}, kReserved);
  require_tasks(f.task, s.where);
  return f;
}

TaskFile examples_file(const RecipeStage& s) {
  TaskFile f;
  f.format = "messages";
  f.p_cot = 0;
  CLI::App app;
  app.add_option("--task", f.spec, "tasks")->required();
  app.add_option("--count", f.count, "examples")->required()->check(CLI::PositiveNumber);
  app.add_option("--p-cot", f.p_cot, "share with a chain")->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", f.seed, "of the examples");
  apply_settings(app, s.settings, s.where, {}, {});
  require_tasks(f.spec, s.where);
  return f;
}

TaskEvalFlags eval_flags(const nlohmann::json& settings, const std::string& where) {
  TaskEvalFlags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, settings, where, {}, {});
  require_tasks(f.task, where);
  return f;
}

StageOutcome outcome_of(const StageResult& r, int64_t sampled_tokens) {
  return {.stopped = r.stopped,
          .steps = r.steps,
          .trained_tokens = r.tokens,
          .sampled_tokens = sampled_tokens,
          .seconds = r.elapsed_s,
          .more = {{"best_validation", r.best}}};
}

StageOutcome run_sft(const RecipeStage& s, const StageInputs& in, const std::string& folder,
                     const DeviceFlags& device) {
  SftFlags f = sft_flags(s, in);
  f.device = device;
  f.settings.out = folder;
  return outcome_of(sft_job(std::move(f), {}), 0);
}

StageOutcome run_rl(const RecipeStage& s, const StageInputs& in, const std::string& folder,
                    const DeviceFlags& device) {
  RlFlags f = rl_flags(s, in);
  f.device = device;
  f.settings.out = folder;
  RlOutcome r = rl_job(std::move(f));
  return outcome_of(r.result, r.sampled_tokens);
}

StageOutcome run_sample(const RecipeStage& s, const StageInputs& in, const std::string& folder,
                        const DeviceFlags& device) {
  CollectFlags f = collect_flags(s);
  f.device = device;
  CollectReport r = collect_job(f, in.from, in.from_hash, folder + "/answers");
  return {.stopped = r.stopped,
          .sampled_tokens = r.tokens,
          .seconds = static_cast<double>(r.ms) / 1e3,
          .more = {{"questions", r.questions},
                   {"answers", r.answers},
                   {"right", r.right},
                   {"unreadable", r.unreadable},
                   {"duplicates", r.duplicates},
                   {"kept", r.kept}}};
}

StageOutcome run_examples(const RecipeStage& s, const std::string& folder) {
  TaskFile f = examples_file(s);
  double t0 = monotonic_seconds();
  make_folder(folder + "/answers");
  f.out = folder + "/answers/examples.jsonl";
  bool whole = write_task_examples(f);
  return {.stopped = !whole, .seconds = monotonic_seconds() - t0, .more = {{"kept", f.count}}};
}

StageOutcome run_eval(const RecipeStage& s, const StageInputs& in, const DeviceFlags& device) {
  TaskEvalFlags f = eval_flags(s.settings, s.where);
  double t0 = monotonic_seconds();
  device.apply();
  LoadedModel m = open_model(in.from, device.device, "auto");
  nlohmann::ordered_json evaluation = json_of(f, evaluate_on_tasks(m, f));
  return {.seconds = monotonic_seconds() - t0, .more = {{"evaluation", evaluation}}};
}

uint64_t hash_file(const std::string& path, uint64_t seed) {
  return hash_bytes(MappedFile(path).text(), seed);
}

}  // namespace

nlohmann::ordered_json StageOutcome::json() const {
  nlohmann::ordered_json j = {{"steps", steps},
                              {"trained_tokens", trained_tokens},
                              {"sampled_tokens", sampled_tokens},
                              {"seconds", seconds}};
  j.update(more);
  return j;
}

void check_stage(const RecipeStage& s) {
  StageInputs unknown;
  if (!s.from.empty()) unknown.from = s.from;
  switch (s.kind) {
    case StageKind::kBase:
    case StageKind::kSft:
      sft_flags(s, unknown);
      break;
    case StageKind::kRl:
      rl_flags(s, unknown);
      break;
    case StageKind::kSample:
      collect_flags(s);
      break;
    case StageKind::kExamples:
      examples_file(s);
      break;
    case StageKind::kEval:
      eval_flags(s.settings, s.where);
      break;
  }
}

TaskEvalFlags evaluation_flags(const Recipe& recipe) {
  return eval_flags(recipe.evaluation, recipe.where);
}

StageOutcome run_recipe_stage(const RecipeStage& s, const StageInputs& in,
                              const std::string& folder, const DeviceFlags& device) {
  switch (s.kind) {
    case StageKind::kBase:
    case StageKind::kSft:
      return run_sft(s, in, folder, device);
    case StageKind::kRl:
      return run_rl(s, in, folder, device);
    case StageKind::kSample:
      return run_sample(s, in, folder, device);
    case StageKind::kExamples:
      return run_examples(s, folder);
    case StageKind::kEval:
      break;
  }
  return run_eval(s, in, device);
}

std::string hash_of_model(const std::string& path) {
  namespace fs = std::filesystem;
  std::string folder = resolve_checkpoint(path);
  std::vector<std::string> files = {folder + "/config.json"};
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") && name != "trainer.safetensors")
      files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  if (fs::exists(folder + "/tokenizer.json")) files.push_back(folder + "/tokenizer.json");
  uint64_t h = 0;
  for (const std::string& f : files) h = hash_file(f, h);
  return fmt::format("{:016x}", h);
}

std::string hash_of_data(const std::string& path) {
  uint64_t h = 0;
  for (const std::string& f : list_json_lines({path})) h = hash_file(f, h);
  return fmt::format("{:016x}", h);
}

}  // namespace wels
