#include "rl/update.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/signal.h"

namespace wels {
namespace {

int64_t rows_of(const TrainSequence& s) {
  return static_cast<int64_t>(s.prompt.size() + s.tokens.size()) - 1;
}

void append(PackedSequences& packed, size_t bin, const TrainSequence& s, size_t index) {
  MicroBatch& mb = packed.micro_batches[bin];
  std::vector<int32_t> ids(s.prompt.begin(), s.prompt.end());
  ids.insert(ids.end(), s.tokens.begin(), s.tokens.end() - 1);
  mb.batch.append(ids);
  mb.batch.experts.insert(mb.batch.experts.end(), s.experts.begin(), s.experts.end());
  size_t words = s.kept.size() / s.tokens.size();
  mb.kept.insert(mb.kept.end(), words * (s.prompt.size() - 1), 0);
  mb.kept.insert(mb.kept.end(), s.kept.begin(), s.kept.end());
  mb.targets.insert(mb.targets.end(), s.prompt.size() - 1, -1);
  mb.targets.insert(mb.targets.end(), s.tokens.begin(), s.tokens.end());
  packed.sequence[bin].push_back(index);
  packed.rows += rows_of(s);
}

// The rows of segment k of a micro-batch that predict its completion.
struct Place {
  size_t sequence, begin, tokens;
};
Place place_of(const PackedSequences& packed, std::span<const TrainSequence> sequences, size_t bin,
               size_t k) {
  size_t i = packed.sequence[bin][k];
  const Segment& segment = packed.micro_batches[bin].batch.segments[k];
  return {i, static_cast<size_t>(segment.row_begin) + sequences[i].prompt.size() - 1,
          sequences[i].tokens.size()};
}

size_t bin_of(const PackedSequences& packed, const MicroBatch& mb) {
  auto bin = static_cast<size_t>(&mb - packed.micro_batches.data());
  CHECK(bin < packed.micro_batches.size());
  return bin;
}

// The objective of packed sequences; its report is filled as micro-batches pass.
class PolicyPass {
 public:
  PolicyPass(const PackedSequences& packed, std::span<const TrainSequence> sequences,
             const UpdateSettings& settings, UpdateReport& report)
      : packed_(packed), sequences_(sequences), settings_(settings), report_(report) {}

  Objective objective() {
    Objective o;
    o.mtp_modules = 0;
    o.loss = [this](const MicroBatch& mb, int, std::span<const int32_t>,
                    std::span<const double> logp,
                    std::span<double> dlogp) { return loss(mb, logp, dlogp); };
    const PolicyLoss& p = settings_.loss;
    linear_ = settings_.on_policy && p.beta == 0 && p.correction == Correction::kNone;
    if (linear_) {
      o.known_dlogp = [this](const MicroBatch& mb, int, std::span<const int32_t>,
                             std::span<double> dlogp) { known(mb, dlogp); };
    }
    return o;
  }

 private:
  // On-policy every ratio is 1, and the gradient does not depend on the values.
  void known(const MicroBatch& mb, std::span<double> dlogp) const {
    size_t bin = bin_of(packed_, mb);
    for (size_t k = 0; k < packed_.sequence[bin].size(); ++k) {
      Place at = place_of(packed_, sequences_, bin, k);
      const TrainSequence& s = sequences_[at.sequence];
      for (double& x : dlogp.subspan(at.begin, at.tokens)) x = -s.weight * s.advantage;
    }
  }

  double loss(const MicroBatch& mb, std::span<const double> logp, std::span<double> dlogp) {
    size_t bin = bin_of(packed_, mb);
    double sum = 0;
    for (size_t k = 0; k < packed_.sequence[bin].size(); ++k) {
      Place at = place_of(packed_, sequences_, bin, k);
      const TrainSequence& s = sequences_[at.sequence];
      std::span<const double> own = logp.subspan(at.begin, at.tokens);
      if (settings_.on_policy) report_.mismatch.add(own, s.sampled_logp);
      PolicySample sample{.logp = own, .old_logp = s.old_logp};
      if (settings_.on_policy) sample.old_logp = own;
      sample.ref_logp = s.ref_logp;
      sample.sampled_logp = s.sampled_logp;
      sample.advantage = s.advantage;
      sample.weight = s.weight;
      sum += policy_objective(settings_.loss, sample, dlogp.subspan(at.begin, at.tokens),
                              &report_.policy);
    }
    if (linear_) known(mb, dlogp);
    return sum;
  }

