#include "distill/pair_evaluation.h"

#include <algorithm>

namespace wels {
namespace {

struct Greedy {
  std::vector<std::string> answer;
  std::vector<bool> right;
};

Greedy answers_of(Device& dev, Model& model, const Tokenizer& tokenizer, const TaskMixture& tasks,
                  const ColearnSettings& s) {
  RolloutSampler sampler(dev, model, tokenizer, s.rollout);
  std::vector<TaskMixture::Item> items;
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < s.eval_items; ++i) {
    items.push_back(tasks.item(s.sft.seed, i, TaskSplit::kHeldOut));
    prompts.push_back(sampler.prompt(items.back().example.question));
  }
  std::vector<Rollout> said =
      sampler.sample({.prompts = prompts, .samples = 1, .temperature = 0, .seed = {}});
  Greedy out;
  for (size_t i = 0; i < said.size(); ++i) {
    const std::string& answer = said[i].parts.answer;
    out.answer.push_back(answer);
    out.right.push_back(said[i].ended && items[i].task->score(items[i].example, answer) >= 1);
  }
  return out;
}

// Losses and divergence over the learned tokens of the first held-out examples.
void compare_examples(Device& dev, Model& small, Model& large, const ExampleSource& held_out,
                      const ColearnSettings& s, PairEvaluation& e) {
  int64_t count = held_out.size() < 0 ? s.eval_items : std::min(held_out.size(), s.eval_items);
  if (count == 0) return;
  Pool pool = device_pool(dev);
  Teacher teacher(dev, large, {.dtype = s.sft.trainer.dtype});
  double tokens = 0;
  for (const MicroBatch& mb : example_batch(held_out, s.sft.seed, 0, count, s.sft)) {
    Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = s.sft.trainer.dtype};
    Teacher::Said said = teacher.say(mb, false);
    Var h = small.hidden(ctx, mb.batch, {});
    std::vector<double> kl =
        to_host(dev, token_kl(ctx, h, small.head(), said.lesson.teacher, said.lesson.kl).t);
    Var target = ctx.make_ids(mb.targets.data(), static_cast<int64_t>(mb.targets.size()));
    std::vector<double> own = to_host(dev, token_logp(ctx, h, small.head(), target).t);
    for (size_t i = 0; i < kl.size(); ++i) {
      if (mb.targets[i] < 0) continue;
      e.kl += kl[i];
      e.nats[0] -= own[i];
      e.nats[1] -= said.gold_logp[i];
      tokens += 1;
    }
  }
  for (double* x : {&e.kl, &e.nats[0], &e.nats[1]}) *x /= std::max(tokens, 1.0);
}

}  // namespace

PairEvaluation evaluate_pair(Device& dev, Model& small, Model& large, const Tokenizer& tokenizer,
                             const TaskMixture& tasks, const ExampleSource& held_out,
                             const ColearnSettings& s) {
  PairEvaluation e;
  e.items = s.eval_items;
  Greedy a = answers_of(dev, small, tokenizer, tasks, s),
         b = answers_of(dev, large, tokenizer, tasks, s);
  double share = 1.0 / static_cast<double>(std::max<int64_t>(e.items, 1));
  for (size_t i = 0; i < a.right.size(); ++i) {
    e.accuracy[0] += a.right[i] ? share : 0;
    e.accuracy[1] += b.right[i] ? share : 0;
    e.agreement += a.answer[i] == b.answer[i] ? share : 0;
    e.complementarity += a.right[i] && !b.right[i] ? share : 0;
  }
  compare_examples(dev, small, large, held_out, s, e);
  return e;
}

}  // namespace wels
