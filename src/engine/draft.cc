#include "engine/draft.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace wels {
namespace {

uint64_t hash_tokens(std::span<const int32_t> tokens) {
  uint64_t h = 0;
  for (int32_t t : tokens) h = (h ^ static_cast<uint32_t>(t)) * 0x9e3779b97f4a7c15ull + (h >> 31);
  return h;
}

}  // namespace

std::span<const SpeculateName> speculate_names() {
  static constexpr SpeculateName kNames[] = {
      {"none", Speculate::kNone}, {"mtp", Speculate::kMtp}, {"ngram", Speculate::kNgram}};
  return kNames;
}

std::vector<int32_t> NgramIndex::draft(std::span<const int32_t> text, int64_t most) {
  // The n-gram at the very end has no successor yet: it is entered with the next token.
  for (; indexed_ + kTokens < text.size(); ++indexed_)
    next_[hash_tokens(text.subspan(indexed_, kTokens))] = indexed_ + kTokens;
  if (text.size() < kTokens || most <= 0) return {};
  std::span<const int32_t> last = text.last(kTokens);
  auto found = next_.find(hash_tokens(last));
  if (found == next_.end()) return {};
  size_t at = found->second;
  if (!std::equal(last.begin(), last.end(), text.begin() + static_cast<long>(at - kTokens)))
    return {};
  auto from = text.begin() + static_cast<long>(at);
  return {from, from + std::min<int64_t>(most, text.end() - from)};
}

void DraftBudget::Mean::add(double x) {
  ++count;
  if (count <= 3) {
    value = count == 1 ? x : std::min(value, x);
  } else {
    value += (x - value) / static_cast<double>(std::min<int64_t>(count - 2, 10));
  }
}

void DraftBudget::Mean::add_time(double x) { add(count >= 8 ? std::min(x, 3 * value) : x); }

DraftBudget::Width& DraftBudget::width(int64_t sequences) {
  size_t w = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(sequences)));
  return widths_[std::min(w, widths_.size() - 1)];
}

int64_t DraftBudget::choose(int64_t sequences, int64_t drafting, int64_t most) {
  Width& w = width(sequences);
  if (w.plain.count < 3) return 0;
  if (w.row.count < 4) return most;
  double n = static_cast<double>(drafting), cost = w.row.value + w.draft.value;
  double tokens = static_cast<double>(sequences), best_rate = tokens / w.plain.value, power = 1;
  int64_t best = 0;
  for (int64_t k = 1; k <= most; ++k) {
    power *= acceptance();
    tokens += n * power;
    double rate = tokens / (w.plain.value + n * static_cast<double>(k) * cost);
    if (rate > best_rate) {
      best_rate = rate;
      best = k;
    }
  }
  if (++w.asked % kProbe != 0) return best;
  return best > 0 ? 0 : std::min<int64_t>(most, 1);
}

void DraftBudget::step_took(int64_t sequences, int64_t drafts, double seconds) {
  Width& w = width(sequences);
  if (drafts == 0) {
    w.plain.add_time(seconds);
  } else if (w.plain.count > 0) {
    // Within what a row can cost, whatever the two steps' luck was.
    const double row = (seconds - w.plain.value) / static_cast<double>(drafts);
    w.row.add(std::clamp(row, 0.0, w.plain.value));
  }
}

void DraftBudget::drafting_took(int64_t sequences, int64_t drafts, double seconds) {
  width(sequences).draft.add_time(seconds / static_cast<double>(drafts));
}

void DraftBudget::outcome(int64_t accepted, bool refused) {
  constexpr double kForget = 0.98;
  accepted_ = accepted_ * kForget + static_cast<double>(accepted);
  offered_ = offered_ * kForget + static_cast<double>(accepted) + (refused ? 1 : 0);
}

}  // namespace wels
