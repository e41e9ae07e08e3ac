// wels adapt: a domain model from documents, with examples and checkable questions where there are
// some: continued pretraining beside replay, supervised fine-tuning, reinforcement learning. It is
// a recipe (apps/recipe_run.h) that is written from the flags, so each stage is a run of its own
// and the same command goes on where it was stopped.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/recipe_run.h"
#include "apps/recipe_texts.h"
#include "base/error.h"
#include "base/file.h"
#include "data/chat_record.h"
#include "data/json_lines.h"
#include "formats/gguf_checkpoint.h"
#include "formats/json.h"

namespace wels {
namespace {

using nlohmann::json;

struct AdaptFlags {
  RecipeRunFlags run;
  std::string model, replay, general, task;
  std::vector<std::string> documents, examples, settings;
  double share = 0.25, lr = 2e-4, epochs = 2, sft_epochs = 2;
  int64_t lora = 0, seq = 0, steps = 0, batch = 16, rl_steps = 60, max_tokens = 256, items = 128;
  uint64_t seed = 1;
};

void require_exists(const std::string& path, const std::string& what) {
  if (!std::filesystem::exists(path)) throw Error(path, "does not exist", "name " + what);
}

// Answers there must be, in every line: a mistake is to be seen before hours of pretraining.
void require_examples(const std::vector<std::string>& files) {
  if (files.empty()) return;
  read_json_lines(list_json_lines(files), [&](std::string_view line, const std::string& where) {
    if (parse_chat_record(line, where).messages.empty())
      throw Error(
          where, "is a text, not an example",
          "give {\"messages\"} or {\"question\", \"answer\"}; texts belong to the documents");
    return true;
  });
}

void check(const AdaptFlags& f) {
  require_exists(f.model, "a model or run folder");
  if (std::filesystem::is_regular_file(f.model)) {
    GgufCheckpoint file(f.model);
    if (f.lora == 0)
      throw Error(f.model, "is a GGUF file, whose weights cannot be trained as they are",
                  "train adapters over them: --lora 16");
  }
  for (const std::string& d : f.documents) require_exists(d, "a file or folder of documents");
  if (!f.replay.empty()) require_exists(f.replay, "a file or folder of general text");
  if (!f.general.empty()) require_exists(f.general, "a text that nothing is learned of");
  if (f.share == 0 && !f.replay.empty())
    throw Error("--replay-share", "0 repeats nothing of the corpus of --replay",
                "leave one of them out");
  for (const std::string& e : f.examples) require_exists(e, "a file of examples");
  require_examples(f.examples);
}

// "pretrain.batch=8" into the stage's settings.
void apply_setting(json& stages, const std::string& text) {
  size_t dot = text.find('.'), is = text.find('=');
  if (dot == std::string::npos || is == std::string::npos || is < dot)
    throw Error("--set", fmt::format("\"{}\" is no STAGE.SETTING=VALUE", printable(text)),
                "such as pretrain.batch=8");
  std::string stage = text.substr(0, dot), key = text.substr(dot + 1, is - dot - 1), names;
  std::string value = text.substr(is + 1);
  for (json& s : stages) {
    names += (names.empty() ? "" : ", ") + s["name"].get<std::string>();
    if (s["name"] != stage) continue;
    json parsed = json::parse(value, nullptr, false);
    s[key] = parsed.is_discarded() ? json(value) : parsed;
    return;
  }
  throw Error("--set", fmt::format("there is no stage \"{}\"", printable(stage)), "use " + names);
}

class AdaptRecipe {
 public:
  explicit AdaptRecipe(const AdaptFlags& f) : f_(f), model_(f.model) {}

  std::string text() {
    texts();
    add("before", "eval", {});
    learn("pretrain", "sft", pretraining());
    if (!f_.examples.empty()) {
      learn("sft", "sft",
            {{"data", f_.examples},
             {"epochs", f_.sft_epochs},
             {"held_out", kEvaluatedExamples},
             {"sample_every", 0}});
    }
    if (!f_.task.empty()) {
      learn("rl", "rl", {{"task", f_.task}, {"steps", f_.rl_steps}, {"max_tokens", f_.max_tokens}});
    }
    for (const std::string& s : f_.settings) apply_setting(stages_, s);
    return json{
        {"name", name()}, {"seed", f_.seed}, {"evaluation", evaluation()}, {"stages", stages_}}
        .dump();
  }

 private:
  std::string name() const {
    return fmt::format("{} adapted to {}",
                       std::filesystem::path(f_.model).lexically_normal().filename().string(),
                       f_.documents[0]);
  }

