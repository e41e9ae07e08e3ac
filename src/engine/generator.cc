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
  Session own;  // where the request names none
  bool done = false;

  Session& cached() { return request->session ? *request->session : own; }
  const Session& cached() const { return request->session ? *request->session : own; }
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

void Generator::check(const GenerateRequest& r) const {
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
  if (static_cast<int64_t>(r.prompt.size()) >= room) {
    throw Error("prompt",
                fmt::format("{} tokens do not fit into a context of {}", r.prompt.size(), room),
                "shorten it or raise the context");
  }
}

// What the cache has of the prompt stays, the rest of the session goes. The last token of the
// prompt is always computed: its logits are what is sampled from.
void Generator::begin(Running& s) {
  const std::vector<int32_t>& prompt = s.request->prompt;
  std::vector<int32_t>& cached = s.cached().tokens_;
  auto differ = std::mismatch(cached.begin(), cached.end(), prompt.begin(), prompt.end() - 1);
  cached.erase(differ.first, cached.end());
  kv_.truncate(s.cached().sequence_, static_cast<int64_t>(cached.size()));
}

void Generator::end(Running& s) {
  if (!s.request->session) kv_.truncate(s.own.sequence_, 0);
}

// Pages that the sequence may still ask for.
int64_t Generator::missing_pages(const Running& s) const {
  int64_t tokens = static_cast<int64_t>(s.request->prompt.size()) + s.request->max_new_tokens;
  return (tokens + KvCache::kPageRows - 1) / KvCache::kPageRows -
         static_cast<int64_t>(kv_.pages(s.cached().sequence_).size());
}

// A sampled token: the end, or one more of the answer.
void Generator::take(Running& s, const SampledToken& token) {
  const auto& stops = s.request->stop_ids;
  if (std::find(stops.begin(), stops.end(), token.id) != stops.end()) {
    s.result->finish = GenerateResult::Finish::kStop;
    s.done = true;
    return;
  }
  s.history.push_back(token.id);
  s.result->tokens.push_back(token.id);
  s.result->logp.push_back(token.logp);
  if (s.request->on_token && !s.request->on_token(token.id)) {
    s.result->finish = GenerateResult::Finish::kCancelled;
    s.done = true;
  }
  s.done |= static_cast<int64_t>(s.result->tokens.size()) >= s.request->max_new_tokens;
}

// One forward pass over the next rows of all; a token for those whose history is in the cache then.
// True if a prompt was among them.
bool Generator::step(std::span<Running* const> active) {
  Batch batch;
  std::vector<int32_t> rows;
  std::vector<Running*> fed, sampled;
  bool prefill = false;
  for (Running* s : active) {
    if (s->request->cancelled && s->request->cancelled()) {
      s->result->finish = GenerateResult::Finish::kCancelled;
      s->done = true;
      continue;
    }
    size_t past = s->cached().tokens_.size();
    size_t left = s->history.size() - past;
    size_t count = std::min(left, static_cast<size_t>(kPrefillChunk));
    prefill |= s->result->tokens.empty();
    batch.append(std::span(s->history).subspan(past, count), static_cast<int64_t>(past),
                 s->cached().sequence_);
    fed.push_back(s);
    if (count == left) {
      rows.push_back(static_cast<int32_t>(batch.rows()) - 1);
      sampled.push_back(s);
    }
  }
  if (fed.empty()) return prefill;
  std::vector<float> logits = forward(batch, rows);
  for (size_t i = 0; i < fed.size(); ++i) {
    const Segment& seg = batch.segments[i];
    auto from = batch.tokens.begin() + seg.row_begin;
    std::vector<int32_t>& cached = fed[i]->cached().tokens_;
    cached.insert(cached.end(), from, from + seg.rows);
  }
  size_t v = static_cast<size_t>(model_.config().vocab_size);
  for (size_t i = 0; i < sampled.size(); ++i) {
    Running* s = sampled[i];
    if (s->request->max_new_tokens > 0) {
      take(*s,
           sample(std::span(logits).subspan(i * v, v), s->history, s->request->sampling, s->rng));
    } else {
      s->done = true;
    }
  }
  return prefill;
}

std::vector<GenerateResult> Generator::run(std::vector<GenerateRequest>& requests,
                                           GenerateTiming* timing) {
  std::vector<GenerateResult> results(requests.size());
  std::vector<Running> running;
  GenerateTiming total;
  for (const GenerateRequest& r : requests) check(r);
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerateRequest& r = requests[i];
    int64_t room = std::min(context_, model_.config().max_position_embeddings);
    int64_t length = static_cast<int64_t>(r.prompt.size());
    r.max_new_tokens = std::min(r.max_new_tokens, room - length);
    running.push_back(
        {&r, &results[i], r.prompt, Rng(r.sampling.seed), r.session ? *r.session : new_session()});
    begin(running.back());
    total.prompt_tokens += length;
    total.cached_tokens += static_cast<int64_t>(running.back().cached().tokens_.size());
  }
  // Sequences wait until the cache can hold all they may need, so that none is stopped half-way.
  size_t next = 0;
  std::vector<Running*> active;
  auto fits = [&](const Running& s) {
    int64_t pages = missing_pages(s);
    for (const Running* other : active) pages += missing_pages(*other);
    return pages * KvCache::kPageRows <= kv_.free_tokens();
  };
  while (next < running.size() || !active.empty()) {
    while (next < running.size() && (active.empty() || fits(running[next])))
      active.push_back(&running[next++]);
    double t0 = now_s();
    bool prefill = step(active);
    std::erase_if(active, [&](Running* s) {
      if (s->done) end(*s);
      return s->done;
    });
    (prefill ? total.prefill_s : total.decode_s) += now_s() - t0;
  }
  for (const GenerateResult& r : results) total.new_tokens += static_cast<int64_t>(r.tokens.size());
  if (timing) *timing = total;
  return results;
}

}  // namespace wels
