#include "apps/recipe_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "apps/r1_card.h"
#include "apps/r1_stages.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/signal.h"
#include "formats/json.h"
#include "tasks/task.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

// Marks are written whole or not at all: one that cannot be read is not ours.
std::optional<json> read_mark(const std::string& path, const char* hint) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    json j = parse_json(read_file(path), path);
    if (j.is_object()) return j;
  } catch (const Error& e) {
    throw Error(path, e.fact(), hint);
  }
  throw Error(path, "is not an object", hint);
}

constexpr const char* kRunAgain = "remove the stage's folder to run it again";

// The mark of a stage that has begun.
std::optional<json> read_started(const std::string& path) {
  std::optional<json> j = read_mark(path, kRunAgain);
  auto is = [&](const char* key, bool (json::*type)() const noexcept, bool required) {
    if (!j->contains(key) ? required : !((*j)[key].*type)())
      throw Error(path, fmt::format("\"{}\" is not what a stage writes there", key), kRunAgain);
  };
  if (!j) return j;
  is("kind", &json::is_string, true);
  is("settings", &json::is_object, true);
  is("from", &json::is_string, true);
  is("data", &json::is_array, true);
  is("files", &json::is_object, false);
  return j;
}

// What goes wrong in fn is said with its place in the recipe.
template <class Fn>
auto with_place(const std::string& where, Fn&& fn) {
  try {
    return fn();
  } catch (const Interrupted&) {
    throw;
  } catch (const Error& e) {
    if (e.where().starts_with(where)) throw;
    throw Error(where + ": " + e.where(), e.fact(), e.hint());
  }
}

// Whether a row can be shown: what its marks say has the types that the card needs.
bool can_show(const CardRow& row) {
  try {
    card_json("", {row}, 0);
    card_table({row}, 0);
    return true;
  } catch (const json::exception&) {
    return false;
  }
}

// Whether the stage has left something in its folder that running it again would lose.
bool has_work(const std::string& at) {
  if (fs::exists(at + "/done.json")) return true;
  for (const char* part : {"/checkpoints", "/answers", "/blocks", "/model"}) {
    std::error_code ec;
    for (const auto& entry : fs::recursive_directory_iterator(at + part, ec)) {
      if (entry.is_regular_file() && entry.path().filename() != "settings.json") return true;
    }
  }
  return false;
}

