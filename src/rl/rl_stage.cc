#include "rl/rl_stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/rng.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr uint64_t kRolloutStream = hash_name("rollout");
constexpr uint64_t kFavouredStream = hash_name("favoured questions");
constexpr int64_t kMostRounds = 8;  // of dynamic sampling
constexpr size_t kProbed = 16;      // completions for the divergence from the start
constexpr int64_t kSilenceBefore = 2,
                  kSilenceBetween = 10;  // steps without variance until it is said again

std::vector<Weight*> weights_of(Model& model) {
  std::vector<Weight*> out;
  visit_weights(model.config(), model.weights(),
                [&](Weight& w, const WeightSpec&) { out.push_back(&w); });
  return out;
}

std::vector<Weight*> weights_of(const LoraSet& set) {
  std::vector<Weight*> out;
  for (const auto& lora : set) out.insert(out.end(), {&lora->down, &lora->up});
  return out;
}

std::string mean_name(LossMean m) {
  return m == LossMean::kSequence ? "sequence" : m == LossMean::kConstant ? "constant" : "token";
}

MicroBatch by_own_router(MicroBatch mb) {
  mb.batch.experts.clear();
  return mb;
}

// Whether rewards say something of the policy: the checker itself failed in less than half.
bool mostly_checked(int64_t failures, std::span<const Rollout> rollouts) {
  return 2 * failures < static_cast<int64_t>(rollouts.size());
}

// The mean of a quantity over log-probabilities of tokens.
double mean_of(std::span<const Rollout> rollouts) {
  double sum = 0, n = 0;
  for (const Rollout& r : rollouts) {
    for (double x : r.logp) sum += x;
    n += static_cast<double>(r.logp.size());
  }
  return n > 0 ? sum / n : 0;
}

// Rollouts in f32 are exact: who wants speed has bf16.
RlSettings exact_in_f32(RlSettings s) {
  s.rollout.exact |= s.rollout.dtype == DType::kF32;
  return s;
}

}  // namespace

uint64_t hash_of_weights(Model& model) {
  uint64_t h = 0;
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec&) {
    for (const Tensor& t : w.value) {
      std::string_view bytes(static_cast<const char*>(t.data), static_cast<size_t>(t.bytes()));
      h = h * 0x9e3779b97f4a7c15ull + hash_name(bytes);
    }
  });
  return h;
}

void freeze_mtp(Model& model) {
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    if (s.layer >= model.config().num_hidden_layers) w.grad.clear();
  });
}

void check_groups(const RlSettings& s) {
  if (s.samples < 2)
    throw Error("--samples", "one answer has no siblings to be better than", "use 2 or more");
  if (s.algorithm.mini_batches > s.groups)
    throw Error(
        "--mini-batches",
        fmt::format("{} are more than the {} groups of a step", s.algorithm.mini_batches, s.groups),
        "use fewer");
  if (s.algorithm.loss.surrogate == Surrogate::kPlain && s.epochs * s.algorithm.mini_batches > 1) {
    throw Error("--algorithm",
                "reinforce has no ratio to the policy that sampled: one update per rollout",
                "use grpo, dapo, gspo or cispo with --epochs and --mini-batches");
  }
}

