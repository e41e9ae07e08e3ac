#include "rl/curriculum.h"

#include <algorithm>
#include <cmath>

namespace wels {
namespace {

constexpr int kMostRungs = 8;
constexpr double kClimbAt = 0.8, kNewWeight = 0.2;

}  // namespace

std::string narrowed_spec(const TaskMixture& tasks, int rung, int rungs) {
  std::string out;
  for (const TaskMixture::Part& part : tasks.parts()) {
    std::string text = part.text, share;
    if (part.to > part.from) {  // a generator, so without a command's quotes
      if (size_t star = text.rfind('*'); star != std::string::npos) {
        share = text.substr(star);
        text.resize(star);
      }
      text.resize(text.rfind(':'));
      double top =
          part.from + static_cast<double>((part.to - part.from) * rung) / std::max(rungs - 1, 1);
      text += ":" + std::to_string(part.from) + "-" +
              std::to_string(static_cast<int>(std::lround(top))) + share;
    }
    out += (out.empty() ? "" : ",") + text;
  }
  return out;
}

Curriculum::Curriculum(std::string spec, bool climbs) : all_(spec) {
  int most = 0;
  for (const TaskMixture::Part& part : all_.parts()) most = std::max(most, part.to - part.from);
  if (climbs) rungs_ = std::min(most + 1, kMostRungs);
  set_rung(0);
}

void Curriculum::set_rung(int rung) {
  rung_ = rung;
  average_ = 0;
  now_ =
      std::make_unique<TaskMixture>(rungs_ > 1 ? narrowed_spec(all_, rung, rungs_) : all_.spec());
}

void Curriculum::observe(double accuracy) {
  average_ += kNewWeight * (accuracy - average_);
  if (average_ >= kClimbAt && rung_ + 1 < rungs_) set_rung(rung_ + 1);
}

nlohmann::json Curriculum::counters() const { return {{"rung", rung_}, {"average", average_}}; }

void Curriculum::restore(const nlohmann::json& j) {
  // The tasks that are there stay: behind a signal no checker can be made anew.
  int rung = std::clamp(j.at("rung").get<int>(), 0, rungs_ - 1);
  if (rung != rung_) set_rung(rung);
  average_ = j.at("average").get<double>();
}

}  // namespace wels
