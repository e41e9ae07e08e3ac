#include "distill/colearn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/signal.h"
#include "distill/budget_stage.h"
#include "distill/colearn_state.h"
#include "distill/pair_evaluation.h"
#include "formats/json.h"
#include "model/checkpoint.h"
#include "rl/rl_stage.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr int64_t kMostSteps = 1'000'000;       // the allowance ends a phase before
constexpr const char* kCollapsed = "training";  // of the errors of rl/collapse.h
constexpr const char* kPhases[] = {"A", "B", "C-small", "C-large"};

double forward_flops(Model& m) { return training_flops_per_token(m.config()) / 3; }

// One run from start or state.json to end.
class Colearn {
 public:
  Colearn(Device& dev, const std::string (&models)[2], const Tokenizer& tokenizer,
          const std::map<std::string, std::string>& files, const ExampleSource& train,
          const ExampleSource& held_out, const ColearnSettings& s)
      : dev_(dev),
        tokenizer_(tokenizer),
        files_(files),
        train_(train),
        held_out_(held_out),
        s_(s),
        tasks_(s.tasks),
        lambda_(s.lambda),
        weight_scale_(1) {
    for (int i : {kSmall, kLarge}) out_.model[i] = models[i];
    settings_ = settings_json(s, models, train.hash());
    make_folder(s.out);
    resume();
  }

  ColearnResult go(const std::function<void(const ColearnResult&)>& report) {
    StopSignal stop;  // a phase's own forgets at its end
    try {
      out_.stopped = !all_phases(report);
    } catch (const Interrupted&) {  // an evaluation, or the exploration before a phase
      out_.stopped = true;
    }
    return out_;
  }

 private:
  // false: stopped.
  bool all_phases(const std::function<void(const ColearnResult&)>& report) {
    if (!begun_) {
      out_.before = evaluate();
      begun_ = true;
      save();
    }
    auto per_round = static_cast<int64_t>(std::size(kPhases));
    while (next_ < s_.rounds * per_round) {
      auto kind = static_cast<int>(next_ % per_round);
      bool runs = kind < 2 || s_.c;
      if (runs && (stop_requested() || !phase(next_ / per_round + 1, kind))) return false;
      ++next_;
      save();
      if (runs) report(out_);
    }
    return true;
  }

  void resume() {
    std::string path = s_.out + "/state.json";
    if (!std::filesystem::exists(path)) return;
    json j = parse_json(read_file(path), path);
    try {
      for (const auto& [key, value] : settings_.items()) {
        if (j.at("settings").at(key) != value)
          throw Error(s_.out,
                      fmt::format("was started with {} {}, not {}", key, j["settings"][key].dump(),
                                  value.dump()),
                      "give the same settings to resume, or another --out for a new run");
      }
      next_ = j.at("next").get<int64_t>();
      lambda_ = j.at("lambda").get<double>();
      weight_scale_ = j.at("weight_scale").get<double>();
      out_.before = evaluation_of(j.at("before"));
      for (const json& p : j.at("phases")) out_.phases.push_back(phase_of(p));
      for (int i : {kSmall, kLarge}) {
        out_.model[i] = j.at("model").at(static_cast<size_t>(i)).get<std::string>();
        out_.flops[i] = j.at("flops").at(static_cast<size_t>(i)).get<double>();
      }
    } catch (const json::exception& e) {
      throw Error(path, fmt::format("is not the state of such a run ({})", e.what()),
                  "give another --out");
    }
    begun_ = true;
    log_info("resuming after {} phases", out_.phases.size());
  }

  void save() const {
    json j = {{"settings", settings_},
              {"next", next_},
              {"lambda", lambda_},
              {"weight_scale", weight_scale_},
              {"before", to_json(out_.before)},
              {"model", {out_.model[0], out_.model[1]}},
              {"flops", {out_.flops[0], out_.flops[1]}},
              {"phases", json::array()}};
    for (const ColearnPhase& p : out_.phases) j["phases"].push_back(to_json(p));
    write_file_atomic(s_.out + "/state.json", j.dump(1) + "\n");
  }