RlStage::RlStage(Device& dev, Model& policy, Model& start, const Tokenizer& tokenizer,
                 const RlSettings& settings, const TrainerConfig& trainer)
    : dev_(dev),
      policy_(policy),
      start_(start),
      s_(exact_in_f32(settings)),
      trainer_config_(trainer),
      start_hash_(settings.model.contains("start")
                      ? settings.model["start"].get<std::string>()
                      : fmt::format("{:016x}", hash_of_weights(start))),
      curriculum_(settings.tasks, settings.curriculum),
      task_files_(curriculum_.all().hash_of_files()),
      sampler_(dev, policy, tokenizer, s_.rollout) {
  check_groups(s_);
  CHECK(trainer.temperature == s_.temperature);
  LoraSet adapters = lora_of(policy);
  CHECK(adapters.empty() == (&policy != &start));
  s_.algorithm.loss.constant_length = static_cast<double>(s_.rollout.max_tokens);
  if (s_.rollout.speculate == Speculate::kMtp && policy.config().num_nextn_predict_layers == 0)
    throw Error("--speculate", "the model has no MTP module", "use ngram or none");
  check_questions();
  if (s_.algorithm.loss.beta <= 0) return;
  if (adapters.empty()) {
    reference_model_ = std::make_unique<Model>(policy.config());
    reference_model_->allocate(DType::kF32);
    policy_values_ = weights_of(policy);
    reference_ = weights_of(*reference_model_);
  } else {
    reference_lora_ = copy_lora(policy);
    policy_values_ = weights_of(adapters);
    reference_ = weights_of(reference_lora_);
  }
  refresh_reference();
}

// Every question of a file must leave room for an answer, and there must be some for evaluation;
// of generators a sample is looked at.
void RlStage::check_questions() const {
  const TaskMixture& tasks = curriculum_.all();
  for (int64_t i = 0; i < s_.groups; ++i)
    sampler_.prompt(tasks.item(s_.seed, i, TaskSplit::kTrain).example.question);
  for (const TaskMixture::Part& part : tasks.parts()) {
    const Task& task = *part.task;
    int64_t held_out = 0;
    for (int64_t i = 0; i < task.size(); ++i) {
      TaskExample e = task.row(i);
      held_out += is_held_out(e.question);
      if (sampler_.has_room(e.question)) continue;
      auto line = json::parse(e.metadata).at("line").get<int64_t>();
      throw Error(fmt::format("{}:{}", task.name(), line),
                  fmt::format("the question leaves no room for {} new tokens within the model's {} "
                              "positions",
                              s_.rollout.max_tokens, policy_.config().max_position_embeddings),
                  "shorten it, or use fewer --max-tokens");
    }
    if (task.size() > 0 && held_out == 0)
      throw Error(task.name(), "has no held-out question, so there is nothing to evaluate by",
                  "add questions: a tenth is held out (wels tasks --held-out writes such ones)");
  }
}

json RlStage::settings() const {
  const RlAlgorithm& a = s_.algorithm;
  json out = {{"tasks", s_.tasks},
              {"algorithm", a.name},
              {"surrogate", static_cast<int>(a.loss.surrogate)},
              {"loss_mean", mean_name(a.loss.mean)},
              {"advantage", static_cast<int>(a.scale)},
              {"clip_low", a.loss.clip_low},
              {"clip_high", a.loss.clip_high},
              {"beta", a.loss.beta},
              {"unbiased_kl", a.loss.unbiased_kl},
              {"stale_delta", a.loss.stale_delta},
              {"correction", static_cast<int>(a.loss.correction)},
              {"correction_cap", a.loss.correction_cap},
              {"mini_batches", a.mini_batches},
              {"dynamic_sampling", a.dynamic_sampling},
              {"overlong_filter", a.overlong_filter},
              {"overlong_zone", s_.reward.overlong_zone},
              {"reward_accuracy", s_.reward.accuracy},
              {"reward_format", s_.reward.format},
              {"reward_language", s_.reward.language},
              {"reward_chance", s_.reward.chance},
              {"target_language", s_.reward.target_language},
              {"max_tokens", s_.rollout.max_tokens},
              {"thinking", s_.rollout.thinking},
              {"top_k", s_.rollout.top_k},
              {"top_p", s_.rollout.top_p},
              {"min_p", s_.rollout.min_p},
              {"keep_routing", s_.rollout.keep_routing},
              {"exact_rollouts", s_.rollout.exact},
              {"groups", s_.groups},
              {"samples", s_.samples},
              {"temperature", s_.temperature},
              {"epochs", s_.epochs},
              {"micro_batch_tokens", s_.micro_batch_tokens},
              {"reference_refresh", s_.reference_refresh},
              {"curriculum", s_.curriculum},
              {"start", start_hash_}};
  out.update(s_.model);
  if (s_.favoured.empty()) return out;
  uint64_t h = 0;
  for (const TaskMixture::Item& item : s_.favoured)
    h = h * 0x9e3779b97f4a7c15ull + hash_name(item.example.question);
  out["favoured"] = fmt::format("{:016x}", h);
  out["favoured_share"] = s_.favoured_share;
  return out;
}

