#include "rl/voting.h"

#include <map>
#include <numeric>

#include "base/check.h"

namespace wels {
namespace {

double mean_logp(const Rollout& r) {
  double n = static_cast<double>(r.logp.size());
  return n > 0 ? std::accumulate(r.logp.begin(), r.logp.end(), 0.0) / n : 0;
}

}  // namespace

size_t majority_answer(std::span<const Rollout> answers) {
  CHECK(answers.size() > size_t{0});
  std::map<std::string, std::pair<int64_t, size_t>> votes;  // answer → how many, the first
  size_t best = 0;
  int64_t most = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    std::string said = final_answer(answers[i].parts.answer);
    if (!answers[i].ended || said.empty()) continue;
    auto [it, first] = votes.try_emplace(said, 0, i);
    ++it->second.first;
  }
  for (const auto& [said, vote] : votes) {
    auto [count, first] = vote;
    if (count > most || (count == most && first < best)) {
      most = count;
      best = first;
    }
  }
  return best;
}

size_t likeliest_answer(std::span<const Rollout> answers) {
  CHECK(answers.size() > size_t{0});
  size_t best = 0;
  for (size_t i = 1; i < answers.size(); ++i) {
    const Rollout &a = answers[i], &b = answers[best];
    if (a.ended != b.ended ? a.ended : mean_logp(a) > mean_logp(b)) best = i;
  }
  return best;
}

}  // namespace wels
