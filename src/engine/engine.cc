#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "base/log.h"
#include "base/progress.h"
#include "base/threads.h"
#include "engine/sequence.h"

namespace wels {
namespace {

using Finish = GenerateResult::Finish;

constexpr size_t kLogitRows = 64;  // that are on the host at a time

}  // namespace

GenerateTiming& GenerateTiming::operator+=(const GenerateTiming& t) {
  prompt_tokens += t.prompt_tokens;
  new_tokens += t.new_tokens;
  cached_tokens += t.cached_tokens;
  drafted += t.drafted;
  accepted += t.accepted;
  preempted += t.preempted;
  prefill_s += t.prefill_s;
  decode_s += t.decode_s;
  return *this;
}

GenerateTiming operator-(const GenerateTiming& now, const GenerateTiming& before) {
  return {.prompt_tokens = now.prompt_tokens - before.prompt_tokens,
          .new_tokens = now.new_tokens - before.new_tokens,
          .cached_tokens = now.cached_tokens - before.cached_tokens,
          .drafted = now.drafted - before.drafted,
          .accepted = now.accepted - before.accepted,
          .preempted = now.preempted - before.preempted,
          .prefill_s = now.prefill_s - before.prefill_s,
          .decode_s = now.decode_s - before.decode_s};
}

Engine::Engine(Device& dev, Model& model, DType dtype, int64_t context, const CacheOptions& cache)
    : dev_(dev),
      model_(model),
      dtype_(dtype),
      context_(context),
      // One page more: going on in a page that is kept begins with a copy.
      kv_(model.config(), cache.dtype.value_or(dtype),
          std::max(context, cache.tokens) + KvCache::kPageRows, cache.rows),
      prefixes_(kv_) {
  const ModelConfig& c = model.config();
  bool absorbed = 2 * c.kv_lora_rank <= c.qk_nope_head_dim + c.v_head_dim;
  prompt_form_ = absorbed ? MlaForm::kAbsorbed : MlaForm::kExpanded;
  all_exact_ = !c.is_mla() || absorbed || cache.rows == MlaRows::kExpanded;
  if (cache.folder.empty()) return;
  disk_.emplace(cache.folder, cache.folder_bytes, model_fingerprint(dev, model, dtype, kv_));
}

Engine::~Engine() = default;

int64_t Engine::room() const { return std::min(context_, model_.config().max_position_embeddings); }

void Engine::check(const GenerateRequest& r) const {
  r.sampling.validate();
  if (r.prompt.empty()) throw Error("prompt", "is empty", "give at least one token");
  int64_t v = model_.config().vocab_size, length = static_cast<int64_t>(r.prompt.size());
  for (int32_t id : r.prompt) {
    if (id < 0 || id >= v) {
      throw Error("prompt", fmt::format("token {} is outside the vocabulary of {}", id, v),
                  "use the model's own tokenizer");
    }
  }
  if (r.speculate == Speculate::kMtp && model_.config().num_nextn_predict_layers == 0)
    throw Error("speculate", "the model has no MTP module", "use ngram or none");
  if (length >= room() && (r.overflow == Overflow::kRefuse || room() < 2)) {
    throw Error("prompt", fmt::format("{} tokens do not fit into a context of {}", length, room()),
                "shorten it or raise the context");
  }
}

int64_t Engine::submit(GenerateRequest request) {
  check(request);
  if (request.prompt_logprobs >= 0 || request.mean_hidden) request.reuse = Reuse::kNone;
  auto s = std::make_unique<Sequence>();
  s->id = ++last_id_;
  s->history = request.prompt;
  int64_t answer = std::min(request.max_new_tokens, room() / 2);
  int64_t most = std::max<int64_t>(room() - answer, 1);
  if (static_cast<int64_t>(s->history.size()) > most &&
      request.overflow == Overflow::kTruncateLeft) {
    // Models are used to their bos at the beginning: it stays.
    long kept = most > 1 && s->history[0] == model_.config().bos_token_id;
    s->history.erase(s->history.begin() + kept,
                     s->history.end() - (static_cast<long>(most) - kept));
  }
  s->prompt = static_cast<int64_t>(s->history.size());
  s->result.prompt_tokens = s->prompt;
  s->request = std::move(request);
  by_id_[s->id] = s.get();
  int64_t id = s->id;
  waiting_[s->request.scope].push_back(std::move(s));
  return id;
}

void Engine::forget_prefixes() {
  CHECK(running_.empty() && waiting_.empty());
  prefixes_.clear();
}

void Engine::cancel(int64_t id) {
  auto found = by_id_.find(id);
  if (found != by_id_.end()) found->second->cancelled = true;
}

void Engine::finish(Sequence& s, Finish how) {
  if (s.done) return;
  s.result.finish = how;
  s.done = true;
}

void Engine::fail(Sequence& s, const std::exception& e) {
  if (s.done) return;
  auto* ours = dynamic_cast<const Error*>(&e);
  s.result.error = ours ? *ours : Error("request", e.what());  // of a callback, or no memory
  finish(s, Finish::kError);
}

// A sampled token: the end, or one more of the answer.
void Engine::take(Sequence& s, const SampledToken& token) {
  const auto& stops = s.request.stop_ids;
  if (std::find(stops.begin(), stops.end(), token.id) != stops.end()) {
    finish(s, Finish::kStop);
    return;
  }
  s.history.push_back(token.id);
  s.result.tokens.push_back(token.id);
  s.result.logp.push_back(token.logp);
  if (s.request.sampling.tell_kept) s.result.kept.push_back(token.kept);
  ++timing_.new_tokens;
  if (s.request.on_token && !s.request.on_token(token)) finish(s, Finish::kCancelled);
  if (s.answered() >= s.request.max_new_tokens) finish(s, Finish::kLength);
  if (static_cast<int64_t>(s.history.size()) >= room()) finish(s, Finish::kContext);
}

void Engine::each_block_of_logits(
    Ctx& ctx, const Var& hidden, const std::vector<int32_t>& rows,
    const std::function<void(size_t begin, std::span<float> logits)>& fn) {
  size_t v = static_cast<size_t>(model_.config().vocab_size);
  std::vector<float> host;
  for (size_t begin = 0; begin < rows.size(); begin += kLogitRows) {
    size_t n = std::min(kLogitRows, rows.size() - begin);
    auto from = rows.begin() + static_cast<long>(begin);
    Var z = model_.logits(ctx, select_rows(ctx, hidden, {from, from + static_cast<long>(n)}));
    Var single = ctx.make_aux(DType::kF32, z.t.rows, z.t.cols);  // sampling is in f32 everywhere
    dev_.copy(z.t, single.t);
    host.resize(n * v);
    dev_.download(single.t, host.data());
    fn(begin, host);
  }
}

void Engine::each_logits(Ctx& ctx, const Var& hidden, const std::vector<int32_t>& rows,
                         const std::function<void(size_t i, std::span<float> logits)>& fn) {
  size_t v = static_cast<size_t>(model_.config().vocab_size);
  each_block_of_logits(ctx, hidden, rows, [&](size_t begin, std::span<float> logits) {
    for (size_t i = 0; i * v < logits.size(); ++i) fn(begin + i, logits.subspan(i * v, v));
  });
}

void Engine::replace_token(Sequence& s, SampledToken& token) {
  int32_t id = s.request.replace(token.id, s.answer());
  if (id == token.id) return;
  token = {};
  token.id = id;
}

SamplePlace Engine::place_of(Sequence& s) {
  SamplePlace place{.history = s.history};
  if (s.request.mask) place.mask = s.request.mask(s.answer());
  if (s.answered() < s.request.min_new_tokens) place.never = s.request.stop_ids;
  return place;
}

// A row's token that was drawn beside others', or what was thrown instead.
struct Engine::Drawn {
  SamplePlace place;
  SampledToken token;
  std::exception_ptr error;
  bool made = false;
};

// Of a block of rows, on all threads, those whose tokens depend on no other row: all but drafts.
std::vector<Engine::Drawn> Engine::draw_alone(std::span<float> logits,
                                              std::span<Feed* const> owner) {
  std::vector<Drawn> out(owner.size());
  for (size_t i = 0; i < out.size(); ++i) {
    Sequence& s = *owner[i]->s;
    out[i].made = s.drafts.empty() && !s.done && s.answered() < s.request.max_new_tokens;
    if (!out[i].made) continue;
    try {
      out[i].place = place_of(s);
    } catch (...) {  // of a callback
      out[i].error = std::current_exception();
    }
  }
  size_t v = logits.size() / owner.size();
  constexpr int64_t kLeastRows = 4;  // for a thread
  parallel_for(static_cast<int64_t>(out.size()), kLeastRows, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      if (!out[i].made || out[i].error) continue;
      try {
        out[i].token =
            sample(logits.subspan(i * v, v), out[i].place, owner[i]->s->request.sampling);
      } catch (...) {
        out[i].error = std::current_exception();
      }
    }
  });
  return out;
}