  PairEvaluation evaluate() const {
    auto small = load_model(out_.model[kSmall], WeightStorage::kMapped),
         large = load_model(out_.model[kLarge], WeightStorage::kMapped);
    return evaluate_pair(dev_, *small, *large, tokenizer_, tasks_, held_out_, s_);
  }

  const PairEvaluation& last() const {
    return out_.phases.empty() ? out_.before : out_.phases.back().after;
  }

  // B1's weight in a round: from w to 0, one step a round.
  double weight(int64_t round) const {
    double left = s_.rounds > 1
                      ? static_cast<double>(s_.rounds - round) / static_cast<double>(s_.rounds - 1)
                      : 1;
    return s_.w * weight_scale_ * left;
  }

  // false: stopped.
  bool phase(int64_t round, int kind) {
    double t0 = monotonic_seconds();
    ColearnPhase p;
    p.round = round;
    p.name = kPhases[kind];
    p.large = kind % 2 == 1;
    p.lambda = lambda_;
    p.w = weight(round);
    int who = p.large ? kLarge : kSmall;
    std::string folder = fmt::format("{}/round-{:02}-{}", s_.out, round, p.name);
    log_info("round {} of {}, phase {}: the {} model learns", round, s_.rounds, p.name,
             p.large ? "large" : "small");
    std::string checkpoint = kind == 0   ? learn_small(p, folder)
                             : kind == 1 ? learn_large(p, folder)
                                         : learn_tasks(p, folder);
    if (checkpoint.empty()) return false;
    std::string before_path = std::exchange(out_.model[who], checkpoint);
    PairEvaluation before = last();
    try {
      p.after = p.trouble.empty() ? evaluate() : before;
    } catch (const Interrupted&) {
      out_.model[who] = before_path;  // the phase is none until it is evaluated
      throw;
    }
    gate(p, before, who, before_path);
    p.seconds = monotonic_seconds() - t0;
    out_.flops[who] += p.flops;
    out_.phases.push_back(p);
    return true;
  }

  // Worse by more than a standard error: as if the phase had not been, but for what it cost.
  void gate(ColearnPhase& p, const PairEvaluation& before, int who, const std::string& path) {
    double was = before.accuracy[who], is = p.after.accuracy[who];
    if (p.trouble.empty() && !is_worse(was, is, before.items)) return;
    p.kept = false;
    p.after = before;
    out_.model[who] = path;
    if (p.name == "A") lambda_ /= 2;
    if (p.name == "B") weight_scale_ /= 2;
    if (!p.trouble.empty())
      return log_warn("{}: the model of before phase {} goes on", p.trouble, p.name);
    log_warn("accuracy fell from {:.3f} to {:.3f}: the model of before phase {} goes on", was, is,
             p.name);
  }

  double budget(bool of_tasks) const {
    double share = s_.c ? s_.rl_share : 0;
    return s_.round_flops * (of_tasks ? share : 1 - share);
  }

  SftSettings stage_settings(const ColearnPhase& p, const std::string& folder, double lr) const {
    SftSettings out = s_.sft;
    out.out = folder;
    out.seed = phase_seed(p);
    out.schedule = {};
    out.schedule.peak = lr;
    out.schedule.steps = kMostSteps;
    out.schedule.warmup = 5;
    out.schedule.stable = 1;
    out.keep = 1;
    out.sample_every = 0;
    return out;
  }

  struct Trainee {
    std::unique_ptr<Model> model;
    std::string run(Device& dev, const std::map<std::string, std::string>& files,
                    const StageSettings& settings, BudgetStage& stage) {
      StageResult r = run_stage(
          {.dev = dev, .model = *model, .parts = whole_model(*model, files), .report = {}},
          settings, stage);
      return r.stopped ? "" : r.checkpoint;
    }
  };

  Trainee trainee(int who, bool without_mtp) const {
    Trainee t{load_model(out_.model[who], WeightStorage::kF32)};
    t.model->make_gradients();
    if (without_mtp) freeze_mtp(*t.model);
    return t;
  }

