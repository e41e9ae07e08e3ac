#include "rl/reward.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/rng.h"
#include "base/threads.h"

namespace wels {
namespace {

// Of answer number `sample` to the question: the same in a resumed run.
bool coin(const TaskExample& example, uint64_t sample) {
  return Rng(hash_name(example.question), sample).uniform() < 0.5;
}

constexpr double kNoWords = std::numeric_limits<double>::quiet_NaN();

Reward score_one(const TaskMixture::Item& item, uint64_t sample, const Rollout& r,
                 int64_t max_tokens, const RewardSettings& s) {
  Reward out;
  if (r.ended) out.score = item.task->score(item.example, r.parts.answer);
  out.formed = r.ended && r.parts.well_formed;
  if (s.language != 0)
    out.language = language_consistency(r.parts.thought, s.target_language).value_or(kNoWords);
  out.penalty =
      overlong_penalty(static_cast<int64_t>(r.tokens.size()), max_tokens, s.overlong_zone);
  out.total = s.accuracy * out.score + s.format * (out.formed ? 1.0 : 0.0) + out.penalty;
  if (s.chance != 0 && coin(item.example, sample)) out.total += s.chance;
  return out;
}

void add_language(std::span<Reward> siblings, double weight) {
  double sum = 0, n = 0, least = 1, most = 0;
  for (const Reward& r : siblings) {
    if (std::isnan(r.language)) continue;
    sum += r.language;
    ++n;
    least = std::min(least, r.language);
    most = std::max(most, r.language);
  }
  // Rounding must not take the mean beyond them: of equal shares a group would have variance.
  double mean = n > 0 ? std::clamp(sum / n, least, most) : 0;
  for (Reward& r : siblings) {
    if (std::isnan(r.language)) r.language = mean;
    r.total += weight * r.language;
  }
}

}  // namespace

double overlong_penalty(int64_t tokens, int64_t limit, int64_t zone) {
  if (zone <= 0 || tokens <= limit - zone) return 0;
  return std::max(-1.0, static_cast<double>(limit - zone - tokens) / static_cast<double>(zone));
}

std::vector<Reward> score_rollouts(std::span<const TaskMixture::Item> items,
                                   std::span<const Rollout> rollouts, int64_t max_tokens,
                                   const RewardSettings& settings) {
  std::vector<Reward> out(rollouts.size());
  if (items.empty()) return out;
  CHECK(rollouts.size() % items.size() == size_t{0});
  size_t samples = rollouts.size() / items.size();
  parallel_tasks(static_cast<int64_t>(rollouts.size()), [&](int64_t i) {
    size_t at = static_cast<size_t>(i);
    out[at] = score_one(items[at / samples], at % samples, rollouts[at], max_tokens, settings);
  });
  for (size_t i = 0; i < items.size() && settings.language != 0; ++i)
    add_language(std::span(out).subspan(i * samples, samples), settings.language);
  return out;
}

}  // namespace wels