void Engine::sample_row(std::span<float> logits, Feed& f, Drawn& drawn) {
  Sequence& s = *f.s;
  if (s.done || f.refused) return;
  if (s.answered() >= s.request.max_new_tokens) return finish(s, Finish::kLength);
  try {
    if (drawn.error) std::rethrow_exception(drawn.error);
    SampledToken token =
        drawn.made ? std::move(drawn.token) : sample(logits, place_of(s), s.request.sampling);
    if (s.request.replace) replace_token(s, token);
    size_t at = static_cast<size_t>(f.accepted);
    bool drafted = at < s.drafts.size();
    if (drafted) token.draft = s.drafts[at] == token.id;
    if (drafted && s.drafts[at] == token.id) {
      ++f.accepted;
    } else {
      f.refused = drafted;
    }
    take(s, token);
  } catch (const std::exception& e) {
    fail(s, e);
  }
}

void Engine::sample_rows(Ctx& ctx, const Var& hidden, std::vector<Feed>& feeds) {
  std::vector<int32_t> rows;
  std::vector<Feed*> owner;
  for (Feed& f : feeds) {
    if (!f.samples) continue;
    for (int64_t i = f.rows - 1 - static_cast<int64_t>(f.s->drafts.size()); i < f.rows; ++i) {
      rows.push_back(static_cast<int32_t>(f.row_begin + i));
      owner.push_back(&f);
    }
  }
  size_t v = static_cast<size_t>(model_.config().vocab_size);
  each_block_of_logits(ctx, hidden, rows, [&](size_t begin, std::span<float> logits) {
    auto owners = std::span<Feed* const>(owner).subspan(begin, logits.size() / v);
    std::vector<Drawn> drawn = draw_alone(logits, owners);
    for (size_t i = 0; i < owners.size(); ++i)
      sample_row(logits.subspan(i * v, v), *owners[i], drawn[i]);
  });
}

