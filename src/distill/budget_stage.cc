#include "distill/budget_stage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace wels {

StageStep BudgetStage::step(Trainer& trainer, const TrainerState& state, double lr,
                            StepMetrics& m) {
  if (spent_ >= budget_) {
    StageStep none;
    none.nothing_to_learn = true;
    none.stats.loss = {0};
    return none;
  }
  StageStep done = inner_.step(trainer, state, lr, m);
  cost_of_step_ = cost_(done, m);
  spent_ += cost_of_step_;
  m.add("flops_spent", spent_);
  return done;
}

int64_t BudgetStage::steps_left() const {
  if (spent_ >= budget_ || cost_of_step_ <= 0) return 0;  // what costs nothing would never end
  if (std::isnan(cost_of_step_)) return -1;
  return static_cast<int64_t>(std::ceil((budget_ - spent_) / cost_of_step_));
}

std::string BudgetStage::status() const {
  return fmt::format("{}  {:.0f} % of the allowance", inner_.status(),
                     100 * std::min(1.0, spent_ / budget_));
}

nlohmann::json BudgetStage::counters() const {
  nlohmann::json out = {{"spent", spent_}, {"inner", inner_.counters()}};
  if (!std::isnan(cost_of_step_)) out["cost_of_step"] = cost_of_step_;
  return out;
}

void BudgetStage::restore(const nlohmann::json& counters) {
  spent_ = counters.at("spent").get<double>();
  if (counters.contains("cost_of_step"))  // older runs don't say
    cost_of_step_ = counters["cost_of_step"].get<double>();
  if (!counters.at("inner").empty()) inner_.restore(counters.at("inner"));
}

}  // namespace wels