// --- rollouts ---

void RlStage::Groups::append(const Groups& from, size_t group, size_t samples) {
  items.push_back(from.items[group]);
  prompts.push_back(from.prompts[group]);
  auto range = [&](const auto& v) {
    auto begin = v.begin() + static_cast<long>(group * samples);
    return std::pair{begin, begin + static_cast<long>(samples)};
  };
  auto [r, r_end] = range(from.rollouts);
  rollouts.insert(rollouts.end(), r, r_end);
  auto [w, w_end] = range(from.rewards);
  rewards.insert(rewards.end(), w, w_end);
}

TaskMixture::Item RlStage::question(int64_t i) const {
  Rng rng(s_.seed, kFavouredStream, 4 * static_cast<uint64_t>(i));
  if (!s_.favoured.empty() && rng.uniform() < s_.favoured_share)
    return s_.favoured[rng.below(s_.favoured.size())];
  return curriculum_.tasks().item(s_.seed, i, TaskSplit::kTrain);
}

RlStage::Groups RlStage::draw(int64_t count, Times& times) {
  Groups g;
  int64_t first = next_item_;
  next_item_ += count;
  for (int64_t i = first; i < next_item_; ++i) {
    g.items.push_back(question(i));
    g.prompts.push_back(sampler_.prompt(g.items.back().example.question));
  }
  double t0 = monotonic_seconds();
  auto luck = [&](int64_t prompt, int64_t sample) {
    uint64_t place = static_cast<uint64_t>((first + prompt) * s_.samples + sample);
    return Rng(s_.seed, kRolloutStream, 2 * place).next_u64();
  };
  g.rollouts = sampler_.sample(
      {.prompts = g.prompts, .samples = s_.samples, .temperature = s_.temperature, .seed = luck});
  double t1 = monotonic_seconds();
  g.rewards = score_rollouts(g.items, g.rollouts, s_.rollout.max_tokens, s_.reward);
  times.rollout_s += t1 - t0;
  times.reward_s += monotonic_seconds() - t1;
  times.new_tokens += sampler_.timing().new_tokens;
  for (const Rollout& r : g.rollouts) times.answer_tokens += static_cast<int64_t>(r.tokens.size());
  return g;
}

// Whether the group's rewards differ, the penalty for length aside.
bool RlStage::teaches(const Groups& g, size_t group) const {
  std::vector<double> rewards;
  size_t n = static_cast<size_t>(s_.samples);
  for (size_t i = group * n; i < (group + 1) * n; ++i)
    rewards.push_back(g.rewards[i].total - g.rewards[i].penalty);
  return has_variance(rewards);
}

// The step's groups. all: also those that dynamic sampling dropped.
RlStage::Groups RlStage::collect(Groups& all, Times& times) {
  if (!s_.algorithm.dynamic_sampling) return all = draw(s_.groups, times);
  Groups kept;
  size_t n = static_cast<size_t>(s_.samples);
  for (int64_t round = 0; round < kMostRounds; ++round) {
    int64_t missing = s_.groups - static_cast<int64_t>(kept.items.size());
    if (missing <= 0) break;
    Groups g = draw(std::min(s_.groups, round == 0 ? s_.groups : 2 * missing), times);
    for (size_t i = 0; i < g.items.size(); ++i) {
      all.append(g, i, n);
      if (static_cast<int64_t>(kept.items.size()) < s_.groups && teaches(g, i))
        kept.append(g, i, n);
    }
  }
  return kept;
}