  // Steps of any supervised stage of ours, by their rows and what else they say they cost.
  BudgetStage::Cost supervised_cost(Model& model) const {
    double per_token = training_flops_per_token(model.config());
    return [per_token](const StageStep& step, const StepMetrics& m) {
      double said = m.scalar("flops");
      return std::isnan(said) ? static_cast<double>(step.tokens) * per_token : said;
    };
  }

  std::string learn_small(ColearnPhase& p, const std::string& folder) {
    SftSettings s = stage_settings(p, folder, s_.lr_small);
    Trainee t = trainee(kSmall, false);
    std::unique_ptr<SftStage> stage;
    std::unique_ptr<Model> large;
    std::optional<Teacher> teacher;
    std::optional<RolloutSampler> sampler;
    if (s_.a) {
      large = load_model(out_.model[kLarge], WeightStorage::kMapped);
      teacher.emplace(dev_, *large, TeacherSettings{.dtype = s.trainer.dtype});
      if (lambda_ > 0) sampler.emplace(dev_, *t.model, tokenizer_, s_.rollout);
      DistillSettings d{.ce = s_.alpha, .kl = 1 - s_.alpha, .own = lambda_};
      d.evaluation = {.items = std::min<int64_t>(s_.eval_items, 64), .seed = s.seed};
      stage = std::make_unique<DistillStage>(dev_, *t.model, *teacher, train_, held_out_, s, d,
                                             &tasks_, sampler ? &*sampler : nullptr, nullptr);
    } else {
      stage = std::make_unique<SftStage>(dev_, *t.model, train_, held_out_, s, nullptr);
    }
    BudgetStage limited(*stage, supervised_cost(*t.model), budget(false), 0);
    std::string checkpoint = t.run(dev_, files_, s, limited);
    p.flops = limited.spent();
    return checkpoint;
  }

  std::string learn_large(ColearnPhase& p, const std::string& folder) {
    SftSettings s = stage_settings(p, folder, s_.lr_large);
    auto small = load_model(out_.model[kSmall], WeightStorage::kMapped);
    double spent = 0;
    Explored found;
    if (s_.b3) {
      auto large = load_model(out_.model[kLarge], WeightStorage::kMapped);
      RolloutSampler by_small(dev_, *small, tokenizer_, s_.rollout),
          by_large(dev_, *large, tokenizer_, s_.rollout);
      ExploreSettings e = s_.explore;
      e.seed = s.seed;
      found = explore(by_small, by_large, tasks_, e);
      spent += static_cast<double>(found.small_tokens) * forward_flops(*small) +
               static_cast<double>(found.large_tokens) * forward_flops(*large);
      p.explored = found.found;
      p.solved = found.solved;
    }
    std::vector<int64_t> chosen;
    if (s_.b2) {
      int64_t first = train_.size() < 0 ? (p.round - 1) * s_.pool : 0;
      int64_t count = train_.size() < 0 ? s_.pool : std::min(train_.size(), s_.pool);
      std::vector<double> losses = example_losses(dev_, *small, train_, first, count, s);
      chosen = between_quantiles(losses, first, s_.keep_low, s_.keep_high);
      int64_t tokens = 0;
      for (int64_t i = first; i < first + count; ++i) tokens += train_.example(i).size() - 1;
      spent += static_cast<double>(tokens) * forward_flops(*small);
    }
    SelectedExamples selected(train_, chosen);
    const ExampleSource& gold = s_.b2 ? static_cast<const ExampleSource&>(selected) : train_;
    MixedExamples mixed(gold, found.examples, s_.replay, s.seed);
    const ExampleSource& source = s_.b3 ? static_cast<const ExampleSource&>(mixed) : gold;

    Trainee t = trainee(kLarge, false);
    Teacher teacher(dev_, *small, {.dtype = s.trainer.dtype});
    std::unique_ptr<SftStage> stage;
    if (s_.b1 && p.w > 0) {
      DistillSettings d{.ce = 1, .kl = p.w, .gated = true};
      stage = std::make_unique<DistillStage>(dev_, *t.model, teacher, source, held_out_, s, d,
                                             nullptr, nullptr, nullptr);
    } else {
      stage = std::make_unique<SftStage>(dev_, *t.model, source, held_out_, s, nullptr);
    }
    BudgetStage limited(*stage, supervised_cost(*t.model), budget(false), spent);
    std::string checkpoint = t.run(dev_, files_, s, limited);
    p.flops = limited.spent();
    return checkpoint;
  }

