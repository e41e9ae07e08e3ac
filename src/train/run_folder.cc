#include "train/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/version.h"
#include "data/hash.h"
#include "formats/json.h"
#include "model/checkpoint.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kStateVersion = 1;
constexpr const char* kRemoved = "removed-";

template <class T>
T field(const json& j, const char* name, const std::string& where) {
  if (!j.is_object() || !j.contains(name))
    throw Error(where, fmt::format("lacks \"{}\"", name), "the checkpoint is damaged");
  try {
    return j.at(name).get<T>();
  } catch (const json::exception&) {
    throw Error(where, fmt::format("\"{}\" has the wrong type", name), "the checkpoint is damaged");
  }
}

// A number of steps, tokens or the like.
int64_t count(const json& j, const char* name, const std::string& where) {
  if (j.contains(name) && !j[name].is_number_integer())
    throw Error(where, fmt::format("\"{}\" has the wrong type", name), "the checkpoint is damaged");
  auto n = field<int64_t>(j, name, where);
  if (n < 0) throw Error(where, fmt::format("\"{}\" is {}", name, n), "the checkpoint is damaged");
  return n;
}

// The step of a folder's name; -1: it is no checkpoint's.
int64_t step_of(const fs::path& folder) {
  std::string name = folder.filename().string();
  if (!name.starts_with("step-") || name.find_first_not_of("0123456789", 5) != std::string::npos)
    return -1;
  int64_t step = -1;
  std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (step < 0 || name != fmt::format("step-{:08}", step)) {
    throw Error(folder.string(), "is called like a checkpoint, but of no step",
                "remove it or give it another name");
  }
  return step;
}

// Of a checkpoint's trainer.json.
json read_settings(const std::string& folder) {
  std::string path = folder + "/trainer.json";
  json j = parse_json(read_file(path), path);
  json settings = field<json>(j, "settings", path);
  int64_t step = count(j, "step", path), of_folder = step_of(folder);
  if (step != of_folder) {
    throw Error(path, fmt::format("\"step\" is {}, its folder's is {}", step, of_folder),
                "the checkpoint is damaged");
  }
  auto require = [&](bool right, const char* name) {
    if (!right)
      throw Error(path, fmt::format("\"{}\" has the wrong type", name),
                  "the checkpoint is damaged");
  };
  require(settings.is_object(), "settings");
  require(settings.value("best_step", json(-1)).is_number_integer(), "best_step");
  require(settings.value("unevaluated", json("")).is_string(), "unevaluated");
  require(settings.value("steps", json(0)).is_number_integer(), "steps");
  require(settings.value("warmup", json(0)).is_number_integer(), "warmup");
  return settings;
}

void require_finite(const TensorEntry& e, const std::string& where) {
  for (size_t at = 0; at + sizeof(float) <= e.data.size(); at += sizeof(float)) {
    float x;
    std::memcpy(&x, e.data.data() + at, sizeof x);
    if (!std::isfinite(x))
      throw Error(where, fmt::format("tensor {}: value {} is not finite", e.name, at / sizeof x),
                  "the checkpoint is damaged");
  }
}

}  // namespace

std::string checkpoint_folder(const std::string& run, int64_t step) {
  return fmt::format("{}/checkpoints/step-{:08}", run, step);
}

