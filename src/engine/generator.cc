#include "engine/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace wels {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Generator::Running {
  GenerateRequest* request;
  GenerateResult* result;
  std::vector<int32_t> history;  // prompt and answer
  Rng rng;
  int32_t sequence;
  int64_t fed = 0;  // tokens in the cache
  bool done = false;
};

Generator::Generator(Device& dev, Model& model, DType dtype, int64_t context)
    : dev_(dev),
      model_(model),
      dtype_(dtype),
      context_(context),
      kv_(model.config(), dtype, context) {}

// The logits of some rows, [rows.size(), v].
std::vector<float> Generator::forward(const Batch& batch, const std::vector<int32_t>& rows) {
  Ctx ctx{.dev = dev_, .pool = pool_, .tape = nullptr, .dtype = dtype_};
  ForwardOptions options;
  options.kv = &kv_;
  Var h = model_.hidden(ctx, batch, options);
  if (rows.empty()) return {};
  Var z = model_.logits(ctx, select_rows(ctx, h, rows));
  Var single = ctx.make_aux(DType::kF32, z.t.rows, z.t.cols);  // sampling is in f32 on every device
  dev_.copy(z.t, single.t);
  std::vector<float> out(static_cast<size_t>(single.t.size()));
  dev_.download(single.t, out.data());
  return out;
}

std::vector<GenerateResult> Generator::run(std::vector<GenerateRequest>& requests,
                                           GenerateTiming* timing) {
  std::vector<GenerateResult> results(requests.size());
  std::vector<Running> running;
  GenerateTiming total;
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerateRequest& r = requests[i];
    r.sampling.validate();
    if (r.prompt.empty()) throw Error("prompt", "is empty", "give at least one token");
    for (int32_t id : r.prompt) {
      if (id < 0 || id >= model_.config().vocab_size) {
        throw Error(
            "prompt",
            fmt::format("token {} is outside the vocabulary of {}", id, model_.config().vocab_size),
            "use the model's own tokenizer");
      }
    }
    int64_t room = std::min(context_, model_.config().max_position_embeddings);
    int64_t length = static_cast<int64_t>(r.prompt.size());
    if (length >= room) {
      throw Error("prompt", fmt::format("{} tokens do not fit into a context of {}", length, room),
                  "shorten it or raise the context");
    }
    r.max_new_tokens = std::min(r.max_new_tokens, room - length);
    running.push_back({&r, &results[i], r.prompt, Rng(r.sampling.seed), kv_.add_sequence()});
    total.prompt_tokens += length;
  }
  // Sequences wait until the cache can hold all they may need, so that none is stopped half-way.
  size_t next = 0;
  std::vector<Running*> active;
  int64_t reserved = 0;
  auto need = [](const Running& s) {
    int64_t tokens = static_cast<int64_t>(s.request->prompt.size()) + s.request->max_new_tokens;
    return (tokens + KvCache::kPageRows - 1) / KvCache::kPageRows * KvCache::kPageRows;
  };
  int64_t capacity = kv_.free_tokens();
  while (next < running.size() || !active.empty()) {
    while (next < running.size() &&
           (active.empty() || reserved + need(running[next]) <= capacity)) {
      reserved += need(running[next]);
      active.push_back(&running[next++]);
    }
    double t0 = now_s();
    Batch batch;
    std::vector<int32_t> rows;
    std::vector<Running*> sampled;
    bool prefill = false;
    for (Running* s : active) {
      int64_t left = static_cast<int64_t>(s->history.size()) - s->fed;
      int64_t count = std::min(left, kPrefillChunk);
      prefill |= count > 1;
      batch.append(
          std::span(s->history).subspan(static_cast<size_t>(s->fed), static_cast<size_t>(count)),
          s->fed, s->sequence);
      s->fed += count;
      if (count == left) {
        rows.push_back(static_cast<int32_t>(batch.rows()) - 1);
        sampled.push_back(s);
      }
    }
    std::vector<float> logits = forward(batch, rows);
    size_t v = static_cast<size_t>(model_.config().vocab_size);
    for (size_t i = 0; i < sampled.size(); ++i) {
      Running* s = sampled[i];
      SampledToken token = s->request->max_new_tokens > 0
                               ? sample(std::span(logits).subspan(i * v, v), s->history,
                                        s->request->sampling, s->rng)
                               : SampledToken{};
      const auto& stops = s->request->stop_ids;
      if (token.id < 0) {
        s->done = true;
      } else if (std::find(stops.begin(), stops.end(), token.id) != stops.end()) {
        s->result->finish = GenerateResult::Finish::kStop;
        s->done = true;
      } else {
        s->history.push_back(token.id);
        s->result->tokens.push_back(token.id);
        s->result->logp.push_back(token.logp);
        ++total.new_tokens;
        if (s->request->on_token && !s->request->on_token(token.id)) {
          s->result->finish = GenerateResult::Finish::kCancelled;
          s->done = true;
        }
        s->done |= static_cast<int64_t>(s->result->tokens.size()) >= s->request->max_new_tokens;
      }
    }
    std::erase_if(active, [&](Running* s) {
      if (!s->done) return false;
      kv_.truncate(s->sequence, 0);
      reserved -= need(*s);
      return true;
    });
    (prefill ? total.prefill_s : total.decode_s) += now_s() - t0;
  }
  if (timing) *timing = total;
  return results;
}

}  // namespace wels