  std::string learn_tasks(ColearnPhase& p, const std::string& folder) {
    int who = p.large ? kLarge : kSmall;
    SftSettings s = stage_settings(p, folder, s_.lr_rl);
    s.trainer.optimizer.weight_decay = 0;
    s.trainer.balance_alpha = s.trainer.bias_update = 0;
    Trainee t = trainee(who, true);
    auto start = load_model(out_.model[who], WeightStorage::kMapped);
    RlSettings r;
    r.tasks = s_.tasks;
    r.algorithm = rl_algorithm("grpo");
    r.rollout = s_.rollout;
    r.groups = s_.rl_groups;
    r.samples = s_.rl_samples;
    r.micro_batch_tokens = s.micro_batch_tokens;
    r.evaluation = {.items = std::min<int64_t>(s_.eval_items, 64), .seed = s.seed};
    r.seed = s.seed;
    if (p.large) favour_solved(p, r);
    RlStage stage(dev_, *t.model, *start, tokenizer_, r, s.trainer);
    double per_token = training_flops_per_token(t.model->config()),
           answers = static_cast<double>(s_.rl_groups * s_.rl_samples);
    BudgetStage limited(
        stage,
        [=](const StageStep& step, const StepMetrics& m) {
          return static_cast<double>(step.tokens) * per_token +
                 answers * m.scalar("length_mean") * per_token / 3;
        },
        budget(true), 0);
    std::string checkpoint;
    try {
      checkpoint = t.run(dev_, files_, s, limited);
    } catch (const Error& e) {
      if (e.where() != kCollapsed) throw;
      p.trouble = e.fact();
      checkpoint = out_.model[who];
    }
    p.flops = limited.spent();
    return checkpoint;
  }

  // What the small one answered and the large one could not, in this round's B.
  void favour_solved(const ColearnPhase& p, RlSettings& r) const {
    for (const ColearnPhase& b : out_.phases) {
      if (b.round != p.round || b.name != "B" || b.solved.empty()) continue;
      uint64_t seed = phase_seed(b);
      for (int64_t i : b.solved) r.favoured.push_back(tasks_.item(seed, i, TaskSplit::kTrain));
      r.favoured_share =
          favoured_share(static_cast<int64_t>(b.solved.size()), s_.explore.questions, s_.favour);
    }
  }

  uint64_t phase_seed(const ColearnPhase& p) const {
    return Rng(s_.sft.seed, hash_name(p.name), 2 * static_cast<uint64_t>(p.round)).next_u64() >> 1;
  }

  Device& dev_;
  const Tokenizer& tokenizer_;
  const std::map<std::string, std::string>& files_;
  const ExampleSource& train_;
  const ExampleSource& held_out_;
  const ColearnSettings& s_;
  TaskMixture tasks_;
  json settings_;
  ColearnResult out_;
  int64_t next_ = 0;
  double lambda_, weight_scale_;
  bool begun_ = false;
};

}  // namespace

bool is_worse(double was, double is, int64_t items) {
  double error =
      std::sqrt(std::max(was * (1 - was), 1e-4) / static_cast<double>(std::max<int64_t>(items, 1)));
  return is < was - error;
}

double favoured_share(int64_t found, int64_t asked, double favour) {
  if (found <= 0 || asked <= 0 || favour <= 1) return 0;
  double more = (favour - 1) * static_cast<double>(found) / static_cast<double>(asked);
  return more / (1 + more);
}

ColearnResult colearn(Device& dev, const std::string (&models)[2], const Tokenizer& tokenizer,
                      const std::map<std::string, std::string>& files, const ExampleSource& train,
                      const ExampleSource& held_out, const ColearnSettings& settings,
                      const std::function<void(const ColearnResult&)>& report) {
  return Colearn(dev, models, tokenizer, files, train, held_out, settings).go(report);
}

}  // namespace wels
