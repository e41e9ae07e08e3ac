#include "backend/cpu/expert_packs.h"

#include <algorithm>

namespace wels {
namespace {

constexpr float kKeep = 255.0f / 256;  // of a count, from one call to the next
// A newcomer takes the place of one that is used clearly less, so that equals do not take turns.
constexpr float kClearly = 1.25f;

std::shared_ptr<void> own_memory(int64_t bytes) {
  return {allocate_host(bytes), [bytes](void* p) { free_host(p, bytes); }};
}

}  // namespace

ExpertUse::~ExpertUse() {
  for (const auto& slots : used_) {
    for (int32_t e : slots->passing) slots->pack[static_cast<size_t>(e)].reset();
    slots->passing.clear();
  }
}

// The resident expert that is used least and has no rows now; -1: none.
int32_t ExpertUse::coldest(const ExpertSlots& s) const {
  int32_t best = -1;
  for (size_t e = 0; e < s.pack.size(); ++e) {
    if (!s.pack[e] || offsets_[e + 1] > offsets_[e]) continue;
    if (best < 0 || s.uses[e] < s.uses[static_cast<size_t>(best)]) best = static_cast<int32_t>(e);
  }
  return best;
}

std::vector<int32_t> ExpertUse::take(const std::shared_ptr<ExpertSlots>& slots, int64_t bytes) {
  ExpertSlots& s = *slots;
  CHECK(offsets_.size() == s.pack.size() + 1);
  int64_t most =
      std::max<int64_t>(1, static_cast<int64_t>(share_ * static_cast<double>(s.pack.size())));
  std::vector<int32_t> missing;
  for (size_t e = 0; e < s.pack.size(); ++e) {
    bool wanted = offsets_[e + 1] > offsets_[e];
    s.uses[e] = s.uses[e] * kKeep + (wanted ? 1.0f : 0.0f);
    counts_.uses += wanted;
    if (wanted && !s.pack[e]) missing.push_back(static_cast<int32_t>(e));
    if (wanted && s.pack[e]) ++counts_.found;
  }
  // The most used first: what is left over passes.
  std::stable_sort(missing.begin(), missing.end(), [&](int32_t a, int32_t b) {
    return s.uses[static_cast<size_t>(a)] > s.uses[static_cast<size_t>(b)];
  });
  for (int32_t e : missing) {
    std::shared_ptr<void>& mine = s.pack[static_cast<size_t>(e)];
    if (s.resident < most) {
      mine = own_memory(bytes);
      ++s.resident;
      continue;
    }
    int32_t cold = coldest(s);
    if (cold >= 0 &&
        s.uses[static_cast<size_t>(e)] > kClearly * s.uses[static_cast<size_t>(cold)]) {
      mine = std::move(s.pack[static_cast<size_t>(cold)]);
    } else {
      mine = pool_.take(bytes);
      s.passing.push_back(e);
    }
  }
  used_.push_back(slots);
  return missing;
}

}  // namespace wels
