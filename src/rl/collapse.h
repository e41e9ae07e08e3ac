// Notices a policy that has stopped being one: no reward for long, entropy gone while nothing is
// right, or answers that repeat themselves up to the limit ("everything becomes !!!!",
// TinyZero#63).
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "base/error.h"

namespace wels {

// Whether the end of a text is one short pattern over and over.
bool is_repetitive(std::span<const int32_t> tokens);

class CollapseGuard {
 public:
  struct Step {
    int64_t step = 0;
    double best_score = 0;  // of all completions of the step
    bool checked = true;    // most answers were: else a best score of 0 says nothing
    double entropy = 0;     // nats per token
    double repetitive = 0;  // share of the completions that repeat themselves up to the limit
  };
  // An Error("training", ...) where a collapse has lasted.
  std::optional<Error> observe(const Step& s);
  // Steps in a row, up to the last one, that a collapse may consist of.
  int64_t doubtful_steps() const;
  nlohmann::json counters() const;
  void restore(const nlohmann::json& j);

 private:
  int64_t without_reward_ = 0, dead_ = 0, repeating_ = 0;  // steps in a row
};

}  // namespace wels