// Forgets the rows of refused drafts and counts what is exact.
void Engine::after_forward(std::vector<Feed>& feeds) {
  for (Feed& f : feeds) {
    Sequence& s = *f.s;
    int64_t drafts = static_cast<int64_t>(s.drafts.size());
    int64_t length = f.past + f.rows - drafts + f.accepted;
    kv_.truncate(s.kv, length);
    bool prompt = f.past < s.prompt;
    bool exact = all_exact_ || (prompt && s.form == prompt_form_);
    if (exact && s.exact == f.past) s.exact = length;
    if (drafts > 0) {
      s.result.drafted += drafts;
      s.result.accepted += f.accepted;
      timing_.drafted += drafts;
      timing_.accepted += f.accepted;
      (s.request.speculate == Speculate::kMtp ? mtp_budget_ : ngram_budget_)
          .outcome(f.accepted, f.refused);
    }
    s.drafts.clear();
  }
}

// A whole page of exact rows to the disk.
void Engine::save_page(Sequence& s, int64_t index, const PrefixCache::Rows& rows) {
  if (!disk_ || rows.exact < KvCache::kPageRows) return;
  if (s.keys.empty()) s.keys.push_back(disk_->root(s.request.scope));
  while (static_cast<int64_t>(s.keys.size()) < index + 2) {
    size_t from = (s.keys.size() - 1) * KvCache::kPageRows;
    s.keys.push_back(
        DiskCache::next(s.keys.back(), std::span(s.history).subspan(from, KvCache::kPageRows)));
  }
  size_t at = static_cast<size_t>(index);
  disk_->save(s.keys[at + 1], s.keys[at], rows.tokens,
              {static_cast<int32_t>(rows.exact), static_cast<int32_t>(rows.drafted)}, kv_,
              kv_.pages(s.kv)[at]);
}

