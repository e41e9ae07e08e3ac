// How good a model is at tasks: greedy answers, and several sampled ones. `wels eval --task` and
// reinforcement learning ask the same function.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "rl/rollout.h"
#include "tasks/task.h"

namespace wels {

struct EvaluationSettings {
  int64_t items = 128;
  int64_t samples = 0;  // of each item besides the greedy answer; 0: none
  double temperature = 1;
  uint64_t seed = 1;
  TaskSplit split = TaskSplit::kHeldOut;  // kAll: files only
  bool keep_answers = false;              // in TaskEvaluation::answers
};

// Of a set of completions. An answer is right where its score is 1.
struct AnswerStats {
  int64_t completions = 0;
  double accuracy = 0;                     // mean score
  double length_mean = 0, length_p95 = 0;  // tokens
  double long_share = 0;                   // with a thought that is not empty
  double ended = 0, formed = 0;            // shares
  // Of thoughts that are not empty: the mean share of words in English or Chinese, whichever there
  // is more of (R1's readability; language_consistency). 1 without such thoughts.
  double one_language = 1;
};

struct TaskEvaluation {
  int64_t items = 0;
  AnswerStats greedy;    // pass@1
  AnswerStats sampled;   // without completions where none were asked for
  double pass_at_k = 0;  // share of the items with a right answer among the sampled ones
  // Mean scores of one of the sampled answers, chosen without knowing what is right (rl/voting.h).
  double majority = 0, likeliest = 0;
  struct Part {
    std::string name;  // part_names
    int64_t items = 0;
    double greedy = 0, sampled = 0, pass_at_k = 0, length_mean = 0;  // length: of greedy answers
  };
  std::vector<Part> parts;  // where the mixture has several tasks, each; else one
  struct Answer {
    std::string text;  // with the thought, as written
    double score = 0;
  };
  struct Answers {  // to an item
    std::string task, question;
    Answer greedy;
    std::vector<Answer> sampled;
  };
  std::vector<Answers> answers;  // of the items in order, with keep_answers
  int64_t checker_failures = 0;  // answers that count as wrong since their checker failed
  std::string example;           // a question with the model's greedy completion, for people
};

// What the parts of a mixture are called in measurements: by their tasks ("parity"), with levels
// where several parts are of one task ("parity:3", "parity:4-6"), numbered where that is not
// enough.
std::vector<std::string> part_names(const TaskMixture& tasks);
// Which part of the mixture an item was drawn from; parts().size(): of another mixture.
size_t part_of(const TaskMixture& tasks, const TaskMixture::Item& item);
// Answers so far whose checker failed.
int64_t checker_failures(const TaskMixture& tasks);

// Stats of completions with these scores.
AnswerStats answer_stats(std::span<const Rollout> rollouts, std::span<const double> scores);
// The q-quantile (0 to 1) by rank; 0 where there are no values.
double quantile(std::vector<double> values, double q);

// The questions that are asked: items 0..n-1 of the split under the seed, or, of kAll, every
// question once whatever `items` says. Throws Error as TaskMixture does.
std::vector<TaskMixture::Item> evaluation_items(const TaskMixture& tasks,
                                                const EvaluationSettings& settings);

// Answers to the evaluation's items. Throws Error as TaskMixture::item and
// RolloutSampler do.
TaskEvaluation evaluate_tasks(RolloutSampler& sampler, const TaskMixture& tasks,
                              const EvaluationSettings& settings);

}  // namespace wels
