// A stage with an allowance of floating-point operations instead of a number of steps: what arms of
// a comparison are matched by. All steps are the inner stage's, and the one that spends the last of
// it ends the run; where nothing was left before the first, that one does nothing.
#pragma once
#include <functional>
#include <limits>

#include "train/stage.h"

namespace wels {

class BudgetStage : public Stage {
 public:
  // cost: operations of a step that was made, from what it said of itself. spent: what was used
  // before the first step.
  using Cost = std::function<double(const StageStep& step, const StepMetrics& m)>;
  BudgetStage(Stage& inner, Cost cost, double budget, double spent)
      : inner_(inner), cost_(std::move(cost)), budget_(budget), spent_(spent) {}

  nlohmann::json settings() const override {
    nlohmann::json out = inner_.settings();
    out["flops_budget"] = budget_;
    return out;
  }
  StageStep step(Trainer& trainer, const TrainerState& state, double lr, StepMetrics& m) override;
  double validate(Trainer& trainer, StepMetrics* m, bool averaged) override {
    return inner_.validate(trainer, m, averaged);
  }
  std::string sample() override { return inner_.sample(); }
  std::string status() const override;
  StateTensors state() override { return inner_.state(); }
  nlohmann::json counters() const override;
  void restore(const nlohmann::json& counters) override;
  void rehearse(Trainer& trainer) override { inner_.rehearse(trainer); }
  bool rate_is_of_training() const override { return inner_.rate_is_of_training(); }
  int64_t doubtful_steps() const override { return inner_.doubtful_steps(); }
  int64_t steps_left() const override;

  double spent() const { return spent_; }

 private:
  Stage& inner_;
  Cost cost_;
  double budget_, spent_;
  double cost_of_step_ = std::numeric_limits<double>::quiet_NaN();  // the last; NaN: none yet
};

}  // namespace wels
