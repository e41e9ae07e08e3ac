#include "distill/distill_stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "rl/rl_stage.h"
#include "rl/update.h"

namespace wels {
namespace {

constexpr uint64_t kKindStream = hash_name("distill kind"), kOwnStream = hash_name("distill own");

int64_t targets_in(std::span<const MicroBatch> batch) {
  int64_t n = 0;
  for (const MicroBatch& mb : batch)
    n += std::count_if(mb.targets.begin(), mb.targets.end(), [](int32_t t) { return t >= 0; });
  return n;
}

// Forward, backward and update of the student and the teacher's forward over `rows`.
double learning_flops(const ModelConfig& student, const ModelConfig& teacher, int64_t rows) {
  return static_cast<double>(rows) *
         (training_flops_per_token(student) + training_flops_per_token(teacher) / 3);
}

}  // namespace

DistillStage::DistillStage(Device& dev, Model& student, Teacher& teacher,
                           const ExampleSource& train, const ExampleSource& held_out,
                           const SftSettings& settings, const DistillSettings& distill,
                           const TaskMixture* tasks, RolloutSampler* sampler,
                           std::function<std::string()> sample)
    : SftStage(dev, student, train, held_out, settings, std::move(sample)),
      teacher_(teacher),
      d_(distill),
      tasks_(tasks),
      sampler_(sampler) {
  CHECK(d_.own == 0 || (tasks && sampler));
  if (d_.own > 0) freeze_mtp(student);
}

nlohmann::json DistillStage::settings() const {
  nlohmann::json out = SftStage::settings();
  out.update({{"stage", "distill"},
              {"ce", d_.ce},
              {"kl", d_.kl},
              {"reverse", d_.reverse},
              {"gated", d_.gated},
              {"top_k", teacher_.settings().top_k},
              {"kl_temperature", teacher_.settings().temperature},
              {"own", d_.own},
              {"sampling_temperature", d_.sampling_temperature},
              {"tasks", tasks_ ? tasks_->spec() : ""},
              {"max_tokens", sampler_ ? sampler_->settings().max_tokens : 0},
              {"teacher", fmt::format("{:016x}", hash_of_weights(teacher_.model()))}});
  return out;
}

bool DistillStage::own_step(int64_t step) const {
  return Rng(s_.seed, kKindStream, 2 * static_cast<uint64_t>(step)).uniform() < d_.own;
}

// Cross-entropy's part as in SFT, times ce in the main head; the divergences' mean over the same
// tokens, times T² so that both keep their weight whatever T is (Hinton et al. 2015, section 2).
Objective DistillStage::objective(std::span<const MicroBatch> batch) {
  Objective plain = SftStage::objective(batch);
  double temperature = teacher_.settings().temperature,
         count = static_cast<double>(std::max<int64_t>(targets_in(batch), 1)),
         weight = d_.kl * temperature * temperature / count, ce = d_.ce;
  Objective o;
  auto known = [plain, ce](const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                           std::span<double> dlogp) {
    plain.known_dlogp(mb, depth, rows, dlogp);
    if (depth > 0) return;
    for (double& x : dlogp) x *= ce;
  };
  if (ce > 0) o.known_dlogp = known;
  o.loss = [known](const MicroBatch& mb, int depth, std::span<const int32_t> rows,
                   std::span<const double> logp, std::span<double> dlogp) {
    known(mb, depth, rows, dlogp);
    return std::inner_product(dlogp.begin(), dlogp.end(), logp.begin(), 0.0);
  };
  if (d_.own > 0) o.mtp_modules = 0;
  auto gold = std::make_shared<std::vector<double>>();
  o.lesson = [this, gold](const MicroBatch& mb) {
    Teacher::Said said = teacher_.say(mb, d_.reverse);
    *gold = std::move(said.gold_logp);
    return said.lesson;
  };
  o.kl_loss = [this, gold, weight](const MicroBatch& mb, std::span<const double> logp,
                                   std::span<const double> kl, std::span<double> dkl) {
    double sum = 0;
    for (size_t i = 0; i < dkl.size(); ++i) {
      if (mb.targets[i] < 0) continue;
      kl_sum_ += kl[i];
      kl_tokens_ += 1;
      if (d_.gated && (*gold)[i] <= logp[i]) continue;
      gate_open_ += 1;
      dkl[i] = weight;
      sum += weight * kl[i];
    }
    return sum;
  };
  return o;
}

StageStep DistillStage::step(Trainer& trainer, const TrainerState& state, double lr,
                             StepMetrics& m) {
  kl_sum_ = kl_tokens_ = gate_open_ = 0;
  StageStep done;
  if (own_step(state.step)) {
    done = learn_own(trainer, state, lr, m);
  } else {
    done = SftStage::step(trainer, state, lr, m);
    step_flops_ = learning_flops(model_.config(), teacher_.model().config(), done.tokens);
  }
  double tokens = std::max(kl_tokens_, 1.0);
  last_kl_ = kl_sum_ / tokens;
  done.loss = last_kl_;
  m.add("teacher_kl", last_kl_);
  if (d_.gated) m.add("gate_open", gate_open_ / tokens);
  m.add("flops", step_flops_);
  return done;
}

StageStep DistillStage::learn_own(Trainer& trainer, const TrainerState& state, double lr,
                                  StepMetrics& m) {
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < s_.batch; ++i) {
    TaskMixture::Item item = tasks_->item(s_.seed, state.sequences + i, TaskSplit::kTrain);
    prompts.push_back(sampler_->prompt(item.example.question));
  }
  auto luck = [&](int64_t prompt, int64_t) {
    return Rng(s_.seed, kOwnStream, 2 * static_cast<uint64_t>(state.sequences + prompt)).next_u64();
  };
  std::vector<Rollout> said = sampler_->sample(
      {.prompts = prompts, .samples = 1, .temperature = d_.sampling_temperature, .seed = luck});
  std::vector<TrainSequence> sequences;
  std::vector<size_t> chosen;
  for (size_t i = 0; i < said.size(); ++i) {
    sequences.push_back({.prompt = prompts[i], .tokens = said[i].tokens, .sampled_logp = {}});
    if (!said[i].tokens.empty()) chosen.push_back(i);
  }
  PackedSequences packed = pack_sequences(sequences, chosen, s_.micro_batch_tokens);
  double weight = 1.0 / static_cast<double>(std::max<int64_t>(targets_in(packed.micro_batches), 1));
  Objective o;
  o.mtp_modules = 0;
  o.loss = [](const MicroBatch&, int, std::span<const int32_t>, std::span<const double>,
              std::span<double>) { return 0.0; };
  o.lesson = [this](const MicroBatch& mb) { return teacher_.say(mb, true).lesson; };
  o.kl_loss = [this, weight](const MicroBatch& mb, std::span<const double>,
                             std::span<const double> kl, std::span<double> dkl) {
    double sum = 0;
    for (size_t i = 0; i < dkl.size(); ++i) {
      if (mb.targets[i] < 0) continue;
      dkl[i] = weight;
      sum += kl[i];
    }
    kl_sum_ += sum;
    kl_tokens_ += static_cast<double>(targets_in({&mb, 1}));
    return weight * sum;
  };
  StageStep done;
  done.sequences = s_.batch;
  done.tokens = packed.rows;
  done.stats = trainer.step(packed.micro_batches, o, lr);
  step_flops_ =
      learning_flops(model_.config(), teacher_.model().config(), packed.rows) +
      static_cast<double>(sampler_->drawn_tokens()) * training_flops_per_token(model_.config()) / 3;
  double length = static_cast<double>(sampler_->timing().new_tokens) /
                  static_cast<double>(std::max<size_t>(said.size(), 1));
  m.add("own_length", length);
  return done;
}

double DistillStage::validate(Trainer& trainer, StepMetrics* m, bool averaged) {
  double loss = SftStage::validate(trainer, m, averaged);
  if (d_.own == 0 || averaged) return loss;
  tasks_evaluation_ = evaluate_tasks(*sampler_, *tasks_, d_.evaluation);
  if (m) {
    m->add("greedy_accuracy", tasks_evaluation_.greedy.accuracy);
    m->add("length_mean", tasks_evaluation_.greedy.length_mean);
  }
  return 1 - tasks_evaluation_.greedy.accuracy;
}

std::string DistillStage::status() const {
  std::string out = SftStage::status();
  if (d_.own > 0) out += fmt::format("  accuracy {:.3f}", tasks_evaluation_.greedy.accuracy);
  return out;
}

}  // namespace wels
