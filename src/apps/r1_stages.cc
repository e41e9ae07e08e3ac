#include "apps/r1_stages.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "apps/collect_command.h"
#include "apps/flag_settings.h"
#include "apps/loaded_model.h"
#include "apps/merge_command.h"
#include "apps/rl_command.h"
#include "apps/sft_command.h"
#include "apps/tasks_command.h"
#include "apps/text_eval.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/signal.h"
#include "data/corpus.h"
#include "data/hash.h"
#include "data/json_lines.h"
#include "formats/gguf_checkpoint.h"
#include "formats/hf_config.h"
#include "text/gguf_vocab.h"
#include "text/markers.h"
#include "train/presets.h"

namespace wels {
namespace {

using Settings = std::set<std::string>;

// Where it runs and how long is not the recipe's to say: the same recipe gives the same bits.
const Settings kReserved = {"out", "minutes", "device", "threads"};
const Settings kLora = {"lora", "lora-alpha", "lora-targets"};
const Settings kOfNewModels = {"preset", "config", "tokenizer", "vocab", "mtp", "dense"};

Settings with(Settings a, const Settings& b) {
  a.insert(b.begin(), b.end());
  return a;
}

// There are such tasks, and of each questions of the split: held-out ones are none of few.
void require_tasks(const std::string& spec, const std::string& where, TaskSplit split) {
  if (spec.empty()) throw Error(where, "has no \"task\"", "such as \"task\": \"parity:20\"");
  try {
    TaskMixture tasks(spec);
    for (const TaskMixture::Part& part : tasks.parts()) {
      if (split != TaskSplit::kAll) TaskMixture(part.text).item(1, 0, split);
    }
  } catch (const Error& e) {
    throw Error(where + ".task: " + e.where(), e.fact(), e.hint());
  }
}

void require_trainable(const std::string& spec, const std::string& where) {
  for (TaskSplit split : {TaskSplit::kTrain, TaskSplit::kHeldOut})
    require_tasks(spec, where, split);
}

// Runs a check that speaks of flags; what it throws names the settings.
template <class Check>
void in_place(const std::string& where, Check&& check) {
  try {
    check();
  } catch (const Error& e) {
    throw setting_error(e, where);
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
                 fresh ? with(kReserved, kLora) : with(kReserved, kOfNewModels));
  if (fresh && !f.model.is_new()) f.model.preset = "nano";
  if (fresh || s.data.empty()) {
    require_trainable(f.data.task, s.where);
  } else if (!f.data.task.empty()) {
    throw Error(s.where, "has both data and a task", "make the task's examples a stage of its own");
  }
  in_place(s.where, [&] { check_sft_flags(f); });
  f.kind = fmt::format("recipe, stage {}", s.name);
  return f;
}

RlFlags rl_flags(const RecipeStage& s, const StageInputs& in) {
  RlFlags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, s.settings, s.where, {in.from}, kReserved);
  require_trainable(f.rl.tasks, s.where);
  in_place(s.where, [&] { check_rl_flags(f); });
  return f;
}

CollectFlags collect_flags(const RecipeStage& s) {
  CollectFlags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, s.settings, s.where, {}, kReserved);
  require_tasks(f.task, s.where, TaskSplit::kTrain);
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
  require_tasks(f.spec, s.where, TaskSplit::kTrain);
  return f;
}

TaskEvalFlags eval_flags(const nlohmann::json& settings, const std::string& where) {
  TaskEvalFlags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, settings, where, {}, {});
  in_place(where, [&] {
    if (f.chat_template != "auto") chat_template_by_name(f.chat_template);
  });
  return f;
}

// What `wels eval` would ask: of a file all questions, or some of each task.
void require_asked(const TaskEvalFlags& f, const std::string& where) {
  require_tasks(f.task, where, f.settings.split);
}

template <class Flags>
Flags texts_flags(const RecipeStage& s) {
  Flags f;
  CLI::App app;
  f.add(&app);
  apply_settings(app, s.settings, s.where, {}, kReserved);
  return f;
}

// Of the model that a stage leaves, or of a path; of its vocabulary nothing is known yet.
ModelConfig known_config(const std::string& model, const Recipe& recipe) {
  const RecipeStage* s = recipe.find(model);
  if (!s) return config_of_model(model);
  if (s->kind != StageKind::kBase) return known_config(s->from, recipe);
  SftModelFlags f = sft_flags(*s, {}).model;
  ModelConfig c = f.config.empty() ? preset(f.preset).model : load_hf_config(f.config);
  if (f.dense) make_dense(c);
  return c;
}

// seq: 0 is as long as the model takes.
void require_length(int64_t seq, int64_t least, const ModelConfig& c, const std::string& where) {
  int64_t most = c.max_position_embeddings;
  if (seq != 0 && (seq < least || seq > most))
    throw Error(where + ".seq",
                fmt::format("{} is not between {} and the model's {} positions", seq, least, most),
                "use a shorter one");
}