std::vector<TrainSequence> RlStage::sequences_of(const Groups& g) const {
  std::vector<double> rewards;
  for (const Reward& r : g.rewards) rewards.push_back(r.total);
  std::vector<double> advantages =
      group_advantages(rewards, sizes(g.items.size()), s_.algorithm.scale);
  std::vector<TrainSequence> out;
  for (size_t i = 0; i < g.rollouts.size(); ++i) {
    const Rollout& r = g.rollouts[i];
    out.push_back({.prompt = g.prompts[i / static_cast<size_t>(s_.samples)],
                   .tokens = r.tokens,
                   .sampled_logp = r.logp,
                   .kept = r.kept,
                   .experts = r.experts,
                   .counts = r.ended || !s_.algorithm.overlong_filter,
                   .advantage = advantages[i]});
  }
  return out;
}

// --- learning ---

void RlStage::refresh_reference() {
  for (size_t i = 0; i < reference_.size(); ++i) {
    Weight& to = *reference_[i];
    for (size_t e = 0; e < to.value.size(); ++e)
      dev_.copy(policy_values_[i]->value[e], to.value[e]);
    ++to.version;
  }
}

// Both of other weights than those that sampled: by their own routers.
std::vector<double> RlStage::start_logp(const MicroBatch& mb) {
  std::optional<OtherLora> without;
  if (&start_ == &policy_) without.emplace(policy_, LoraSet());
  return log_probabilities(dev_, pool_, start_, trainer_config_, by_own_router(mb));
}

std::vector<double> RlStage::reference_logp(const MicroBatch& mb) {
  if (reference_model_)
    return log_probabilities(dev_, pool_, *reference_model_, trainer_config_, by_own_router(mb));
  OtherLora then(policy_, reference_lora_);
  return log_probabilities(dev_, pool_, policy_, trainer_config_, by_own_router(mb));
}

// Some completions under the policy, as the trainer computes it, and under the weights that the run
// began with: the divergence of the two in nats per token, and what the engine's log-probabilities
// differ by.
void RlStage::probe(Trainer& trainer, const Groups& g, StepMetrics& m) {
  std::vector<TrainSequence> sequences = sequences_of(g);
  std::vector<size_t> chosen;
  size_t count = std::min(kProbed, sequences.size());
  for (size_t i = 0; i < count; ++i) chosen.push_back(i * sequences.size() / count);
  PackedSequences packed = pack_sequences(sequences, chosen, s_.micro_batch_tokens);
  double sum = 0;
  each_sequence_logp(
      packed, sequences, [&](const MicroBatch& mb) { return trainer.log_probabilities(mb); },
      [&](size_t i, std::span<const double> logp) {
        mismatch_.add(logp, sequences[i].sampled_logp);
        sum = std::accumulate(logp.begin(), logp.end(), sum);
      });
  double tokens = static_cast<double>(mismatch_.tokens);
  each_sequence_logp(
      packed, sequences, [&](const MicroBatch& mb) { return start_logp(mb); },
      [&](size_t, std::span<const double> logp) {
        for (double x : logp) sum -= x;
      });
  m.add("kl_start", tokens > 0 ? sum / tokens : 0.0);
}

// Log-probabilities of before the updates, and under the reference.
void RlStage::fill_logp(Trainer& trainer, std::vector<TrainSequence>& sequences) {
  bool reference = s_.algorithm.loss.beta > 0;
  std::vector<size_t> chosen;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].counts && (reference || sequences[i].advantage != 0)) chosen.push_back(i);
  }
  PackedSequences packed = pack_sequences(sequences, chosen, s_.micro_batch_tokens);
  if (!on_policy()) {
    each_sequence_logp(
        packed, sequences, [&](const MicroBatch& mb) { return trainer.log_probabilities(mb); },
        [&](size_t i, std::span<const double> logp) {
          sequences[i].old_logp.assign(logp.begin(), logp.end());
          mismatch_.add(logp, sequences[i].sampled_logp);
        });
  }
  if (!reference) return;
  each_sequence_logp(
      packed, sequences, [&](const MicroBatch& mb) { return reference_logp(mb); },
      [&](size_t i, std::span<const double> logp) {
        sequences[i].ref_logp.assign(logp.begin(), logp.end());
      });
}

