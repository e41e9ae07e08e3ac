#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"

namespace wels {
namespace {

void require(bool ok, const char* name, double value, const char* range) {
  if (!ok)
    throw Error(name, fmt::format("{} is out of range", value), fmt::format("use {}", range));
}

void apply_penalties(std::span<float> logits, std::span<const int32_t> history,
                     const SamplingParams& p) {
  if (p.repetition_penalty == 1 && p.presence_penalty == 0 && p.frequency_penalty == 0) return;
  size_t window =
      std::min(history.size(), static_cast<size_t>(std::max<int64_t>(p.penalty_window, 0)));
  std::map<int32_t, int> seen;
  for (int32_t id : history.last(window)) ++seen[id];
  for (auto [id, count] : seen) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) continue;
    float& z = logits[static_cast<size_t>(id)];
    float penalty = static_cast<float>(p.repetition_penalty);
    z = z > 0 ? z / penalty : z * penalty;
    z -= static_cast<float>(p.presence_penalty + p.frequency_penalty * count);
  }
}

SampledToken greedy(std::span<const float> logits) {
  size_t best = logits.size();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i]) && (best == logits.size() || logits[i] > logits[best])) best = i;
  }
  if (best == logits.size())
    throw Error("sampling", "no logit is finite", "the model's weights are damaged");
  double sum = 0;
  for (float z : logits)
    sum += std::isfinite(z) ? std::exp(static_cast<double>(z) - static_cast<double>(logits[best]))
                            : 0.0;
  return {static_cast<int32_t>(best), -std::log(sum)};
}

}  // namespace

void SamplingParams::validate() const {
  require(temperature >= 0 && temperature <= 10, "temperature", temperature, "0 to 10");
  require(top_k >= 0, "top_k", top_k, "0 (off) or more");
  require(top_p > 0 && top_p <= 1, "top_p", top_p, "a number above 0, at most 1");
  require(min_p >= 0 && min_p < 1, "min_p", min_p, "0 up to below 1");
  require(repetition_penalty > 0, "repetition_penalty", repetition_penalty,
          "a number above 0 (1: off)");
  require(std::isfinite(presence_penalty) && std::isfinite(frequency_penalty), "presence_penalty",
          presence_penalty, "finite numbers");
}

SampledToken sample(std::span<float> logits, std::span<const int32_t> history,
                    const SamplingParams& p, Rng& rng) {
  for (auto [id, bias] : p.logit_bias) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] += bias;
  }
  apply_penalties(logits, history, p);
  if (p.temperature == 0) return greedy(logits);

  SampledToken top = greedy(logits);
  double largest = static_cast<double>(logits[static_cast<size_t>(top.id)]);
  struct Candidate {
    int32_t id;
    double p;
  };
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) continue;
    double q = std::exp((static_cast<double>(logits[i]) - largest) / p.temperature);
    if (q >= p.min_p && q > 0) all.push_back({static_cast<int32_t>(i), q});
  }
  // Ties by id, so that the order, and with it the draw, does not depend on the sort.
  auto more = [](const Candidate& a, const Candidate& b) {
    return a.p != b.p ? a.p > b.p : a.id < b.id;
  };
  if (p.top_k > 0 && all.size() > static_cast<size_t>(p.top_k)) {
    std::nth_element(all.begin(), all.begin() + p.top_k, all.end(), more);
    all.resize(static_cast<size_t>(p.top_k));
  }
  double sum = 0;
  if (p.top_p < 1) {
    std::sort(all.begin(), all.end(), more);
    double total = 0;
    for (const Candidate& c : all) total += c.p;
    size_t keep = 0;
    while (keep < all.size() && (keep == 0 || sum < p.top_p * total)) sum += all[keep++].p;
    all.resize(keep);
  } else {
    for (const Candidate& c : all) sum += c.p;
  }
  double draw = rng.uniform() * sum;
  for (const Candidate& c : all) {
    draw -= c.p;
    if (draw < 0) return {c.id, std::log(c.p / sum)};
  }
  return {all.back().id, std::log(all.back().p / sum)};
}

}  // namespace wels
