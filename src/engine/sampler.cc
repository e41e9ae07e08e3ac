#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace wels {
namespace {

void require(bool ok, const char* name, double value, const char* range) {
  if (!ok)
    throw Error(name, fmt::format("{} is out of range", value), fmt::format("use {}", range));
}

struct Candidate {
  int32_t id;
  double p;  // not normalised
};

// Ties by id, so that the order does not depend on the sort.
bool more(const Candidate& a, const Candidate& b) { return a.p != b.p ? a.p > b.p : a.id < b.id; }

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

void apply_mask(std::span<float> logits, const SamplePlace& place) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  if (!place.mask.empty()) {
    for (size_t i = 0; i < logits.size(); ++i) {
      bool may = i / 64 < place.mask.size() && (place.mask[i / 64] >> (i % 64) & 1) != 0;
      if (!may) logits[i] = kNever;
    }
  }
  for (int32_t id : place.never) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size())
      logits[static_cast<size_t>(id)] = kNever;
  }
}

// The largest logit, ties to the lower id; -1: none is finite.
int32_t largest(std::span<const float> logits) {
  int32_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i]) && (best < 0 || logits[i] > logits[static_cast<size_t>(best)]))
      best = static_cast<int32_t>(i);
  }
  return best;
}

double log_sum_exp(std::span<const float> logits, double most) {
  double sum = 0;
  for (float z : logits) sum += std::isfinite(z) ? std::exp(static_cast<double>(z) - most) : 0.0;
  return most + std::log(sum);
}

// The model's own log-probabilities, as asked for; of the token itself too once it is known.
struct PlainLogits {
  PlainLogits(std::span<const float> logits, int top) {
    if (top < 0) return;
    kept.assign(logits.begin(), logits.end());
    int32_t best = largest(logits);
    if (best >= 0)
      lse = log_sum_exp(logits, static_cast<double>(logits[static_cast<size_t>(best)]));
  }
  double logp(int32_t id) const { return static_cast<double>(kept[static_cast<size_t>(id)]) - lse; }
  void report(SampledToken& token, size_t count) const {
    token.plain_logp = logp(token.id);
    std::vector<int32_t> ids;
    for (size_t i = 0; i < kept.size(); ++i) {
      if (!std::isnan(kept[i])) ids.push_back(static_cast<int32_t>(i));
    }
    count = std::min(count, ids.size());
    auto first = [&](int32_t a, int32_t b) {
      float za = kept[static_cast<size_t>(a)], zb = kept[static_cast<size_t>(b)];
      return za != zb ? za > zb : a < b;
    };
    std::partial_sort(ids.begin(), ids.begin() + static_cast<long>(count), ids.end(), first);
    for (size_t i = 0; i < count; ++i) token.top.emplace_back(ids[i], logp(ids[i]));
  }
  std::vector<float> kept;
  double lse = 0;
};

double total(const std::vector<Candidate>& all) {
  double sum = 0;
  for (const Candidate& c : all) sum += c.p;
  return sum;
}

// Keeps the tokens whose surprise is nearest to the entropy, up to a share of the probability.
void keep_typical(std::vector<Candidate>& all, double share) {
  double sum = total(all), entropy = 0;
  for (const Candidate& c : all) entropy -= c.p / sum * std::log(c.p / sum);
  auto distance = [&](const Candidate& c) { return std::fabs(std::log(c.p / sum) + entropy); };
  std::sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    double da = distance(a), db = distance(b);
    return da != db ? da < db : a.id < b.id;
  });
  double kept = 0;
  size_t n = 0;
  while (n < all.size() && (n == 0 || kept < share * sum)) kept += all[n++].p;
  all.resize(n);
}

void keep_top_p(std::vector<Candidate>& all, double share) {
  std::sort(all.begin(), all.end(), more);
  double sum = total(all), kept = 0;
  size_t n = 0;
  while (n < all.size() && (n == 0 || kept < share * sum)) kept += all[n++].p;
  all.resize(n);
}