// "01-base": a number and a name.
bool is_stage_folder(const fs::path& path) {
  std::string name = path.filename().string();
  size_t digits = name.find_first_not_of("0123456789");
  return digits != std::string::npos && digits >= 2 && name[digits] == '-' &&
         name.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz_-") == std::string::npos &&
         fs::exists(path / "started.json");
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
  const json old_files = then.value("files", json::object()),
             files = now.value("files", json::object());
  for (const auto& [setting, hash] : files.items()) {
    if (old_files.value(setting, json()) != hash)
      return fmt::format("was run with another content of its {}, {}", setting,
                         printable(settings[setting].get<std::string>()));
  }
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
    require_no_others();
    std::unique_ptr<RunsUi> ui = f_.ui.start(f_.out);
    StopSignal stop;  // a stage's own forgets at its end
    try {
      for (const RecipeStage& s : recipe_.stages) {
        if (stop.requested() || !run_stage(s)) return stopped();
        write_card();
      }
    } catch (const Interrupted&) {  // an evaluation
      return stopped();
    }
    fmt::print("\n{}\n{}\nreport card {}/report_card.md\n", recipe_.name,
               card_table(rows_, f_.price_per_hour), f_.out);
    return 0;
  }

 private:
  static int stopped() {
    fmt::print("stopped; the same command goes on\n");
    return 130;
  }

  // Stages are found by their number and name: of another recipe's, or this one's before a stage
  // was put in or taken out, nothing would be used, and it would lie there for ever.
  void require_no_others() const {
    std::vector<std::string> others;
    for (const auto& entry : fs::directory_iterator(f_.out)) {
      std::string name = entry.path().filename().string();
      bool ours = std::any_of(recipe_.stages.begin(), recipe_.stages.end(),
                              [&](const RecipeStage& s) { return s.folder() == name; });
      if (!ours && is_stage_folder(entry.path())) others.push_back(name);
    }
    if (others.empty()) return;
    std::sort(others.begin(), others.end());
    throw Error(
        f_.out,
        fmt::format("holds stages that this recipe does not have: {}", fmt::join(others, ", ")),
        "give another --out, or remove their folders to run this recipe here");
  }

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
    if (json files = hash_of_files(s); !files.empty()) key["files"] = files;
    start(s, at, key);
    std::optional<json> done = read_mark(at + "/done.json", kRunAgain);
    if (done) {
      log_info("{}: done, kept", s.folder());
    } else {
      log_info("{}: {}{}", s.folder(), name(s.kind), s.from.empty() ? "" : " from " + s.from);
      StageOutcome o = with_place(s.where, [&] { return run_recipe_stage(s, in, at, f_.device); });
      if (o.stopped) return false;
      ordered_json mark = {{"made", made(s, at)}, {"outcome", o.json()}};
      write_mark(at + "/done.json", mark);
      done = json(mark);
    }
    require_whole(s, at, *done);
    add_row(s, at, *done);
    return true;
  }

  // The folder, for a stage with this key; what another left there is refused, or goes. A stage
  // that came to nothing may have any other settings.
  void start(const RecipeStage& s, const std::string& at, const json& key) {
    std::optional<json> then = read_started(at + "/started.json");
    // Older runs don't say which questions and files there were.
    for (const char* hashes : {"tasks", "files"}) {
      if (then && !then->contains(hashes) && key.contains(hashes)) (*then)[hashes] = key[hashes];
    }
    if (then && *then != key) {
      if (has_work(at) && !may_restart_.contains(s.name)) {
        throw Error(at, difference(*then, key),
                    fmt::format("--from {} runs it again, and what depends on it; or take another "
                                "--out",
                                s.name));
      }
      log_info("{}: {}; run again", s.folder(), difference(*then, key));
      fs::remove_all(at);
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
        done["made"] != made(s, at) || !can_show(row_of(s, done)))
      throw Error(at, "is not what the stage left there", "remove the folder to run it again");
  }

  static CardRow row_of(const RecipeStage& s, const json& done) {
    CardRow row{.name = s.name, .kind = name(s.kind), .from = s.from};
    row.outcome = ordered_json(done["outcome"]);
    if (row.outcome.contains("evaluation")) {
      row.evaluation = row.outcome["evaluation"];
      row.outcome.erase("evaluation");
    }
    return row;
  }

  void add_row(const RecipeStage& s, const std::string& at, const json& done) {
    CardRow row = row_of(s, done);
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
    std::optional<json> known = read_evaluation(path);
    if (known && (*known)["model"] == hash && (*known)["settings"] == settings)
      return ordered_json((*known)["evaluation"]);
    f_.device.apply();
    LoadedModel m = open_model(model, f_.device.device, "auto");
    ordered_json e =
        with_place(recipe_.where, [&] { return evaluate_model(m, evaluation_, data); });
    write_mark(path, {{"model", hash}, {"settings", settings}, {"evaluation", e}});
    return e;
  }

  // What is known of a model already; a file that cannot be read is made again.
  static std::optional<json> read_evaluation(const std::string& path) {
    std::optional<json> j;
    try {
      j = read_mark(path, "");
    } catch (const Error& e) {
      log_warn("{}; the model is evaluated again", e.what());
      return std::nullopt;
    }
    if (!j) return j;
    CardRow row;
    row.outcome = ordered_json::object();
    row.evaluation = ordered_json(j->value("evaluation", json()));
    if (row.evaluation.is_object() && can_show(row)) return j;
    log_warn("{}: holds no evaluation; the model is evaluated again", path);
    return std::nullopt;
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