  void add(const std::string& name, const std::string& kind, json settings) {
    settings["name"] = name;
    settings["kind"] = kind;
    settings["from"] = model_;
    stages_.push_back(std::move(settings));
  }

  // A stage whose model the next ones go on from.
  void learn(const std::string& name, const std::string& kind, json settings) {
    if (f_.lora > 0) settings["lora"] = f_.lora;
    add(name, kind, std::move(settings));
    model_ = name;
    if (f_.lora == 0) return;
    add(name + "-merged", "merge", {});
    model_ = name + "-merged";
  }

  void texts() {
    add("documents", "documents", {{"data", f_.documents}, {"seq", f_.seq}});
    if (f_.share == 0) return;
    json replay = {{"data", json::array({"documents"})}, {"share", f_.share}, {"seq", f_.seq}};
    if (!f_.replay.empty()) replay["corpus"] = f_.replay;
    add("replay", "replay", std::move(replay));
  }

  json pretraining() const {
    json out = {{"data", json::array({"documents"})},
                {"lr", f_.lr},
                {"batch", f_.batch},
                {"epochs", f_.epochs},
                {"held_out", 0.02},
                {"seq", f_.seq},
                {"sample_every", 0},
                {"template", "none"}};
    if (f_.share > 0) out["data"].push_back("replay");
    if (f_.steps > 0) out["steps"] = f_.steps;
    return out;
  }

  json evaluation() const {
    json out = {{"texts", {{"domain", "documents"}}}};
    if (!f_.general.empty()) {
      out["texts"]["general"] = f_.general;
    } else if (f_.share > 0) {
      out["texts"]["general"] = "replay";
    }
    if (!f_.examples.empty()) out["examples"] = f_.examples;
    if (!f_.task.empty()) {
      out["task"] = f_.task;
      out["items"] = f_.items;
      out["max_tokens"] = f_.max_tokens;
    }
    return out;
  }

  const AdaptFlags& f_;
  std::string model_;
  json stages_ = json::array();
};

int adapt(const AdaptFlags& f) {
  check(f);
  std::string text = AdaptRecipe(f).text();
  return run_recipe(parse_recipe(text, "adapt"), f.run);
}

void add_learning_flags(CLI::App* sub, AdaptFlags& f) {
  sub->add_option("--seq", f.seq, "tokens of an example (0: 1024, or the model's longest)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--epochs", f.epochs, "of the documents")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--steps", f.steps, "of pretraining instead of epochs")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--lr", f.lr, "of pretraining: up to this and down to a tenth again")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--batch", f.batch, "examples per step of pretraining")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--lora", f.lora,
                  "all learning by adapters of this rank, joined with the model after each stage "
                  "(0: all of it is trained)")
      ->check(CLI::Range(0, 4096));
  sub->add_option("--sft-epochs", f.sft_epochs, "of the examples")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--rl-steps", f.rl_steps, "on the task")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--max-tokens", f.max_tokens, "of an answer to the task")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--items", f.items, "held-out questions of the task")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--seed", f.seed, "")->capture_default_str();
  sub->add_option("--set", f.settings,
                  "any other setting of a stage (docs/adapt.md), such as pretrain.warmup=20 or "
                  "rl.algorithm=dapo; may be repeated")
      ->allow_extra_args(false);
}

}  // namespace

void add_adapt(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand(
      "adapt", "a domain model from documents, examples and questions that can be checked");
  auto f = std::make_shared<AdaptFlags>();
  f->run.out = "adapted";
  sub->add_option("model", f->model, "model or run folder (GGUF with --lora)")->required();
  sub->add_option("documents", f->documents, "files or folders: .txt .md .jsonl, .gz .zst")
      ->required();
  sub->add_option("--replay", f->replay,
                  "general text that is repeated beside the documents, so that nothing else is "
                  "forgotten (none: what the model writes by itself)");
  sub->add_option("--replay-share", f->share, "of the text that is learned (0: none)")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  sub->add_option("--general", f->general,
                  "general text to be measured by, not learned (default: a part of the replay)");
  sub->add_option("--examples", f->examples,
                  "conversations or questions and answers (.jsonl) to be learned afterwards")
      ->allow_extra_args(false);
  sub->add_option("--task", f->task,
                  "questions that a program can check, for reinforcement learning at the end: a "
                  "task or FILE.jsonl@CHECKER");
  add_learning_flags(sub, *f);
  f->run.add(sub);
  sub->callback([f, &run] { run = [f] { return adapt(*f); }; });
}

}  // namespace wels
