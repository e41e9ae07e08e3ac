// Which examples the large model learns from, as the small one sees them (SALT, arXiv 2410.18779:
// "challenging yet learnable"), and answers found by exploration mixed in.
#pragma once
#include <memory>
#include <vector>

#include "data/examples.h"
#include "tasks/task.h"
#include "rl/rollout.h"
#include "train/sft_stage.h"

namespace wels {

// Some examples of another source, in ascending order of their numbers there.
class SelectedExamples : public ExampleSource {
 public:
  SelectedExamples(const ExampleSource& of, std::vector<int64_t> chosen)
      : of_(of), chosen_(std::move(chosen)) {}
  int64_t size() const override { return static_cast<int64_t>(chosen_.size()); }
  TrainingTokens example(int64_t i) const override {
    return of_.example(chosen_[static_cast<size_t>(i)]);
  }
  uint64_t hash() const override;

 private:
  const ExampleSource& of_;
  std::vector<int64_t> chosen_;
};

// Two sources with a share of the second, drawn by the example's number.
class MixedExamples : public ExampleSource {
 public:
  // more may be empty: then there is none of it.
  MixedExamples(const ExampleSource& most, const ExampleSource& more, double share, uint64_t seed)
      : most_(most), more_(more), share_(more.size() == 0 ? 0 : share), seed_(seed) {}
  int64_t size() const override { return -1; }
  TrainingTokens example(int64_t i) const override;
  uint64_t hash() const override;

 private:
  const ExampleSource& most_;
  const ExampleSource& more_;
  double share_;
  uint64_t seed_;
};

// Mean nats per learned token that the model loses on examples [first, first + count) of a source.
std::vector<double> example_losses(Device& dev, Model& model, const ExampleSource& source,
                                   int64_t first, int64_t count, const SftSettings& settings);

// Numbers first + i of the losses between two quantiles (0.4 and 0.9: neither known nor noise).
std::vector<int64_t> between_quantiles(const std::vector<double>& losses, int64_t first, double low,
                                       double high);

struct ExploreSettings {
  int64_t questions = 64;
  int64_t tries = 16, large_tries = 4;
  uint64_t seed = 1;
};
struct Explored {
  StoredExamples examples;  // right answers of the small one to what the large one cannot answer
  int64_t hard = 0;         // questions that the large one got wrong large_tries times
  int64_t found = 0;        // of these, answered by the small one
  std::vector<int64_t> solved;                 // their numbers among the questions
  int64_t small_tokens = 0, large_tokens = 0;  // computed, prompts included
};
// Verified exploration: the small model answers `tries` times what the large one got wrong, and the
// task's checker keeps what is right.
Explored explore(RolloutSampler& small, RolloutSampler& large, const TaskMixture& tasks,
                 const ExploreSettings& settings);

}  // namespace wels