  const PackedSequences& packed_;
  std::span<const TrainSequence> sequences_;
  const UpdateSettings& settings_;
  UpdateReport& report_;
  bool linear_ = false;
};

}  // namespace

void Mismatch::add(std::span<const double> a, std::span<const double> b) {
  CHECK(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    double d = std::fabs(a[i] - b[i]);
    largest = std::max(largest, d);
    sum += d;
  }
  tokens += static_cast<int64_t>(a.size());
}

void Mismatch::add(const Mismatch& other) {
  largest = std::max(largest, other.largest);
  sum += other.sum;
  tokens += other.tokens;
}

PackedSequences pack_sequences(std::span<const TrainSequence> sequences,
                               std::span<const size_t> chosen, int64_t rows) {
  std::vector<size_t> order(chosen.begin(), chosen.end());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return rows_of(sequences[a]) > rows_of(sequences[b]);
  });
  PackedSequences packed;
  for (size_t i : order) {
    CHECK(!sequences[i].prompt.empty());
    CHECK(!sequences[i].tokens.empty());
    int64_t own = rows_of(sequences[i]), fullest = -1;
    size_t best = packed.micro_batches.size();
    for (size_t bin = 0; bin < packed.micro_batches.size(); ++bin) {
      int64_t used = packed.micro_batches[bin].batch.rows();
      if (used + own > rows || used <= fullest) continue;
      fullest = used;
      best = bin;
    }
    if (best == packed.micro_batches.size()) {
      packed.micro_batches.emplace_back();
      packed.sequence.emplace_back();
    }
    append(packed, best, sequences[i], i);
  }
  return packed;
}

double mismatch_bound(bool exact, double temperature) {
  return (exact ? 1e-5 : 0.5) / std::min(temperature, 1.0);
}

void each_sequence_logp(const PackedSequences& packed, std::span<const TrainSequence> sequences,
                        const std::function<std::vector<double>(const MicroBatch&)>& values,
                        const std::function<void(size_t i, std::span<const double>)>& fn) {
  for (size_t bin = 0; bin < packed.micro_batches.size(); ++bin) {
    throw_if_stopped();
    std::vector<double> logp = values(packed.micro_batches[bin]);
    for (size_t k = 0; k < packed.sequence[bin].size(); ++k) {
      Place at = place_of(packed, sequences, bin, k);
      fn(at.sequence, std::span(logp).subspan(at.begin, at.tokens));
    }
  }
}

UpdateReport update_policy(Trainer& trainer, std::span<TrainSequence> sequences,
                           std::span<const int64_t> groups, const UpdateSettings& settings,
                           double lr) {
  std::vector<int64_t> tokens;
  for (const TrainSequence& s : sequences)
    tokens.push_back(s.counts ? static_cast<int64_t>(s.tokens.size()) : 0);
  std::vector<double> weights =
      token_weights(tokens, groups, settings.loss.mean, settings.loss.constant_length);
  std::vector<size_t> chosen;
  for (size_t i = 0; i < sequences.size(); ++i) {
    TrainSequence& s = sequences[i];
    s.weight = weights[i];
    if (s.weight != 0 && (s.advantage != 0 || settings.loss.beta != 0)) chosen.push_back(i);
  }
  UpdateReport report;
  if (chosen.empty()) return report;
  PackedSequences packed = pack_sequences(sequences, chosen, settings.micro_batch_tokens);
  report.rows = packed.rows;
  PolicyPass pass(packed, sequences, settings, report);
  report.stats = trainer.step(packed.micro_batches, pass.objective(), lr, settings.to_its_end);
  return report;
}

}  // namespace wels