// The step's updates: epochs over mini-batches of whole groups.
UpdateReport RlStage::learn(Trainer& trainer, std::vector<TrainSequence>& sequences, int64_t step,
                            double lr) {
  UpdateSettings settings{.loss = s_.algorithm.loss,
                          .micro_batch_tokens = s_.micro_batch_tokens,
                          .on_policy = on_policy()};
  size_t samples = static_cast<size_t>(s_.samples);
  if (on_policy()) {
    return update_policy(trainer, sequences, sizes(sequences.size() / samples), settings, lr);
  }
  UpdateReport sum;
  size_t groups = sequences.size() / samples;
  size_t parts = std::min(static_cast<size_t>(s_.algorithm.mini_batches), groups);
  for (int64_t epoch = 0; epoch < s_.epochs; ++epoch) {
    std::vector<size_t> order(groups);
    std::iota(order.begin(), order.end(), size_t{0});
    Rng rng(s_.seed, hash_name(fmt::format("mini-batches {} {}", step, epoch)));
    for (size_t i = groups; i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
    for (size_t part = 0; part < parts; ++part) {
      std::vector<TrainSequence> some;
      for (size_t k = part * groups / parts; k < (part + 1) * groups / parts; ++k) {
        for (size_t j = 0; j < samples; ++j) some.push_back(sequences[order[k] * samples + j]);
      }
      UpdateReport one = update_policy(trainer, some, sizes(some.size() / samples), settings, lr);
      if (one.rows == 0) continue;
      settings.to_its_end = true;  // from the first update on
      sum.rows += one.rows;
      StepStats before = std::exchange(sum.stats, one.stats);
      sum.stats.skipped |= before.skipped;
      sum.stats.forward_s += before.forward_s;
      sum.stats.backward_s += before.backward_s;
      sum.stats.update_s += before.update_s;
      sum.policy.add(one.policy);
    }
  }
  return sum;
}

StageStep RlStage::step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) {
  if (!reference_.empty() && s_.reference_refresh > 0 && state.step > 0 &&
      state.step % s_.reference_refresh == 0)
    refresh_reference();
  Times times;
  int64_t failures = failures_so_far();
  Groups all, kept = collect(all, times);
  failures = failures_so_far() - failures;
  sampled_tokens_ += times.answer_tokens;
  mismatch_ = {};
  keep_samples(all);
  say_failures(state.step, failures, static_cast<int64_t>(all.rollouts.size()));
  // The tasks of `all` are gone behind this where the curriculum climbs.
  if (auto collapse = add_rollout_metrics(all, state.step, failures, m))
    return {.stats = {}, .collapse = std::move(collapse)};
  double t0 = monotonic_seconds();
  probe(trainer, all, m);
  std::vector<TrainSequence> sequences = sequences_of(kept);
  double square = 0;  // of advantages; their mean is 0
  for (const TrainSequence& s : sequences) square += s.advantage * s.advantage;
  m.add("advantage_std", std::sqrt(square / std::max(static_cast<double>(sequences.size()), 1.0)));
  if (!on_policy() || !reference_.empty()) fill_logp(trainer, sequences);
  double t1 = monotonic_seconds();
  UpdateReport u = learn(trainer, sequences, state.step, lr);
  times.scoring_s = t1 - t0;
  times.train_s = monotonic_seconds() - t1;
  if (u.mismatch.tokens > 0) mismatch_.add(u.mismatch);
  add_update_metrics(u, times, m);
  say_mismatch(state.step);
  if (u.rows == 0)
    say_nothing_to_learn(state.step, reward_, mostly_checked(failures, all.rollouts));
  silent_steps_ = u.rows == 0 ? silent_steps_ + 1 : 0;
  return {.stats = u.stats,
          .sequences = static_cast<int64_t>(all.rollouts.size()),
          .tokens = u.rows,
          .loss = u.stats.loss.empty() ? 0.0 : u.stats.loss[0],
          .nothing_to_learn = u.rows == 0};
}