std::vector<int64_t> list_checkpoints(const std::string& run) {
  std::vector<int64_t> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints", ec)) {
    if (int64_t step = step_of(entry.path()); step >= 0) out.push_back(step);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::string best_checkpoint(const std::string& run) {
  std::vector<int64_t> steps = list_checkpoints(run);
  if (steps.empty()) return "";
  std::string newest = checkpoint_folder(run, steps.back());
  auto best = read_settings(newest).value("best_step", int64_t{-1});
  return std::find(steps.begin(), steps.end(), best) == steps.end() ? newest
                                                                    : checkpoint_folder(run, best);
}

namespace {

void write_checkpoint(const std::string& tmp, const CheckpointParts& parts,
                      const StateTensors& tensors, const TrainerState& s) {
  make_folder(tmp);
  parts.save_model(tmp);
  for (auto& [name, content] : parts.files) write_file_atomic(tmp + "/" + name, content);
  std::vector<TensorSource> sources;
  for (auto& [name, tensor] : tensors) {
    Tensor t = tensor;
    sources.push_back({name, t.dtype, {t.rows, t.cols}, [t](const ByteSink& sink) {
                         sink(t.data, static_cast<size_t>(t.bytes()));
                       }});
  }
  write_safetensors(tmp + "/trainer.safetensors", sources);
  json j = {{"version", kStateVersion},
            {"step", s.step},
            {"optimizer_steps", s.optimizer_steps},
            {"ema_updates", s.ema_updates},
            {"sequences", s.sequences},
            {"tokens", s.tokens},
            {"elapsed_s", s.elapsed_s},
            {"best_validation", s.best_validation},
            {"skipped_in_a_row", s.skipped_in_a_row},
            {"settings", json::parse(s.settings)},
            {"wels", version()},
            {"git", git_version()}};
  write_file_atomic(tmp + "/trainer.json", j.dump(2));
  sync_folder(tmp);
}

}  // namespace

CheckpointParts whole_model(Model& model, std::map<std::string, std::string> files) {
  std::map<std::string, std::string> metadata = {
      {"format", "pt"}, {"wels", version()}, {"git", git_version()}};
  if (auto it = files.find("tokenizer.json"); it != files.end())
    metadata["tokenizer"] = fmt::format("{:016x}", hash_bytes(it->second));
  auto save = [&model, metadata](const std::string& folder) {
    save_model(folder, model, DType::kF32, metadata);
  };
  auto load = [&model](const std::string& folder) {
    load_weights(model, std::make_shared<SafetensorsReader>(folder), WeightStorage::kCopyF32);
  };
  return {save, load, std::move(files)};
}

void save_checkpoint(const std::string& run, const CheckpointParts& parts,
                     const StateTensors& tensors, const TrainerState& s) {
  std::string final_name = checkpoint_folder(run, s.step), tmp = run + "/checkpoints/tmp";
  std::error_code ec;
  fs::remove_all(tmp, ec);
  try {
    write_checkpoint(tmp, parts, tensors, s);
  } catch (const Error&) {
    fs::remove_all(tmp, ec);  // on a full disk its part would be in the way
    throw;
  }
  replace_folder(tmp, final_name);
  sync_folder(run + "/checkpoints");
}

TrainerState load_checkpoint(const std::string& folder, const CheckpointParts& parts,
                             const StateTensors& tensors) {
  std::string path = folder + "/trainer.json";
  json j = parse_json(read_file(path), path);
  if (field<int>(j, "version", path) != kStateVersion) {
    throw Error(path,
                fmt::format("is of version {}, this program reads {}",
                            field<int>(j, "version", path), kStateVersion),
                "use the wels that wrote it");
  }
  TrainerState s;
  s.step = count(j, "step", path);
  s.optimizer_steps = count(j, "optimizer_steps", path);
  s.ema_updates = count(j, "ema_updates", path);
  s.sequences = count(j, "sequences", path);
  s.tokens = count(j, "tokens", path);
  s.elapsed_s = field<double>(j, "elapsed_s", path);
  if (!j.contains("best_validation") || !j["best_validation"].is_null())  // as NaN was written once
    s.best_validation = field<double>(j, "best_validation", path);
  s.skipped_in_a_row = count(j, "skipped_in_a_row", path);
  s.settings = field<json>(j, "settings", path).dump();
  // Moments first: nothing of the model is touched if they are damaged.
  SafetensorsReader moments(folder + "/trainer.safetensors");

  for (auto& [name, t] : tensors) {
    const TensorEntry& e = moments.at(name);
    if (t.dtype == DType::kF32) require_finite(e, moments.path());
    if (e.dtype != t.dtype || e.shape != std::vector<int64_t>{t.rows, t.cols}) {
      throw Error(moments.path(), "tensor " + name + " has another shape or type than this run",
                  "resume with the same settings");
    }
  }
  parts.load_model(folder);
  for (auto& [name, t] : tensors)
    std::memcpy(t.data, moments.at(name).data.data(), static_cast<size_t>(t.bytes()));

  return s;
}

std::optional<RunStart> find_run_start(const std::string& run) {
  std::vector<int64_t> steps = list_checkpoints(run);
  if (steps.empty()) return std::nullopt;
  RunStart start;
  start.folder = checkpoint_folder(run, steps.back());
  try {
    json settings = read_settings(start.folder);
    if (settings.contains("source")) {
      std::string hex = field<std::string>(settings, "source", start.folder + "/trainer.json");
      std::from_chars(hex.data(), hex.data() + hex.size(), start.source_hash, 16);
    }
    start.settings = settings.dump();
    start.tokenizer_json = read_file(start.folder + "/tokenizer.json");
  } catch (const Error& e) {
    throw_damaged_checkpoint(run, e);
  }
  return start;
}

void throw_damaged_checkpoint(const std::string& run, const Error& e) {
  std::vector<int64_t> steps = list_checkpoints(run);
  CHECK(!steps.empty());
  throw Error(e.where(), e.fact(),
              fmt::format("remove {} to continue from {}", checkpoint_folder(run, steps.back()),
                          steps.size() > 1 ? checkpoint_folder(run, steps[steps.size() - 2])
                                           : std::string("the start")));
}

void set_aside_checkpoints(const std::string& run, int64_t last_good_step) {
  for (int64_t step : list_checkpoints(run)) {
    if (step <= last_good_step) continue;
    std::string aside = fmt::format("{}/checkpoints/collapsed-{:08}", run, step);
    std::error_code ec;
    fs::remove_all(aside, ec);
    fs::rename(checkpoint_folder(run, step), aside, ec);
    if (ec) throw Error(aside, "cannot rename a checkpoint to this: " + ec.message());
  }
}

void prune_checkpoints(const std::string& run, int64_t keep, const std::set<int64_t>& spared) {
  std::vector<int64_t> steps = list_checkpoints(run);
  for (size_t i = 0; i + static_cast<size_t>(std::max<int64_t>(keep, 1)) < steps.size(); ++i) {
    if (spared.count(steps[i]) > 0) continue;
    std::error_code ec;
    fs::rename(checkpoint_folder(run, steps[i]),
               fmt::format("{}/checkpoints/{}{:08}", run, kRemoved, steps[i]), ec);
  }
  remove_leftovers(run);
}

void remove_leftovers(const std::string& run) {
  std::vector<fs::path> found;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints", ec)) {
    if (entry.path().filename().string().starts_with(kRemoved)) found.push_back(entry.path());
  }
  for (const fs::path& path : found) fs::remove_all(path, ec);
}

}  // namespace wels
