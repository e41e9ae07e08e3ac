#include "apps/r1_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "formats/json.h"

namespace wels {
namespace {

using nlohmann::json;

struct KindRow {
  StageKind kind;
  const char* name;
  bool from, data;  // has these fields
};
constexpr KindRow kKinds[] = {{StageKind::kBase, "base", false, false},
                              {StageKind::kRl, "rl", true, false},
                              {StageKind::kSft, "sft", true, true},
                              {StageKind::kSample, "sample", true, false},
                              {StageKind::kExamples, "examples", false, false},
                              {StageKind::kDocuments, "documents", true, true},
                              {StageKind::kReplay, "replay", true, true},
                              {StageKind::kMerge, "merge", true, false},
                              {StageKind::kEval, "eval", true, false}};

const KindRow& row_of(StageKind kind) {
  return *std::find_if(std::begin(kKinds), std::end(kKinds),
                       [&](const KindRow& r) { return r.kind == kind; });
}

// Takes the field out of the object, so that what remains is unknown or a setting.
json take(json& object, const char* key, const std::string& where, bool required) {
  auto it = object.find(key);
  if (it == object.end()) {
    if (required) throw Error(where, fmt::format("has no \"{}\"", key));
    return nullptr;
  }
  json value = std::move(*it);
  object.erase(it);
  return value;
}

[[noreturn]] void wrong_type(const std::string& where, const char* key, const json& value,
                             const char* needed) {
  throw Error(where + "." + key, fmt::format("is {}, not {}", printable(value.dump()), needed));
}

std::string take_text(json& object, const char* key, const std::string& where, bool required) {
  json value = take(object, key, where, required);
  if (value.is_null() && !required) return {};
  if (!value.is_string() || value.get<std::string>().empty())
    wrong_type(where, key, value, "a string");
  return value.get<std::string>();
}

json take_object(json& object, const char* key, const std::string& where) {
  json value = take(object, key, where, true);
  if (!value.is_object()) wrong_type(where, key, value, "an object");
  return value;
}

StageKind kind_of(const std::string& kind, const std::string& where) {
  std::string names;
  for (const KindRow& row : kKinds) {
    if (kind == row.name) return row.kind;
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(where + ".kind", fmt::format("there is no \"{}\"", printable(kind)), "use " + names);
}

void check_name(const Recipe& r, const RecipeStage& s) {
  bool plain = std::all_of(s.name.begin(), s.name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  if (!plain)
    throw Error(s.where, fmt::format("the name \"{}\" names a folder", printable(s.name)),
                "use a-z, 0-9, _ and -");
  if (r.find(s.name)) throw Error(s.where, "the name is taken by an earlier stage");
}

bool makes_nothing(StageKind) { return false; }

// A source is an earlier stage of the right kind, or a path that is there.
void check_source(const Recipe& r, const std::string& source, const std::string& where,
                  bool (*right)(StageKind), const char* needed) {
  if (const RecipeStage* s = r.find(source)) {
    if (!right(s->kind))
      throw Error(where, fmt::format("\"{}\" is a stage of kind {}, which leaves no {}", source,
                                     name(s->kind), needed));
  } else if (!std::filesystem::exists(source)) {
    throw Error(where,
                fmt::format("\"{}\" is neither an earlier stage nor a path", printable(source)));
  }
}

void take_sources(json& j, const Recipe& r, RecipeStage& s) {
  const KindRow& row = row_of(s.kind);
  if (row.from) {
    s.from = take_text(j, "from", s.where, true);
    check_source(r, s.from, s.where + ".from", makes_model, "model");
  }
  json data = row.data ? take(j, "data", s.where, makes_texts(s.kind)) : json();
  if (data.is_null()) return;
  if (!data.is_array() || data.empty())
    wrong_type(s.where, "data", data, "a list of stages or files");
  for (const json& d : data) {
    if (!d.is_string()) wrong_type(s.where, "data", data, "a list of stages or files");
    s.data.push_back(d.get<std::string>());
    check_source(r, s.data.back(), s.where + ".data", makes_data, "data");
  }
}

// "texts" and "examples" of the evaluation, which name stages or paths.
void take_evaluated(Recipe& r) {
  json texts = take(r.evaluation, "texts", r.where, false);
  if (!texts.is_null() && !texts.is_object())
    wrong_type(r.where, "texts", texts, "an object of names and stages or files");
  for (const auto& [name, source] : texts.items()) {
    if (!source.is_string()) wrong_type(r.where, "texts", source, "a stage or file");
    check_source(r, source.get<std::string>(), r.where + ".texts." + name, makes_texts,
                 "held-out text");
    r.texts.emplace_back(name, source.get<std::string>());
  }
  json examples = take(r.evaluation, "examples", r.where, false);
  if (examples.is_null()) return;
  if (!examples.is_array()) wrong_type(r.where, "examples", examples, "a list of files");
  for (const json& source : examples) {
    if (!source.is_string()) wrong_type(r.where, "examples", source, "a file");
    check_source(r, source.get<std::string>(), r.where + ".examples", makes_nothing, "examples");
    r.examples.push_back(source.get<std::string>());
  }
}

RecipeStage take_stage(json j, const Recipe& r, const std::string& file) {
  RecipeStage s;
  s.number = static_cast<int>(r.stages.size()) + 1;
  s.where = fmt::format("{}: stages[{}]", file, s.number - 1);
  if (!j.is_object()) throw Error(s.where, "is not an object");
  s.name = take_text(j, "name", s.where, true);
  s.where += fmt::format(" ({})", printable(s.name));
  check_name(r, s);
  s.kind = kind_of(take_text(j, "kind", s.where, true), s.where);
  take_sources(j, r, s);
  if (!j.contains("seed")) j["seed"] = r.seed * 1000 + static_cast<uint64_t>(s.number);
  s.settings = std::move(j);
  return s;
}

}  // namespace

const char* name(StageKind kind) { return row_of(kind).name; }

std::string RecipeStage::folder() const { return fmt::format("{:02}-{}", number, name); }

const RecipeStage* Recipe::find(const std::string& stage) const {
  for (const RecipeStage& s : stages) {
    if (s.name == stage) return &s;
  }
  return nullptr;
}

Recipe parse_recipe(const std::string& text, const std::string& where) {
  json j = parse_json(text, where);
  if (!j.is_object()) throw Error(where, "is not a JSON object", "see recipes/r1.json");
  Recipe r;
  r.name = take_text(j, "name", where, true);
  json seed = take(j, "seed", where, false);
  if (!seed.is_null()) {
    if (!seed.is_number_unsigned() || seed.get<uint64_t>() > 1'000'000'000)
      wrong_type(where, "seed", seed, "a whole number up to 1000000000");
    r.seed = seed.get<uint64_t>();
  }
  r.where = where + ": evaluation";
  r.evaluation = take_object(j, "evaluation", where);
  if (!r.evaluation.contains("seed")) r.evaluation["seed"] = r.seed;
  json stages = take(j, "stages", where, true);
  if (!stages.is_array() || stages.empty())
    wrong_type(where, "stages", stages, "a list of at least one stage");
  if (!j.empty())
    throw Error(where, fmt::format("there is no field \"{}\"", printable(j.begin().key())),
                "use name, seed, evaluation, stages");
  for (json& s : stages) r.stages.push_back(take_stage(std::move(s), r, where));
  take_evaluated(r);
  return r;
}

std::vector<const RecipeStage*> stages_from(const Recipe& recipe, const RecipeStage& first) {
  std::vector<const RecipeStage*> out;
  std::set<std::string> names;
  for (const RecipeStage& s : recipe.stages) {
    bool depends = s.name == first.name || names.contains(s.from) ||
                   std::any_of(s.data.begin(), s.data.end(),
                               [&](const std::string& d) { return names.contains(d); });
    if (!depends) continue;
    names.insert(s.name);
    out.push_back(&s);
  }
  return out;
}

}  // namespace wels