void RlStage::rehearse(Trainer& trainer) {
  int64_t next = next_item_;
  Times times;
  Groups g = draw(s_.groups, times);
  next_item_ = next;
  std::vector<TrainSequence> sequences = sequences_of(g);
  std::vector<size_t> chosen(sequences.size());
  std::iota(chosen.begin(), chosen.end(), size_t{0});
  PackedSequences packed = pack_sequences(sequences, chosen, s_.micro_batch_tokens);
  Objective o = pretrain_objective(packed.micro_batches, 0, 0);
  o.mtp_modules = 0;
  trainer.gradients(packed.micro_batches, o);
}

// --- what it says ---

// Of the first question and of one in the middle: the answer with the most and with the least
// reward.
void RlStage::keep_samples(const Groups& all) {
  samples_.clear();
  size_t n = static_cast<size_t>(s_.samples), groups = all.items.size();
  for (size_t group : std::set<size_t>{0, groups / 2}) {
    if (group >= groups) continue;
    const TaskMixture::Item& item = all.items[group];
    auto begin = all.rewards.begin() + static_cast<long>(group * n);
    auto less = [](const Reward& a, const Reward& b) { return a.total < b.total; };
    auto [least, most] = std::minmax_element(begin, begin + static_cast<long>(n), less);
    for (auto at : {most, least}) {
      if (at == least && least->total == most->total) continue;
      const Rollout& r = all.rollouts[static_cast<size_t>(at - all.rewards.begin())];
      samples_.push_back({.task = fmt::format("{}:{}", item.task->name(), item.level),
                          .prompt = item.example.question,
                          .text = sampler_.tokenizer().decode(r.tokens),
                          .reward = at->total});
    }
  }
}

std::optional<Error> RlStage::add_rollout_metrics(const Groups& all, int64_t step, int64_t failures,
                                                  StepMetrics& m) {
  std::vector<double> totals, scores;
  double reflective = 0, repetitive = 0, language = 0, square = 0;
  for (size_t i = 0; i < all.rewards.size(); ++i) {
    const Rollout& r = all.rollouts[i];
    totals.push_back(all.rewards[i].total);
    scores.push_back(all.rewards[i].score);
    language += all.rewards[i].language;
    reflective += reflective_words(r.parts.thought);
    repetitive += !r.ended && is_repetitive(r.tokens);
  }
  double n = static_cast<double>(totals.size());
  reward_ = std::accumulate(totals.begin(), totals.end(), 0.0) / n;
  for (double x : totals) square += (x - reward_) * (x - reward_);
  AnswerStats a = answer_stats(all.rollouts, scores);
  double without = 0, groups = static_cast<double>(all.items.size());
  for (size_t i = 0; i < all.items.size(); ++i) without += !teaches(all, i);
  double entropy = -mean_of(all.rollouts);
  length_ = a.length_mean;
  long_share_ = a.long_share;
  m.add("reward_mean", reward_);
  m.add("reward_std", std::sqrt(square / n));
  m.add("accuracy_sampled", a.accuracy);
  m.add("length_mean", a.length_mean);
  m.add("length_p95", a.length_p95);
  m.add("long_share", a.long_share);
  m.add("ended_share", a.ended);
  m.add("format_share", a.formed);
  if (s_.reward.language != 0) m.add("language_consistency", language / n);
  m.add("reflective_words", reflective / n);
  add_task_metrics(all, m);
  m.add("entropy", entropy);
  m.add("groups_without_variance", without / groups);
  if (checker_failures_ > 0) m.add("checker_failures", static_cast<double>(failures));
  if (s_.algorithm.dynamic_sampling) m.add("groups_drawn", groups);
  if (curriculum_.rungs() > 1) m.add("curriculum_rung", curriculum_.rung());
  curriculum_.observe(a.accuracy);
  return guard_.observe({.step = step + 1,
                         .best_score = *std::max_element(scores.begin(), scores.end()),
                         .checked = mostly_checked(failures, all.rollouts),
                         .entropy = entropy,
                         .repetitive = repetitive / n});
}

