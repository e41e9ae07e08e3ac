#include "apps/recipe_run.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <set>

#include "apps/r1_card.h"
#include "apps/r1_stages.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/json.h"
#include "tasks/task.h"

namespace wels {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Marks are written whole or not at all: one that cannot be read is not ours.
std::optional<json> read_mark(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  json j = parse_json(read_file(path), path);
  if (!j.is_object()) throw Error(path, "is not an object", "remove the stage's folder");
  return j;
}

void write_mark(const std::string& path, const ordered_json& j) {
  write_file_atomic(path, j.dump(2) + "\n");
}

// Of the questions in the files that the settings' tasks name; null: they name none.
json hash_of_tasks(const json& settings) {
  auto task = settings.find("task");
  if (task == settings.end() || !task->is_string()) return {};
  uint64_t h = TaskMixture(task->get<std::string>()).hash_of_files();
  return h == 0 ? json() : json(fmt::format("{:016x}", h));
}

// The first difference between what a stage was started with and what it is to be now.
std::string difference(const json& then, const json& now) {
  json old = then.value("settings", json::object());
  const json& settings = now["settings"];
  for (const auto& [key, value] : settings.items()) {
    if (!old.contains(key))
      return fmt::format("was run without {}, not with {}", key, value.dump());
    if (old[key] != value)
      return fmt::format("was run with {} {}, not {}", key, old[key].dump(), value.dump());
  }
  for (const auto& [key, value] : old.items()) {
    if (!settings.contains(key))
      return fmt::format("was run with {} {}, not without", key, value.dump());
  }
  if (then.value("kind", json()) != now["kind"]) return "was a stage of another kind";
  if (then.value("from", json()) != now["from"]) return "was run from another model";
  if (then.value("tasks", json()) != now.value("tasks", json()))
    return "was run on other questions of its task files";
  return "was run on other data";
}

class RecipeRun {
 public:
  RecipeRun(const Recipe& recipe, const RecipeRunFlags& f) : f_(f), recipe_(recipe) {
    evaluation_ = evaluation_flags(recipe_);
    for (const RecipeStage& s : recipe_.stages) check_stage(s, recipe_);
    if (f.from.empty()) return;
    const RecipeStage* first = recipe_.find(f.from);
    if (!first) {
      std::string names;
      for (const RecipeStage& s : recipe_.stages) names += (names.empty() ? "" : ", ") + s.name;
      throw Error("--from", fmt::format("there is no stage \"{}\"", printable(f.from)),
                  "use " + names);
    }
    for (const RecipeStage* s : stages_from(recipe_, *first)) may_restart_.insert(s->name);
  }

  // The exit code.
  int run() {
    make_folder(f_.out);
    FolderLock lock(f_.out);
    std::unique_ptr<RunsUi> ui = f_.ui.start(f_.out);
    for (const RecipeStage& s : recipe_.stages) {
      if (!run_stage(s)) return 130;
      write_card();
    }
    fmt::print("\n{}\n{}\nreport card {}/report_card.md\n", recipe_.name,
               card_table(rows_, f_.price_per_hour), f_.out);
    return 0;
  }

 private:
  std::string folder(const RecipeStage& s) const { return f_.out + "/" + s.folder(); }

  // The place of a source, which is a stage or a path.
  std::string place(const std::string& source, bool data) const {
    const RecipeStage* s = recipe_.find(source);
    if (!s) return source;
    if (data) return folder(*s) + "/answers";
    return folder(*s) + (s->kind == StageKind::kMerge ? "/model" : "");
  }

  // false: stopped.
  bool run_stage(const RecipeStage& s) {
    std::string at = folder(s);
    StageInputs in;
    json data_hashes = json::array();
    if (!s.from.empty()) {
      in.from = place(s.from, false);
      in.from_hash = hash_of_model(in.from);
    }
    for (const std::string& d : s.data) {
      in.data.push_back(place(d, true));
      data_hashes.push_back(s.kind == StageKind::kDocuments ? hash_of_texts(in.data.back())
                                                            : hash_of_data(in.data.back()));
    }
    json key = {{"kind", name(s.kind)},
                {"settings", s.settings},
                {"from", in.from_hash},
                {"data", data_hashes}};
    if (json tasks = hash_of_tasks(s.settings); !tasks.is_null()) key["tasks"] = tasks;
    start(s, at, key);
    std::optional<json> done = read_mark(at + "/done.json");
    if (done) {
      log_info("{}: done, kept", s.folder());
    } else {
      log_info("{}: {}{}", s.folder(), name(s.kind), s.from.empty() ? "" : " from " + s.from);
      StageOutcome o = run_recipe_stage(s, in, at, f_.device);
      if (o.stopped) return false;
      write_mark(at + "/done.json", {{"made", made(s, at)}, {"outcome", o.json()}});
      done = read_mark(at + "/done.json");
    }
    require_whole(s, at, *done);
    add_row(s, at, *done);
    return true;
  }

