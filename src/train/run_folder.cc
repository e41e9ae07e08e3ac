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
    std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && name.find_first_not_of("0123456789", 5) == std::string::npos) {
      out.push_back(std::stoll(name.substr(5)));
    }
  }
  std::sort(out.begin(), out.end());
  return out;
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
  fs::remove_all(final_name, ec);
  fs::rename(tmp, final_name, ec);
  if (ec) throw Error(final_name, "cannot rename the new checkpoint here: " + ec.message());
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
  s.step = field<int64_t>(j, "step", path);
  s.optimizer_steps = field<int64_t>(j, "optimizer_steps", path);
  s.ema_updates = field<int64_t>(j, "ema_updates", path);
  s.sequences = field<int64_t>(j, "sequences", path);
  s.tokens = field<int64_t>(j, "tokens", path);
  s.elapsed_s = field<double>(j, "elapsed_s", path);
  if (!j.contains("best_validation") || !j["best_validation"].is_null())  // as NaN was written once
    s.best_validation = field<double>(j, "best_validation", path);
  s.skipped_in_a_row = field<int64_t>(j, "skipped_in_a_row", path);
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
    std::string path = start.folder + "/trainer.json";
    json settings = field<json>(parse_json(read_file(path), path), "settings", path);
    if (settings.contains("source")) {
      std::string hex = field<std::string>(settings, "source", path);
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
    fs::remove_all(checkpoint_folder(run, steps[i]), ec);
  }
}

}  // namespace wels