// Reward and length of each task that the step drew, where there are several.
void RlStage::add_task_metrics(const Groups& all, StepMetrics& m) const {
  if (curriculum_.all().parts().size() < 2) return;
  struct Sums {
    double reward = 0, length = 0, n = 0;
  };
  std::map<std::string, Sums> tasks;
  std::vector<std::string> names = part_names(curriculum_.all());
  const size_t answers = all.rewards.size() / all.items.size();
  for (size_t i = 0; i < all.rewards.size(); ++i) {
    const TaskMixture::Item& item = all.items[i / answers];
    size_t part = part_of(curriculum_.tasks(), item);  // the same parts, perhaps of fewer levels
    Sums& sums = tasks[part < names.size() ? names[part] : item.task->name()];
    sums.reward += all.rewards[i].total;
    sums.length += static_cast<double>(all.rollouts[i].tokens.size());
    ++sums.n;
  }
  for (const auto& [name, sums] : tasks) {
    m.add("reward_mean_" + name, sums.reward / sums.n);
    m.add("length_mean_" + name, sums.length / sums.n);
  }
}

void RlStage::add_update_metrics(const UpdateReport& u, const Times& t, StepMetrics& m) const {
  double tokens = std::max(u.policy.tokens, 1.0);
  m.add("clip_fraction", u.policy.clipped / tokens);
  if (!reference_.empty()) m.add("kl_reference", u.policy.kl / tokens);
  if (s_.algorithm.loss.stale_delta > 0)
    m.add("stale_share", u.policy.stale / std::max(u.policy.completions, 1.0));
  if (s_.algorithm.loss.correction != Correction::kNone)
    m.add("correction_mean", u.policy.correction / tokens);
  m.add("logp_mismatch_max", mismatch_.largest);
  m.add("logp_mismatch_mean", mismatch_.mean());
  m.add("rollout_tokens_per_s", static_cast<double>(t.new_tokens) / std::max(t.rollout_s, 1e-9));
  if (u.rows > 0)
    m.add("train_tokens_per_s", static_cast<double>(u.rows) / std::max(t.train_s, 1e-9));
  auto ms = [&](const char* part, double seconds) {
    m.add(std::string(metric::kStepTimePrefix) + part, seconds * 1e3);
  };
  ms("rollout", t.rollout_s);
  ms("reward", t.reward_s);
  ms("scoring", t.scoring_s);
}

int64_t RlStage::failures_so_far() const {
  int64_t n = wels::checker_failures(curriculum_.all());
  n += wels::checker_failures(curriculum_.tasks());
  std::set<const Task*> others;
  for (const TaskMixture::Item& item : s_.favoured) others.insert(item.task);
  for (const Task* task : others) n += task->checker_failures();
  return n;
}

// The checker itself says why, the first time.
void RlStage::say_failures(int64_t step, int64_t failures, int64_t answers) {
  checker_failures_ += failures;
  if (failures == 0 || failing_steps_++ % kSilenceBetween != 0) return;
  log_warn("step {}: {} of {} answers could not be checked, their checker failed ({} so far)",
           step + 1, failures, answers, checker_failures_);
}

