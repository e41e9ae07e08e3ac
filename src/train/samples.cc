#include "train/samples.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "text/unicode.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;

std::string cut(const std::string& text) {
  if (text.size() <= SampleWriter::kLongest) return utf8_lossy(text);
  std::string_view part = std::string_view(text).substr(0, SampleWriter::kLongest);
  return utf8_lossy(part.substr(0, utf8_complete_prefix(part))) + " …";
}

}  // namespace

SampleWriter::SampleWriter(std::string path, int64_t keep_steps) : path_(std::move(path)) {
  if (!std::filesystem::exists(path_)) return;
  std::string old = keep_steps < 0 ? "" : read_file(path_);
  for (size_t at = 0, end; (end = old.find('\n', at)) != std::string::npos; at = end + 1) {
    std::string line = old.substr(at, end - at);
    Json j = Json::parse(line, nullptr, false);
    bool kept = j.is_object() && j.contains("step") && j["step"].is_number_integer() &&
                j["step"].get<int64_t>() <= keep_steps;
    if (kept) lines_.push_back(line + '\n');
  }
  rewrite();
}

void SampleWriter::rewrite() {
  std::string text;
  for (const std::string& line : lines_) text += line;
  write_file_atomic(path_, text);
}

void SampleWriter::write(int64_t step, const std::vector<StageSample>& samples) {
  if (samples.empty()) return;
  for (const StageSample& s : samples) {
    Json j{{"step", step}, {"task", s.task}, {"prompt", cut(s.prompt)}, {"text", cut(s.text)}};
    j["reward"] = std::isfinite(s.reward) ? Json(s.reward) : Json();
    lines_.push_back(j.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
  }
  if (static_cast<int64_t>(lines_.size()) > kKept)
    lines_.erase(lines_.begin(), lines_.end() - kKept);
  rewrite();
}

}  // namespace wels