// A prompt has one token at least, and the next one after the answer a place.
void require_room(int64_t max_tokens, const ModelConfig& c, const std::string& where) {
  int64_t most = c.max_position_embeddings - 2;
  if (max_tokens > most)
    throw Error(where + ".max_tokens",
                fmt::format("{} are beyond the model's {} positions", max_tokens, most + 2),
                fmt::format("use less than {}", most + 1));
}

// What the stage's settings ask of its model.
void check_against_model(const RecipeStage& s, const ModelConfig& c) {
  StageInputs in;
  in.from = s.from;
  auto adapters = [&](const LoraConfig& lora) {
    if (lora.rank > 0) in_place(s.where, [&] { check_lora_targets(c, lora); });
  };
  switch (s.kind) {
    case StageKind::kBase:
    case StageKind::kSft: {
      SftFlags f = sft_flags(s, in);
      require_length(f.seq, 2, c, s.where);
      return adapters(f.model.lora);
    }
    case StageKind::kRl: {
      RlFlags f = rl_flags(s, in);
      require_room(f.rl.rollout.max_tokens, c, s.where);
      return adapters(f.model.lora);
    }
    case StageKind::kSample:
      return require_room(collect_flags(s).max_tokens, c, s.where);
    case StageKind::kDocuments:
      return require_length(texts_flags<DocumentsFlags>(s).seq, 8, c, s.where);
    case StageKind::kReplay:
      return require_length(texts_flags<ReplayFlags>(s).texts.seq, 8, c, s.where);
    case StageKind::kEval:
      if (!is_of_recipe_evaluation(s))
        require_room(eval_flags(s.settings, s.where).max_tokens, c, s.where);
      return;
    case StageKind::kExamples:
    case StageKind::kMerge:
      return;
  }
}

bool has_adapters(const RecipeStage& s) {
  bool learns = s.kind == StageKind::kSft || s.kind == StageKind::kRl;
  return learns && s.settings.value("lora", 0) > 0;
}

