#include "engine/think_budget.h"

#include <algorithm>

#include "base/check.h"

namespace wels {

ThinkGuide::ThinkGuide(ThinkBudget budget, bool begun, int64_t vocab_size)
    : budget_(std::move(budget)),
      begun_(begun),
      mask_(static_cast<size_t>((vocab_size + 63) / 64), 0) {
  CHECK(budget_.end_id >= 0 && budget_.end_id < vocab_size);
  CHECK(budget_.least <= 0 || !budget_.again.empty());
}

std::optional<int64_t> ThinkGuide::thought(std::span<const int32_t> answer) {
  for (; followed_ < answer.size() && !over_; ++followed_)
    over_ = answer[followed_] == budget_.end_id;
  if (over_) return std::nullopt;
  auto length = static_cast<int64_t>(answer.size());
  if (begun_) return length;
  if (length == 0 || answer[0] != budget_.begin_id) return std::nullopt;
  return length - 1;
}

std::span<const uint64_t> ThinkGuide::only(int32_t id) {
  std::fill(mask_.begin(), mask_.end(), 0);
  mask_[static_cast<size_t>(id) / 64] = uint64_t{1} << (id % 64);
  return mask_;
}

std::span<const uint64_t> ThinkGuide::mask(std::span<const int32_t> answer) {
  std::optional<int64_t> length = thought(answer);
  if (!length) return {};
  if (budget_.most && *length >= *budget_.most) return only(budget_.end_id);
  if (left_to_say_ > 0) return only(budget_.again[budget_.again.size() - left_to_say_--]);
  return {};
}

int32_t ThinkGuide::replace(int32_t drawn, std::span<const int32_t> answer) {
  std::optional<int64_t> length = thought(answer);
  const auto& stops = budget_.stop_ids;
  bool ends =
      drawn == budget_.end_id || std::find(stops.begin(), stops.end(), drawn) != stops.end();
  bool early = length && ends && *length < budget_.least;
  if (!early || (budget_.most && *length >= *budget_.most)) return drawn;
  left_to_say_ = budget_.again.size() - 1;
  return budget_.again[0];
}

void bound_thought(GenerateRequest& request, const ThinkBudget& budget, bool begun,
                   int64_t vocab_size) {
  if (!budget.bounds()) return;
  ThinkBudget own = budget;
  own.stop_ids.insert(own.stop_ids.end(), request.stop_ids.begin(), request.stop_ids.end());
  auto guide = std::make_shared<ThinkGuide>(std::move(own), begun, vocab_size);
  request.mask = [guide, behind = std::move(request.mask)](std::span<const int32_t> answer) {
    std::span<const uint64_t> mask = guide->mask(answer);
    return mask.empty() && behind ? behind(answer) : mask;
  };
  request.replace = [guide](int32_t drawn, std::span<const int32_t> answer) {
    return guide->replace(drawn, answer);
  };
}

}  // namespace wels
