#include "train/dpo_stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/signal.h"

namespace wels {
namespace {

// Sums of logp over the rows that have a target, by segment. rows: of the micro-batch, ascending.
std::vector<double> segment_sums(const MicroBatch& mb, std::span<const int32_t> rows,
                                 std::span<const double> logp) {
  std::vector<double> sums(mb.batch.segments.size());
  size_t segment = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    while (rows[i] >= mb.batch.segments[segment].row_begin + mb.batch.segments[segment].rows)
      ++segment;
    if (mb.targets[static_cast<size_t>(rows[i])] >= 0) sums[segment] += logp[i];
  }
  return sums;
}

std::vector<int32_t> all_rows(const MicroBatch& mb) {
  std::vector<int32_t> rows(mb.targets.size());
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

std::vector<int64_t> first_numbers(int64_t n) {
  std::vector<int64_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

void add_summary(const DpoSummary& mean, const std::string& prefix, StepMetrics& m) {
  m.add(prefix + "margin", mean.margin);
  m.add(prefix + "pair_accuracy", mean.accuracy);
  m.add(prefix + "chosen_reward", mean.chosen_reward);
  m.add(prefix + "rejected_reward", mean.rejected_reward);
}

}  // namespace

DpoTerm dpo_term(const PairLogp& now, const PairLogp& reference, double beta) {
  DpoTerm t;
  t.margin = beta * ((now.chosen - reference.chosen) - (now.rejected - reference.rejected));
  // log(1 + e^-z) without overflow.
  t.loss = std::max(-t.margin, 0.0) + std::log1p(std::exp(-std::abs(t.margin)));
  t.gradient = -beta / (1 + std::exp(t.margin));
  return t;
}

PairBatch pack_pairs(const Preferences& data, const std::vector<int64_t>& pairs,
                     int64_t micro_batch_tokens) {
  std::vector<int64_t> rows;
  for (int64_t p : pairs)
    rows.push_back(data.chosen.example(p).size() + data.rejected.example(p).size() - 2);
  PairBatch out;
  for (const auto& group : best_fit(rows, micro_batch_tokens)) {
    MicroBatch& mb = out.micro_batches.emplace_back();
    out.pairs.emplace_back();
    for (int64_t i : group) {
      int64_t p = pairs[static_cast<size_t>(i)];
      append_example(data.chosen.example(p), mb.batch, mb.targets);
      append_example(data.rejected.example(p), mb.batch, mb.targets);
      out.pairs.back().push_back(p);
    }
  }
  return out;
}

void DpoSummary::add(const PairLogp& now, const PairLogp& reference, const DpoTerm& term,
                     double beta) {
  ++pairs;
  loss += term.loss;
  margin += term.margin;
  accuracy += term.margin > 0 ? 1 : 0;
  chosen_reward += beta * (now.chosen - reference.chosen);
  rejected_reward += beta * (now.rejected - reference.rejected);
}

DpoSummary DpoSummary::mean() const {
  DpoSummary out = *this;
  double n = static_cast<double>(std::max<int64_t>(pairs, 1));
  for (double* x :
       {&out.loss, &out.margin, &out.accuracy, &out.chosen_reward, &out.rejected_reward})
    *x /= n;
  return out;
}

Objective dpo_objective(const PairBatch& batch, const std::vector<PairLogp>& reference, double beta,
                        DpoSummary* sum) {
  double all = 0;
  for (const auto& pairs : batch.pairs) all += static_cast<double>(pairs.size());
  auto loss = [&batch, &reference, beta, sum, all](
                  const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                  std::span<const double> logp, std::span<double> dlogp) {
    if (depth > 0) return 0.0;  // MTP modules do not take part
    const auto& pairs = batch.pairs[static_cast<size_t>(&mb - batch.micro_batches.data())];
    std::vector<double> logps = segment_sums(mb, rows, logp), gradient(logps.size());
    double total = 0;
    for (size_t j = 0; j < pairs.size(); ++j) {
      PairLogp now{logps[2 * j], logps[2 * j + 1]};
      const PairLogp& then = reference[static_cast<size_t>(pairs[j])];
      DpoTerm term = dpo_term(now, then, beta);
      total += term.loss / all;
      gradient[2 * j] = term.gradient / all;
      gradient[2 * j + 1] = -term.gradient / all;
      if (sum) sum->add(now, then, term, beta);
    }
    size_t segment = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      while (rows[i] >= mb.batch.segments[segment].row_begin + mb.batch.segments[segment].rows)
        ++segment;
      if (mb.targets[static_cast<size_t>(rows[i])] >= 0) dlogp[i] = gradient[segment];
    }
    return total;
  };
  return {loss, {}};
}

std::vector<PairLogp> pair_logps(Device& dev, Model& model, const TrainerConfig& config,
                                 const Preferences& data, int64_t micro_batch_tokens,
                                 const std::function<bool(int64_t done)>& tick) {
  Pool pool = device_pool(dev);
  PairBatch batch = pack_pairs(data, first_numbers(data.size()), micro_batch_tokens);
  std::vector<PairLogp> out(static_cast<size_t>(data.size()));
  int64_t done = 0;
  for (size_t i = 0; i < batch.micro_batches.size(); ++i) {
    const MicroBatch& mb = batch.micro_batches[i];
    std::vector<double> logp = log_probabilities(dev, pool, model, config, mb);
    std::vector<double> sums = segment_sums(mb, all_rows(mb), logp);
    for (size_t j = 0; j < batch.pairs[i].size(); ++j)
      out[static_cast<size_t>(batch.pairs[i][j])] = {sums[2 * j], sums[2 * j + 1]};
    done += static_cast<int64_t>(batch.pairs[i].size());
    if (tick && !tick(done)) return {};
  }
  return out;
}

DpoStage::DpoStage(const PreferenceData& data, const std::vector<PairLogp>& train_reference,
                   const std::vector<PairLogp>& held_out_reference, const DpoSettings& settings,
                   std::function<std::string()> sample)
    : data_(data),
      train_reference_(train_reference),
      held_out_reference_(held_out_reference),
      s_(settings),
      sample_(std::move(sample)) {}

nlohmann::json DpoStage::settings() const {
  nlohmann::json out = {
      {"stage", "dpo"},        {"batch", s_.batch},
      {"longest", s_.longest}, {"micro_batch_tokens", s_.micro_batch_tokens},
      {"beta", s_.beta},       {"source", fmt::format("{:016x}", data_.train.hash())}};
  out.update(s_.model);
  return out;
}

PairBatch DpoStage::draw(int64_t first) const {
  std::vector<int64_t> pairs;
  for (int64_t i = 0; i < s_.batch; ++i)
    pairs.push_back(drawn_example(first + i, data_.train.size(), s_.seed));
  return pack_pairs(data_.train, pairs, s_.micro_batch_tokens);
}

StageStep DpoStage::step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) {
  StageStep done;
  PairBatch batch = draw(state.sequences);
  DpoSummary sum;
  done.stats =
      trainer.step(batch.micro_batches, dpo_objective(batch, train_reference_, s_.beta, &sum), lr);
  last_step_ = sum.mean();
  done.sequences = s_.batch;
  for (const MicroBatch& mb : batch.micro_batches) done.tokens += mb.batch.rows();
  done.loss = last_step_.loss;
  m.add(metric::kMainLoss, done.loss);
  add_summary(last_step_, "", m);
  return done;
}