// A stage of adapters is joined with its model before another learns from it.
void check_adapters(const RecipeStage& s, const Recipe& recipe) {
  const RecipeStage* from = s.from.empty() ? nullptr : recipe.find(s.from);
  bool adapters = from && has_adapters(*from);
  if (adapters && s.kind != StageKind::kMerge && s.kind != StageKind::kEval)
    throw Error(s.where + ".from", fmt::format("\"{}\" leaves adapters, not a whole model", s.from),
                "put a stage of kind merge between them");
  if (from && !adapters && s.kind == StageKind::kMerge)
    throw Error(s.where + ".from", fmt::format("\"{}\" leaves no adapters", s.from),
                "leave the stage out");
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

StageOutcome outcome_of(const TextsReport& r) {
  return {.stopped = r.stopped,
          .sampled_tokens = r.sampled_tokens,
          .seconds = r.seconds,
          .more = {{"kept", r.parts}, {"bytes", r.bytes}, {"held_out_bytes", r.held_out_bytes}}};
}

StageOutcome run_merge(const StageInputs& in, const std::string& folder) {
  double t0 = monotonic_seconds();
  std::filesystem::remove_all(folder + "/model");
  merge_job({.adapters = in.from, .out = folder + "/model", .type = "f32"});
  return {.seconds = monotonic_seconds() - t0};
}

StageOutcome run_eval(const RecipeStage& s, const StageInputs& in, const DeviceFlags& device) {
  if (is_of_recipe_evaluation(s)) return {};
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

// Of all parts of the file: config, vocabulary, names and values of the tensors.
std::string hash_of_gguf(const std::string& path) {
  GgufCheckpoint file(path);
  uint64_t h = hash_bytes(to_hf_config(file.config()));
  h = hash_bytes(write_tokenizer_json(parse_gguf_vocab(file.content())), h);
  for (const TensorEntry& t : file.content().tensors) {
    h = hash_bytes(t.name, h);
    h = hash_bytes({reinterpret_cast<const char*>(t.data.data()), t.data.size()}, h);
  }
  return fmt::format("{:016x}", h);
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

bool is_of_recipe_evaluation(const RecipeStage& s) {
  return s.kind == StageKind::kEval && !s.settings.contains("task");
}

void check_stage(const RecipeStage& s, const Recipe& recipe) {
  check_adapters(s, recipe);
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
    case StageKind::kDocuments:
      texts_flags<DocumentsFlags>(s);
      break;
    case StageKind::kReplay:
      texts_flags<ReplayFlags>(s);
      break;
    case StageKind::kMerge:
      if (s.settings.size() > 1)
        throw Error(s.where, "a merge has no settings", "leave all but name, kind and from out");
      break;
    case StageKind::kEval:
      if (is_of_recipe_evaluation(s) && s.settings.size() > 1)
        throw Error(s.where, "has settings but no \"task\"",
                    "name one, or leave them out: the recipe's evaluation is asked");
      if (!is_of_recipe_evaluation(s)) require_asked(eval_flags(s.settings, s.where), s.where);
      break;
  }
  if (s.kind == StageKind::kExamples) return;
  ModelConfig c = known_config(s.kind == StageKind::kBase ? s.name : s.from, recipe);
  check_against_model(s, c);
  TaskEvalFlags asked = evaluation_flags(recipe);
  bool evaluated = makes_model(s.kind) || is_of_recipe_evaluation(s);
  if (evaluated && !asked.task.empty()) require_room(asked.max_tokens, c, recipe.where);
}

TaskEvalFlags evaluation_flags(const Recipe& recipe) {
  TaskEvalFlags f = eval_flags(recipe.evaluation, recipe.where);
  if (!f.task.empty() || (recipe.texts.empty() && recipe.examples.empty()))
    require_asked(f, recipe.where);
  return f;
}

nlohmann::ordered_json evaluate_model(LoadedModel& m, const TaskEvalFlags& f,
                                      const EvaluatedData& data) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  if (!f.task.empty()) out = json_of(f, evaluate_on_tasks(m, f));
  for (const auto& [name, file] : data.texts) {
    TextEvaluation e = evaluate_text(m, {file}, 0, stop_requested);
    throw_if_stopped();
    out["texts"][name] = {{"bits_per_byte", e.bits_per_byte}, {"bytes", e.read.bytes}};
  }
  if (data.examples.empty()) return out;
  // The same share of the questions as an sft stage holds out.
  SftSettings s;
  s.longest = std::min<int64_t>(4096, m.model->config().max_position_embeddings);
  s.trainer.dtype = m.dtype;
  std::optional<ChatTemplate> chat_template = find_chat_template(m.folder);
  if (!chat_template && m.tokenizer->find(kUserMark)) chat_template = ChatTemplate::kDeepSeekV31;
  ChatData read = read_chat_data(
      list_json_lines(data.examples), *m.tokenizer,
      {.chat_template = chat_template, .longest = s.longest, .held_out = kEvaluatedExamples});
  if (read.held_out.size() == 0)
    throw Error(data.examples[0], "none of its questions is held out: there are too few",
                "give at least some dozens of examples");
  Pool pool = device_pool(*m.dev);
  AnswerEvaluation e = evaluate_answers(*m.dev, *m.model, pool, read.held_out, 0, s);
  out["examples"] = {{"nats_per_token", e.loss},
                     {"token_accuracy", e.accuracy},
                     {"examples", read.held_out.size()}};
  return out;
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
    case StageKind::kDocuments:
      return outcome_of(documents_job(texts_flags<DocumentsFlags>(s), in.from, in.data, folder));
    case StageKind::kReplay:
      return outcome_of(replay_job(texts_flags<ReplayFlags>(s), in.from, in.data, folder, device));
    case StageKind::kMerge:
      return run_merge(in, folder);
    case StageKind::kEval:
      break;
  }
  return run_eval(s, in, device);
}

std::string hash_of_model(const std::string& path) {
  namespace fs = std::filesystem;
  if (fs::is_regular_file(path)) return hash_of_gguf(path);
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

ModelConfig config_of_model(const std::string& path) {
  if (std::filesystem::is_regular_file(path)) return GgufCheckpoint(path).config();
  return load_hf_config(resolve_checkpoint(path));
}

std::string hash_of_texts(const std::string& path) {
  uint64_t h = 0;
  for (const std::string& f : list_corpus({path})) h = hash_file(f, h);
  return fmt::format("{:016x}", h);
}

nlohmann::json hash_of_files(const RecipeStage& s) {
  nlohmann::json out = nlohmann::json::object();
  auto add = [&](const char* setting, auto&& hash) {
    auto at = s.settings.find(setting);
    if (at != s.settings.end() && at->is_string() && *at != "")
      out[setting] = hash(at->get<std::string>());
  };
  add("config", [](const std::string& path) { return fmt::format("{:016x}", hash_file(path, 0)); });
  add("tokenizer", [](const std::string& path) {
    return fmt::format("{:016x}", hash_bytes(write_tokenizer_json(load_vocab_source(path))));
  });
  add("corpus", hash_of_texts);
  return out;
}

std::string hash_of_data(const std::string& path) {
  uint64_t h = 0;
  for (const std::string& f : list_json_lines({path})) h = hash_file(f, h);
  return fmt::format("{:016x}", h);
}

}  // namespace wels