void RlStage::say_mismatch(int64_t step) {
  bool exact = s_.rollout.exact;
  double bound = mismatch_bound(exact, s_.temperature);
  if (mismatch_said_ || mismatch_.largest <= bound) return;
  mismatch_said_ = true;
  log_warn(
      "step {}: sampler and trainer differ by {:.2g} in a log-probability (mean {:.2g}); {} is "
      "the bound for {} rollouts in {}. Later ones are in logp_mismatch_max; {}--correction "
      "truncate bounds their effect",
      step + 1, mismatch_.largest, mismatch_.mean(), bound, exact ? "exact" : "usual",
      name(s_.rollout.dtype), exact ? "" : "--exact-rollouts makes them agree, ");
}

void RlStage::say_nothing_to_learn(int64_t step, double reward, bool checked) {
  if (silent_steps_ % kSilenceBetween != kSilenceBefore) return;
  log_warn(
      "step {}: within every group all rewards are equal (mean {:.2f}), so there is nothing to "
      "learn from; {}",
      step + 1, reward,
      !checked                            ? "the task's checker fails"
      : reward > 0.5 * s_.reward.accuracy ? "try harder levels of the task"
                                          : "try easier levels, or more --samples");
}

std::string RlStage::status() const {
  std::string greedy;
  if (evaluation_.items > 0) greedy = fmt::format("  greedy {:.2f}", evaluation_.greedy.accuracy);
  std::string failed;
  if (checker_failures_ > 0) failed = fmt::format("  not checked {}", checker_failures_);
  return fmt::format("  reward {:.2f}{}  length {:.1f}  long {:.2f}{}", reward_, greedy, length_,
                     long_share_, failed);
}

double RlStage::validate(Trainer&, StepMetrics* m, bool averaged) {
  TaskEvaluation e = evaluate_tasks(sampler_, curriculum_.all(), s_.evaluation);
  std::string suffix = averaged ? "_ema" : "";
  if (m) {
    m->add("accuracy_greedy" + suffix, e.greedy.accuracy);
    m->add("length_greedy" + suffix, e.greedy.length_mean);
    m->add("long_share_greedy" + suffix, e.greedy.long_share);
    if (e.parts.size() > 1) {
      for (const auto& p : e.parts) {
        m->add("accuracy_greedy_" + p.name + suffix, p.greedy);
        m->add("length_greedy_" + p.name + suffix, p.length_mean);
      }
    }
  }
  checker_failures_ += e.checker_failures;
  double value = 1 - e.greedy.accuracy;
  if (!averaged) evaluation_ = std::move(e);
  return value;
}

// --- resuming ---

StateTensors RlStage::state() {
  StateTensors out;
  for (Weight* w : reference_) {
    for (size_t e = 0; e < w->value.size(); ++e) {
      std::string name = tensor_name(w->name, static_cast<int64_t>(e));
      out.emplace_back("reference." + name, w->value[e]);
    }
  }
  return out;
}

json RlStage::counters() const {
  return {{"next_item", next_item_},
          {"task_files", task_files_},
          {"eval_items", s_.evaluation.items},
          {"silent_steps", silent_steps_},
          {"sampled_tokens", sampled_tokens_},
          {"checker_failures", checker_failures_},
          {"curriculum", curriculum_.counters()},
          {"guard", guard_.counters()}};
}

void RlStage::restore(const json& j) {
  if (j.value("task_files", task_files_) != task_files_)  // older runs don't say
    throw Error(s_.tasks, "holds other questions than when the run was started",
                "put the file back to resume, or give another --out for a new run");
  if (auto then = j.value("eval_items", s_.evaluation.items); then != s_.evaluation.items)
    throw Error("--eval-items",
                fmt::format("the run was started with {}, not {}", then, s_.evaluation.items),
                "give the same to resume, or another --out for a new run");
  next_item_ = j.at("next_item").get<int64_t>();
  silent_steps_ = j.at("silent_steps").get<int64_t>();
  sampled_tokens_ = j.value("sampled_tokens", int64_t{0});
  checker_failures_ = j.value("checker_failures", int64_t{0});
  curriculum_.restore(j.at("curriculum"));
  guard_.restore(j.at("guard"));
  for (Weight* w : reference_) ++w->version;  // their values were read in place
}

}  // namespace wels
