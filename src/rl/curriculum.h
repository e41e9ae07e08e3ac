// Curriculum: a mixture whose levels begin at the lowest and climb to the full range, a rung at a
// time, whenever the model gets most of what it is asked right.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "tasks/task.h"

namespace wels {

// The spec with every task's range of levels ended at the share rung / (rungs - 1) of it.
std::string narrowed_spec(const TaskMixture& tasks, int rung, int rungs);

class Curriculum {
 public:
  // climbs: false: the whole range from the start.
  Curriculum(std::string spec, bool climbs);

  const TaskMixture& tasks() const { return *now_; }
  const TaskMixture& all() const { return all_; }
  int rung() const { return rung_; }
  int rungs() const { return rungs_; }
  // After a step: the share that was right.
  void observe(double accuracy);
  nlohmann::json counters() const;
  void restore(const nlohmann::json& j);

 private:
  void set_rung(int rung);
  TaskMixture all_;
  std::unique_ptr<TaskMixture> now_;
  int rung_ = 0, rungs_ = 1;
  double average_ = 0;  // of accuracy, over about five steps, since the rung began
};

}  // namespace wels
