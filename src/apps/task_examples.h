// Generated tasks as training examples, in the form of a base model for R1-Zero: most answers come
// at once, some after a written chain (recipe: arXiv 2510.11495).
#pragma once
#include <string>

#include "data/examples.h"
#include "tasks/task.h"
#include "text/tokenizer.h"

namespace wels {

// Example i of a mixture as a question to a model that is to think: with probability p_cot the
// chain is the thought (with_patience(p_stop)), else the thought is empty; where the task knows no
// chain it is always empty.
class TaskExamples : public ExampleSource {
 public:
  // mixture must outlive this. The tokenizer is copied (cheap).
  TaskExamples(const TaskMixture& mixture, const Tokenizer& tokenizer,
               std::optional<ChatTemplate> chat_template, double p_cot, double p_stop,
               uint64_t seed, TaskSplit split)
      : mixture_(mixture),
        tokenizer_(tokenizer),
        chat_template_(chat_template),
        p_cot_(p_cot),
        p_stop_(p_stop),
        seed_(seed),
        split_(split) {}

  int64_t size() const override { return -1; }
  TrainingTokens example(int64_t i) const override;
  uint64_t hash() const override;

 private:
  const TaskMixture& mixture_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  double p_cot_, p_stop_;
  uint64_t seed_;
  TaskSplit split_;
};

// What the first `count` training examples say, chains included, to learn a vocabulary from.
std::vector<std::string> task_texts(const TaskMixture& mixture, uint64_t seed, int64_t count);

}  // namespace wels
