// What a request wants to know of its own prompt: log-probabilities of its tokens, the mean of its
// hidden states. Taken chunk by chunk as the prompt is computed; rows that are computed again after
// a preemption count once.
#include <algorithm>
#include <numeric>

#include "engine/sequence.h"

namespace wels {

void Engine::take_prompt_logp(Ctx& ctx, const Var& hidden, const Feed& f, int64_t from) {
  Sequence& s = *f.s;
  // A row predicts the next token; the prompt's last one predicts the answer.
  int64_t n = std::min(f.past + f.rows, s.prompt - 1) - from;
  if (n <= 0) return;
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(f.row_begin + from - f.past));
  each_logits(ctx, hidden, rows, [&](size_t i, std::span<float> logits) {
    int32_t next = s.history[static_cast<size_t>(from) + i + 1];
    s.result.prompt_logp.push_back(plain_token(logits, next, s.request.prompt_logprobs));
  });
}

void Engine::add_hidden(Ctx& ctx, const Var& hidden, const Feed& f, int64_t from) {
  Sequence& s = *f.s;
  int64_t n = std::min(f.past + f.rows, s.prompt) - from;
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(f.row_begin + from - f.past));
  Var chosen = select_rows(ctx, hidden, rows);
  Var single = ctx.make_aux(DType::kF32, chosen.t.rows, chosen.t.cols);
  dev_.copy(chosen.t, single.t);
  size_t d = static_cast<size_t>(single.t.cols);
  std::vector<float> host(static_cast<size_t>(n) * d);
  dev_.download(single.t, host.data());
  s.hidden_sum.resize(d);
  for (size_t i = 0; i < host.size(); ++i) s.hidden_sum[i % d] += static_cast<double>(host[i]);
  if (from + n < s.prompt) return;
  for (double sum : s.hidden_sum)
    s.result.mean_hidden.push_back(static_cast<float>(sum / static_cast<double>(s.prompt)));
}

void Engine::watch_prompts(Ctx& ctx, const Var& hidden, const std::vector<Feed>& feeds) {
  for (const Feed& f : feeds) {
    Sequence& s = *f.s;
    int64_t from = std::max(f.past, s.watched);
    if (s.done || from >= std::min(f.past + f.rows, s.prompt)) continue;
    if (s.request.prompt_logprobs >= 0) take_prompt_logp(ctx, hidden, f, from);
    if (s.request.mean_hidden) add_hidden(ctx, hidden, f, from);
    s.watched = std::min(f.past + f.rows, s.prompt);
  }
}

}  // namespace wels
