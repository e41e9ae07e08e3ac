#include "distill/budget_stage.h"

#include <fmt/format.h>

#include <algorithm>

namespace wels {

StageStep BudgetStage::step(Trainer& trainer, const TrainerState& state, double lr,
                            StepMetrics& m) {
  if (spent_ >= budget_) {
    StageStep none;
    none.nothing_to_learn = none.enough = true;
    none.stats.loss = {0};
    return none;
  }
  StageStep done = inner_.step(trainer, state, lr, m);
  double cost = cost_(done, m);
  spent_ += cost;
  m.add("flops_spent", spent_);
  done.enough = cost <= 0;  // a stage that costs nothing would never end
  return done;
}

std::string BudgetStage::status() const {
  return fmt::format("{}  {:.0f} % of the allowance", inner_.status(),
                     100 * std::min(1.0, spent_ / budget_));
}

void BudgetStage::restore(const nlohmann::json& counters) {
  spent_ = counters.at("spent").get<double>();
  if (!counters.at("inner").empty()) inner_.restore(counters.at("inner"));
}

}  // namespace wels
