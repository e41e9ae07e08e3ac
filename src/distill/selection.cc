#include "distill/selection.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "rl/evaluation.h"
#include "text/chat_training.h"

namespace wels {
namespace {

constexpr uint64_t kMixStream = hash_name("mixed examples"), kExploreStream = hash_name("explore");

}  // namespace

uint64_t SelectedExamples::hash() const {
  uint64_t h = of_.hash();
  for (int64_t i : chosen_) h = h * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(i);
  return h;
}

TrainingTokens MixedExamples::example(int64_t i) const {
  Rng rng(seed_, kMixStream, 4 * static_cast<uint64_t>(i));
  if (rng.uniform() < share_)
    return more_.example(static_cast<int64_t>(rng.below(static_cast<uint64_t>(more_.size()))));
  return most_.example(drawn_example(i, most_.size(), seed_));
}

uint64_t MixedExamples::hash() const {
  return most_.hash() * 31 + more_.hash() * 17 + static_cast<uint64_t>(share_ * 1e6);
}

std::vector<double> example_losses(Device& dev, Model& model, const ExampleSource& source,
                                   int64_t first, int64_t count, const SftSettings& s) {
  Pool pool = device_pool(dev);
  std::vector<double> out(static_cast<size_t>(count));
  // A micro-batch at a time, in the source's order: targets say where an example ends.
  for (int64_t begin = 0; begin < count;) {
    MicroBatch mb;
    int64_t end = begin;
    std::vector<size_t> first_row;
    while (end < count && (end == begin || mb.batch.rows() < s.micro_batch_tokens)) {
      first_row.push_back(mb.targets.size());
      append_example(source.example(first + end), mb.batch, mb.targets);
      ++end;
    }
    first_row.push_back(mb.targets.size());
    std::vector<double> logp = log_probabilities(dev, pool, model, s.trainer, mb);
    for (int64_t i = begin; i < end; ++i) {
      auto at = static_cast<size_t>(i - begin);
      double nats = 0, tokens = 0;
      for (size_t r = first_row[at]; r < first_row[at + 1]; ++r) {
        if (mb.targets[r] < 0) continue;
        nats -= logp[r];
        tokens += 1;
      }
      out[static_cast<size_t>(i)] = tokens > 0 ? nats / tokens : 0;
    }
    begin = end;
  }
  return out;
}

std::vector<int64_t> between_quantiles(const std::vector<double>& losses, int64_t first, double low,
                                       double high) {
  double from = quantile(losses, low), to = quantile(losses, high);
  std::vector<int64_t> out;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (losses[i] >= from && losses[i] <= to) out.push_back(first + static_cast<int64_t>(i));
  }
  return out;
}

Explored explore(RolloutSampler& small, RolloutSampler& large, const TaskMixture& tasks,
                 const ExploreSettings& s) {
  Explored out;
  std::vector<TaskMixture::Item> items;
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < s.questions; ++i) {
    items.push_back(tasks.item(s.seed, i, TaskSplit::kTrain));
    prompts.push_back(large.prompt(items.back().example.question));
  }
  auto luck = [&](int64_t prompt, int64_t sample) {
    return Rng(s.seed, kExploreStream, 2 * static_cast<uint64_t>(prompt * 4096 + sample))
        .next_u64();
  };
  auto right = [](const TaskMixture::Item& item, const Rollout& r) {
    return r.ended && item.task->score(item.example, r.parts.answer) >= 1;
  };
  std::vector<Rollout> by_large =
      large.sample({.prompts = prompts, .samples = s.large_tries, .temperature = 1, .seed = luck});
  out.large_tokens = large.drawn_tokens();
  std::vector<size_t> hard;
  for (size_t i = 0; i < items.size(); ++i) {
    bool solved = false;
    for (int64_t k = 0; k < s.large_tries; ++k)
      solved = solved ||
               right(items[i],
                     by_large[i * static_cast<size_t>(s.large_tries) + static_cast<size_t>(k)]);
    if (!solved) hard.push_back(i);
  }
  out.hard = static_cast<int64_t>(hard.size());
  if (hard.empty()) return out;
  std::vector<std::vector<int32_t>> asked;
  for (size_t i : hard) asked.push_back(prompts[i]);
  std::vector<Rollout> by_small =
      small.sample({.prompts = asked, .samples = s.tries, .temperature = 1, .seed = luck});
  out.small_tokens = small.drawn_tokens();
  for (size_t h = 0; h < hard.size(); ++h) {
    for (int64_t k = 0; k < s.tries; ++k) {
      const Rollout& r = by_small[h * static_cast<size_t>(s.tries) + static_cast<size_t>(k)];
      if (!right(items[hard[h]], r)) continue;
      TrainingTokens t;
      t.append(asked[h], false);
      t.append(r.tokens, true);
      out.examples.add(t);
      ++out.found;
      out.solved.push_back(static_cast<int64_t>(hard[h]));
      break;
    }
  }
  return out;
}

}  // namespace wels