double DpoStage::validate(Trainer& trainer, StepMetrics* m, bool averaged) {
  int64_t all = data_.held_out.size();
  if (all == 0) return last_step_.pairs > 0 ? last_step_.loss : 1e30;
  int64_t n = s_.eval_pairs == 0 ? all : std::min(all, s_.eval_pairs);
  std::vector<int64_t> pairs;
  for (int64_t i = 0; i < n; ++i) pairs.push_back(i * all / n);
  PairBatch batch = pack_pairs(data_.held_out, pairs, s_.micro_batch_tokens);
  DpoSummary sum;
  for (size_t i = 0; i < batch.micro_batches.size(); ++i) {
    throw_if_stopped();
    const MicroBatch& mb = batch.micro_batches[i];
    std::vector<double> logps = segment_sums(mb, all_rows(mb), trainer.log_probabilities(mb));
    for (size_t j = 0; j < batch.pairs[i].size(); ++j) {
      PairLogp now{logps[2 * j], logps[2 * j + 1]};
      const PairLogp& then = held_out_reference_[static_cast<size_t>(batch.pairs[i][j])];
      sum.add(now, then, dpo_term(now, then, s_.beta), s_.beta);
    }
  }
  DpoSummary mean = sum.mean();
  if (m && averaged) m->add("val_loss_ema", mean.loss);
  if (averaged) return mean.loss;
  last_ = mean;
  if (m) {
    m->add(metric::kValLoss, mean.loss);
    add_summary(mean, "val_", *m);
  }
  return mean.loss;
}

std::string DpoStage::status() const {
  const DpoSummary& shown = last_.pairs > 0 ? last_ : last_step_;
  if (shown.pairs == 0) return {};
  return fmt::format("  margin {:.3f}, {:.0f}% of pairs", shown.margin, 100 * shown.accuracy);
}

void DpoStage::rehearse(Trainer& trainer) {
  PairBatch batch = draw(0);
  trainer.gradients(batch.micro_batches, dpo_objective(batch, train_reference_, s_.beta));
}

}  // namespace wels