  // The folder, for a stage with this key; what another left there is refused, or goes.
  void start(const RecipeStage& s, const std::string& at, const json& key) {
    std::optional<json> then = read_mark(at + "/started.json");
    // Older runs don't say which questions there were.
    if (then && !then->contains("tasks") && key.contains("tasks")) (*then)["tasks"] = key["tasks"];
    if (then && *then != key) {
      if (!may_restart_.contains(s.name)) {
        throw Error(at, difference(*then, key),
                    fmt::format("--from {} runs it again, and what depends on it; or take another "
                                "--out",
                                s.name));
      }
      log_info("{}: {}; run again", s.folder(), difference(*then, key));
      std::filesystem::remove_all(at);
      then.reset();
    }
    make_folder(at);
    if (!then) write_mark(at + "/started.json", key);
  }

  std::string made(const RecipeStage& s, const std::string& at) const {
    if (makes_model(s.kind)) return hash_of_model(place(s.name, false));
    return makes_data(s.kind) ? hash_of_data(at + "/answers") : "";
  }

  void require_whole(const RecipeStage& s, const std::string& at, const json& done) const {
    if (!done.contains("made") || !done.value("outcome", json()).is_object() ||
        done["made"] != made(s, at))
      throw Error(at, "is not what the stage left there", "remove the folder to run it again");
  }

  void add_row(const RecipeStage& s, const std::string& at, const json& done) {
    CardRow row{.name = s.name, .kind = name(s.kind), .from = s.from};
    row.outcome = ordered_json(done["outcome"]);
    if (row.outcome.contains("evaluation")) {
      row.evaluation = row.outcome["evaluation"];
      row.outcome.erase("evaluation");
    }
    std::string model = makes_model(s.kind) ? place(s.name, false)
                        : s.from.empty()    ? ""
                                            : place(s.from, false);
    if (!model.empty()) {
      ModelConfig c = config_of_model(model);
      ParameterCount n = count_parameters(c);
      row.active_parameters =
          static_cast<double>(n.active - n.embedding + (c.tie_word_embeddings ? n.embedding : 0));
    }
    // A merged model says what its adapters said.
    if (makes_model(s.kind) && s.kind != StageKind::kMerge)
      row.evaluation = evaluate(at, model, done["made"]);
    if (is_of_recipe_evaluation(s)) row.evaluation = evaluate(at, model, hash_of_model(model));
    rows_.push_back(std::move(row));
  }

  // What the recipe's evaluation asks of a model, kept in the stage's folder.
  ordered_json evaluate(const std::string& at, const std::string& model, const json& hash) const {
    EvaluatedData data;
    json settings = recipe_.evaluation;
    if (json tasks = hash_of_tasks(settings); !tasks.is_null()) settings["tasks"] = tasks;
    for (const auto& [name, source] : recipe_.texts) {
      data.texts.emplace_back(name, held_out(source));
      settings["texts"][name] = hash_of_texts(data.texts.back().second);
    }
    for (const std::string& source : recipe_.examples) {
      data.examples.push_back(source);
      settings["examples"].push_back(hash_of_data(source));
    }
    std::string path = at + "/evaluation.json";
    std::optional<json> known = read_mark(path);
    if (known && known->value("model", json()) == hash &&
        known->value("settings", json()) == settings)
      return ordered_json(known->at("evaluation"));
    f_.device.apply();
    LoadedModel m = open_model(model, f_.device.device, "auto");
    ordered_json e = evaluate_model(m, evaluation_, data);
    write_mark(path, {{"model", hash}, {"settings", settings}, {"evaluation", e}});
    return e;
  }

  // A stage's held-out text, or a path.
  std::string held_out(const std::string& source) const {
    const RecipeStage* s = recipe_.find(source);
    return s ? folder(*s) + "/" + kHeldOutFile : source;
  }

  void write_card() const {
    write_file_atomic(f_.out + "/report_card.json",
                      card_json(recipe_.name, rows_, f_.price_per_hour).dump(2) + "\n");
    write_file_atomic(
        f_.out + "/report_card.md",
        fmt::format("# {}\n\n{}", recipe_.name, card_table(rows_, f_.price_per_hour)));
  }

  const RecipeRunFlags& f_;
  const Recipe& recipe_;
  TaskEvalFlags evaluation_;
  std::set<std::string> may_restart_;
  std::vector<CardRow> rows_;
};

}  // namespace

int run_recipe(const Recipe& recipe, const RecipeRunFlags& flags) {
  return RecipeRun(recipe, flags).run();
}

void RecipeRunFlags::add(CLI::App* sub) {
  sub->add_option("-o,--out", out, "folder of the stages")->capture_default_str();
  sub->add_option("--from", from,
                  "a stage that has changed: it and what depends on it may be run again");
  sub->add_option("--price-per-hour", price_per_hour, "of this machine, for the report card")
      ->check(CLI::NonNegativeNumber);
  ui.add(sub);
  device.add(sub);
}

}  // namespace wels