// What the filters leave of the tempered softmax.
std::vector<Candidate> candidates(std::span<const float> logits, double most,
                                  const SamplingParams& p) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) {
    double q = std::exp((static_cast<double>(logits[i]) - most) / p.temperature);
    if (q >= p.min_p && q > 0) all.push_back({static_cast<int32_t>(i), q});
  }
  if (p.top_k > 0 && all.size() > static_cast<size_t>(p.top_k)) {
    std::nth_element(all.begin(), all.begin() + p.top_k, all.end(), more);
    all.resize(static_cast<size_t>(p.top_k));
  }
  if (p.typical_p < 1) keep_typical(all, p.typical_p);
  if (p.top_p < 1) keep_top_p(all, p.top_p);
  return all;
}

// The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

const Candidate& race(const std::vector<Candidate>& all, uint64_t seed, uint64_t place) {
  constexpr uint64_t kStep = 0x9e3779b97f4a7c15ull;
  uint64_t stream = mix(mix(seed + kStep) + place * kStep + kStep);
  const Candidate* winner = nullptr;
  double least = std::numeric_limits<double>::infinity();
  for (const Candidate& c : all) {
    uint64_t bits = mix(stream + (static_cast<uint64_t>(c.id) + 1) * kStep);
    double u = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;  // (0, 1)
    if (1 - u >= least * c.p) continue;                            // -log(u) >= 1 - u
    double time = -std::log(u) / c.p;
    if (time < least || !winner) {
      least = time;
      winner = &c;
    }
  }
  return *winner;
}

}  // namespace

void SamplingParams::validate() const {
  require(temperature >= 0 && temperature <= 10, "temperature", temperature, "0 to 10");
  require(top_k >= 0, "top_k", top_k, "0 (off) or more");
  require(top_p > 0 && top_p <= 1, "top_p", top_p, "a number above 0, at most 1");
  require(min_p >= 0 && min_p < 1, "min_p", min_p, "0 up to below 1");
  require(typical_p > 0 && typical_p <= 1, "typical_p", typical_p, "a number above 0, at most 1");
  require(repetition_penalty > 0 && std::isfinite(repetition_penalty), "repetition_penalty",
          repetition_penalty, "a number above 0 (1: off)");
  require(std::isfinite(presence_penalty), "presence_penalty", presence_penalty, "a finite number");
  require(std::isfinite(frequency_penalty), "frequency_penalty", frequency_penalty,
          "a finite number");
}

SampledToken sample(std::span<float> logits, const SamplePlace& place, const SamplingParams& p) {
  if (largest(logits) < 0)
    throw Error("sampling", "no logit is finite", "the model's weights are damaged");
  for (float z : logits) {
    if (std::isnan(z) || z == std::numeric_limits<float>::infinity())
      throw Error("sampling", fmt::format("a logit is {}", z), "the model's weights are damaged");
  }
  PlainLogits plain(logits, p.top_logprobs);
  for (auto [id, bias] : p.logit_bias) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] += bias;
  }
  apply_penalties(logits, place.history, p);
  apply_mask(logits, place);
  int32_t best = largest(logits);
  if (best < 0)
    throw Error("sampling", "mask and bias leave no token", "the grammar has no way on from here");
  double most = static_cast<double>(logits[static_cast<size_t>(best)]);
  SampledToken token;
  if (p.temperature == 0) {
    token.id = best;
    token.logp = most - log_sum_exp(logits, most);
  } else {
    std::vector<Candidate> all = candidates(logits, most, p);
    const Candidate& c = race(all, p.seed, place.history.size());
    token.id = c.id;
    token.logp = std::log(c.p / total(all));
    if (p.tell_kept) {
      for (const Candidate& left : all) token.kept.push_back(left.id);
      std::sort(token.kept.begin(), token.kept.end());
    }
  }
  if (p.top_logprobs >= 0) plain.report(token, static_cast<size_t>(p.top_logprobs));
  return token;
}

SampledToken plain_token(std::span<const float> logits, int32_t id, int top) {
  SampledToken token;
  token.id = id;
  PlainLogits(logits, std::max(top, 0)).report(token, static_cast<size_t>(std::max(top, 0)));
  return token;
}

}  // namespace wels
