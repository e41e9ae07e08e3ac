#include "apps/task_examples.h"

#include <fmt/format.h>

#include "base/rng.h"
#include "base/threads.h"
#include "data/hash.h"
#include "tasks/answer.h"

namespace wels {

TrainingTokens TaskExamples::example(int64_t i) const {
  TaskExample e = mixture_.item(seed_, i, split_).example;
  // Two 32-bit words make one number in [0, 1).
  double draw = Rng(seed_, hash_name("sft.p_cot"), 2 * static_cast<uint64_t>(i)).uniform();
  if (draw >= p_cot_) e.chain.clear();
  Rng rng(seed_, hash_name("sft.p_stop") + static_cast<uint64_t>(i));
  e = with_patience(std::move(e), p_stop_, rng);
  ChatMessage question, answer;
  question.role = "user";
  question.content = e.question;
  answer.role = "assistant";
  answer.content = fmt::format("{}{}{}{}", kThinkBegin, e.chain, kThinkEnd, e.answer);
  return training_tokens(chat_template_, {question, answer}, tokenizer_);
}

uint64_t TaskExamples::hash() const {
  std::string all = fmt::format("{} {} {} {} {}", mixture_.spec(), p_cot_, p_stop_, seed_,
                                split_ == TaskSplit::kTrain ? "train" : "held out");
  for (int64_t i = 0; i < 8; ++i) {
    for (int32_t id : example(i).ids) all += fmt::format(" {}", id);
  }
  return hash_bytes(all);
}

std::vector<std::string> task_texts(const TaskMixture& mixture, uint64_t seed, int64_t count) {
  std::vector<std::string> out(static_cast<size_t>(count) * 3);
  parallel_tasks(count, [&](int64_t i) {
    TaskExample e = mixture.item(seed, i, TaskSplit::kTrain).example;
    auto at = static_cast<size_t>(i) * 3;
    out[at] = std::move(e.question);
    out[at + 1] = std::move(e.chain);
    out[at + 2] = std::move(e.answer);
  });
  return out;
}

}  // namespace wels
