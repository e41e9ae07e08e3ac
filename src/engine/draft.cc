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

DraftBudget::Depth& DraftBudget::depth(int64_t sequences, int64_t drafting, int64_t drafts) {
  const int64_t each = (drafts + drafting - 1) / drafting;
  return width(sequences).depths[static_cast<size_t>(std::clamp<int64_t>(each, 1, kDepths) - 1)];
}

double DraftBudget::Width::cost(int64_t k) const {
  const int64_t at = std::min(k, kDepths) - 1;
  int64_t below = at, above = at;
  auto known = [&](int64_t i) { return depths[static_cast<size_t>(i)].known(); };
  while (below >= 0 && !known(below)) --below;
  while (above < kDepths && !known(above)) ++above;
  if (below < 0 && above == kDepths) return -1;
  if (below < 0) below = above;
  if (above == kDepths) above = below;
  const double low = depths[static_cast<size_t>(below)].cost(),
               high = depths[static_cast<size_t>(above)].cost();
  if (below == above) return low;
  return low + (high - low) * static_cast<double>(at - below) / static_cast<double>(above - below);
}

int64_t DraftBudget::choose(int64_t sequences, int64_t drafting, int64_t most) {
  Width& w = width(sequences);
  if (w.plain.count < 3) return 0;
  if (w.cost(1) < 0) return most;
  const auto n = static_cast<double>(drafting);
  double tokens = static_cast<double>(sequences), best_rate = tokens / w.plain.value;
  double accepted = 0.7, share = 1;  // as if two first drafts had been seen; others as those before
  int64_t best = 0;
  for (int64_t k = 1; k <= most; ++k) {
    if (k <= kDepths) {
      const Place& place = places_[static_cast<size_t>(k - 1)];
      accepted = (place.accepted + 2 * accepted) / (place.offered + 2);
    }
    share *= accepted;
    tokens += n * share;
    const double seconds =
        w.plain.value + w.following.value + n * static_cast<double>(k) * w.cost(k);
    const double rate = tokens / seconds;
    if (rate > best_rate) {
      best_rate = rate;
      best = k;
    }
  }
  ++w.asked;
  if (w.asked % kProbe == 0) return best > 0 ? 0 : std::min<int64_t>(most, 1);
  if (best == 0 || best > kDepths) return best;
  // One more and one fewer in turns: often while that is not known.
  for (const int64_t step : {1, -1}) {
    const int64_t other = best + step;
    if (other < 1 || other > std::min(most, kDepths)) continue;
    const int64_t turn = w.depths[static_cast<size_t>(other - 1)].known() ? kProbe / 2 : 4;
    if (w.asked % turn == (step > 0 ? 1 : 1 + turn / 2)) return other;
  }
  return best;
}

void DraftBudget::step_took(int64_t sequences, int64_t drafting, int64_t drafts, double seconds) {
  Width& w = width(sequences);
  if (drafts == 0) {
    w.plain.add_time(seconds);
  } else if (w.plain.count > 0) {
    // Within what a row can cost, whatever the two steps' luck was.
    const double row = (seconds - w.plain.value) / static_cast<double>(drafts);
    depth(sequences, drafting, drafts).row.add(std::clamp(row, 0.0, w.plain.value));
  }
}

void DraftBudget::drafting_took(int64_t sequences, int64_t drafting, int64_t drafts,
                                double seconds) {
  depth(sequences, drafting, drafts).draft.add_time(seconds / static_cast<double>(drafts));
}

void DraftBudget::following_took(int64_t sequences, double seconds) {
  width(sequences).following.add_time(seconds);
}

void DraftBudget::outcome(int64_t accepted, bool refused) {
  constexpr double kForget = 0.98;
  auto count = [&](int64_t place, bool right) {
    if (place >= kDepths) return;
    Place& p = places_[static_cast<size_t>(place)];
    p.accepted = p.accepted * kForget + (right ? 1 : 0);
    p.offered = p.offered * kForget + 1;
  };
  for (int64_t i = 0; i < accepted; ++i) count(i, true);
  if (refused) count(accepted, false);
}

}  // namespace wels
