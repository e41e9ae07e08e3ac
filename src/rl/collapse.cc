#include "rl/collapse.h"

#include <fmt/format.h>

#include <algorithm>

namespace wels {
namespace {

constexpr size_t kTail = 48, kLongestPeriod = 12;  // tokens
constexpr int64_t kWithoutReward = 20, kDead = 5, kRepeating = 5;
constexpr double kNoEntropy = 0.005;  // nats per token

Error collapse(int64_t step, int64_t lasted, const char* what, const char* hint) {
  return Error("training", fmt::format("step {}: {}, for {} steps", step, what, lasted), hint);
}

constexpr const char* kGentler =
    "begin a new run from there with a lower --lr, or with --beta 0.001";

}  // namespace

bool is_repetitive(std::span<const int32_t> tokens) {
  if (tokens.size() < kTail + kLongestPeriod) return false;
  std::span<const int32_t> tail = tokens.last(kTail);
  for (size_t period = 1; period <= kLongestPeriod; ++period) {
    bool same = true;
    for (size_t i = period; i < tail.size() && same; ++i) same = tail[i] == tail[i - period];
    if (same) return true;
  }
  return false;
}

std::optional<Error> CollapseGuard::observe(const Step& s) {
  bool nothing = s.best_score <= 0;
  if (!nothing || s.checked) {
    without_reward_ = nothing ? without_reward_ + 1 : 0;
    dead_ = nothing && s.entropy < kNoEntropy ? dead_ + 1 : 0;
  }
  repeating_ = s.repetitive > 0.5 ? repeating_ + 1 : 0;
  if (dead_ >= kDead)
    return collapse(s.step, dead_, "every answer is the same and wrong", kGentler);
  if (repeating_ >= kRepeating)
    return collapse(s.step, repeating_, "most answers repeat themselves up to the limit", kGentler);
  if (without_reward_ >= kWithoutReward)
    return collapse(s.step, without_reward_, "no answer was right",
                    "use easier levels, more --samples, or a model that gets some right (wels eval "
                    "--task)");
  return std::nullopt;
}

int64_t CollapseGuard::doubtful_steps() const {
  return std::max({without_reward_, dead_, repeating_});
}

nlohmann::json CollapseGuard::counters() const {
  return {{"without_reward", without_reward_}, {"dead", dead_}, {"repeating", repeating_}};
}

void CollapseGuard::restore(const nlohmann::json& j) {
  without_reward_ = j.at("without_reward").get<int64_t>();
  dead_ = j.at("dead").get<int64_t>();
  repeating_ = j.at("repeating").get<int64_t>();
}

}  // namespace wels
