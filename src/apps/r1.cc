// wels r1: the stages of DeepSeek-R1 (Nature 645:633, fig. 2), or any others, from a recipe. Each
// has a folder, and a mark when it is done, so that the same command goes on where it was stopped:
//
//   DIR/03-cold_data/started.json  the settings, and hashes of what it was made from
//   DIR/03-cold_data/done.json     hash of what it made, and what that took
//   DIR/05-rl/evaluation.json      how good its model is, and by which settings
//   DIR/report_card.json, .md      the table at the end
#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <set>

#include "apps/commands.h"
#include "apps/r1_card.h"
#include "apps/r1_recipe.h"
#include "apps/r1_stages.h"
#include "apps/ui_flags.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/hf_config.h"
#include "formats/json.h"

namespace wels {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

struct R1Flags {
  DeviceFlags device;
  UiFlags ui;
  std::string recipe, out = "r1", from;
  double price_per_hour = 0;
};

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
  return "was run on other data";
}

class R1 {
 public:
  explicit R1(const R1Flags& f) : f_(f), recipe_(parse_recipe(read_file(f.recipe), f.recipe)) {
    evaluation_ = evaluation_flags(recipe_);
    for (const RecipeStage& s : recipe_.stages) check_stage(s);
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
    return folder(*s) + (data ? "/answers" : "");
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
      data_hashes.push_back(hash_of_data(in.data.back()));
    }
    json key = {{"kind", name(s.kind)},
                {"settings", s.settings},
                {"from", in.from_hash},
                {"data", data_hashes}};
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
    if (makes_model(s.kind)) return hash_of_model(at);
    return makes_data(s.kind) ? hash_of_data(at + "/answers") : "";
  }

  void require_whole(const RecipeStage& s, const std::string& at, const json& done) const {
    if (!done.contains("made") || !done.contains("outcome") || done["made"] != made(s, at))
      throw Error(at, "is not what the stage left there", "remove the folder to run it again");
  }

  void add_row(const RecipeStage& s, const std::string& at, const json& done) {
    CardRow row{.name = s.name, .kind = name(s.kind), .from = s.from};
    row.outcome = ordered_json(done["outcome"]);
    if (row.outcome.contains("evaluation")) {
      row.evaluation = row.outcome["evaluation"];
      row.outcome.erase("evaluation");
    }
    std::string model = makes_model(s.kind) ? at : s.from.empty() ? "" : place(s.from, false);
    if (!model.empty()) {
      ModelConfig c = load_hf_config(resolve_checkpoint(model));
      ParameterCount n = count_parameters(c);
      row.active_parameters =
          static_cast<double>(n.active - n.embedding + (c.tie_word_embeddings ? n.embedding : 0));
    }
    if (makes_model(s.kind)) row.evaluation = evaluate(at, done["made"]);
    rows_.push_back(std::move(row));
  }

  // Of the stage's model; kept beside it.
  ordered_json evaluate(const std::string& at, const json& model) const {
    std::string path = at + "/evaluation.json";
    std::optional<json> known = read_mark(path);
    if (known && known->value("model", json()) == model &&
        known->value("settings", json()) == recipe_.evaluation)
      return ordered_json(known->at("evaluation"));
    f_.device.apply();
    LoadedModel m = open_model(at, f_.device.device, "auto");
    ordered_json e = json_of(evaluation_, evaluate_on_tasks(m, evaluation_));
    write_mark(path, {{"model", model}, {"settings", recipe_.evaluation}, {"evaluation", e}});
    return e;
  }

  void write_card() const {
    write_file_atomic(f_.out + "/report_card.json",
                      card_json(recipe_.name, rows_, f_.price_per_hour).dump(2) + "\n");
    write_file_atomic(
        f_.out + "/report_card.md",
        fmt::format("# {}\n\n{}", recipe_.name, card_table(rows_, f_.price_per_hour)));
  }

  R1Flags f_;
  Recipe recipe_;
  TaskEvalFlags evaluation_;
  std::set<std::string> may_restart_;
  std::vector<CardRow> rows_;
};

}  // namespace

void add_r1(CLI::App& app, Command& run) {
  CLI::App* sub =
      app.add_subcommand("r1", "from a base model to a reasoner, by a recipe of stages");
  auto f = std::make_shared<R1Flags>();
  sub->add_option("recipe", f->recipe, "such as recipes/r1.json")->required();
  sub->add_option("-o,--out", f->out, "folder of the stages")->capture_default_str();
  sub->add_option("--from", f->from,
                  "a stage that has changed: it and what depends on it may be run again");
  sub->add_option("--price-per-hour", f->price_per_hour, "of this machine, for the report card")
      ->check(CLI::NonNegativeNumber);
  f->device.add(sub);
  f->ui.add(sub);
  sub->callback([f, &run] { run = [f] { return R1(*f).run(); }; });
}

}  // namespace wels