// Lets others find the sequence's whole pages; at its end the last one too. What fails is not tried
// again: the sequence does without.
void Engine::remember(Sequence& s, bool end) {
  try {
    keep_pages(s, end);
  } catch (const std::exception& e) {
    log_warn("pages of a request are not kept: {}", e.what());
    s.request.reuse = Reuse::kNone;
  }
}

void Engine::keep_pages(Sequence& s, bool end) {
  if (s.request.reuse == Reuse::kNone) return;
  int64_t length = std::min(kv_.length(s.kv), static_cast<int64_t>(s.history.size()));
  while (s.path.node != 0) {
    int64_t from = s.path.pages * KvCache::kPageRows;
    int64_t n = std::min<int64_t>(length - from, KvCache::kPageRows);
    if (n <= 0 || (n < KvCache::kPageRows && !end)) return;
    if (s.seen >= 0 && s.seen < from + n && !end) return;
    PrefixCache::Rows rows;
    rows.tokens = std::span(s.history).subspan(static_cast<size_t>(from), static_cast<size_t>(n));
    rows.exact = std::clamp<int64_t>(s.exact - from, 0, n);
    rows.drafted = std::clamp<int64_t>(s.seen - from, 0, n);
    int64_t index = s.path.pages;
    prefixes_.add(s.kv, s.path, rows);
    save_page(s, index, rows);
    if (n < KvCache::kPageRows) return;
  }
}

void Engine::forward(std::vector<Feed>& feeds) {
  double begin = monotonic_seconds();
  int64_t decoding = 0, drafts = 0;
  for (const Feed& f : feeds) {
    decoding += f.decodes();
    drafts += static_cast<int64_t>(f.s->drafts.size());
  }
  bool prompts = decoding < static_cast<int64_t>(feeds.size());
  try {
    Ctx ctx{.dev = dev_, .pool = pool_, .tape = nullptr, .dtype = dtype_};
    ForwardOptions options;
    options.kv = &kv_;
    Batch batch = batch_of(feeds);
    ForwardRecord record;
    bool trace = std::any_of(feeds.begin(), feeds.end(), traced);
    Var hidden = model_.hidden(ctx, batch, options, trace ? &record : nullptr);
    watch_prompts(ctx, hidden, feeds);
    sample_rows(ctx, hidden, feeds);
    double seconds = monotonic_seconds() - begin;
    if (!prompts) note_step(feeds, drafts, seconds);
    if (trace) trace_experts(record, feeds);
    after_forward(feeds);
    draft(ctx, hidden, feeds);
    for (Feed& f : feeds) remember(*f.s, false);
  } catch (const std::exception& e) {  // of the device: no memory
    for (Feed& f : feeds) fail(*f.s, e);
  }
  (prompts ? timing_.prefill_s : timing_.decode_s) += monotonic_seconds() - begin;
}

bool Engine::step() {
  end_cancelled();
  admit();
  std::vector<Feed> feeds;
  try {
    feeds = plan();
  } catch (const std::exception& e) {
    for (const Owned& s : running_) fail(*s, e);
  }
  if (!feeds.empty()) forward(feeds);
  leave_finished();
  return !running_.empty() || !waiting_.empty();
}

std::vector<GenerateResult> Engine::run(std::vector<GenerateRequest> requests,
                                        GenerateTiming* timing) {
  for (const GenerateRequest& r : requests) check(r);
  GenerateTiming before = timing_;
  std::vector<GenerateResult> results(requests.size());
  size_t left = requests.size();
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].on_finish = [&results, &left, i](GenerateResult r) {
      results[i] = std::move(r);
      --left;
    };
    submit(std::move(requests[i]));
  }
  while (left > 0) step();
  if (timing) *timing = timing_ - before;
  for (const GenerateResult& r : results) {
    if (r.error) throw *r.error;
  }
  return results;
}

}  // namespace wels
