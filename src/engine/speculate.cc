// The engine's drafts for the next step (draft.h).
#include <algorithm>

#include "base/progress.h"
#include "engine/sequence.h"

namespace wels {
namespace {

constexpr int64_t kIdleSteps = 32;    // after which the MTP module looks away
constexpr int64_t kIdleRequests = 8;  // that then do without it

}  // namespace

// Whether the MTP module is to follow a sequence that starts now.
bool Engine::wants_module(const Sequence& s) const {
  return s.request.speculate == Speculate::kMtp && (mtp_rest_ == 0 || s.request.drafts > 0);
}

// The time of a step without prompts, for the budgets it says something about.
void Engine::note_step(const std::vector<Feed>& feeds, int64_t drafts, double seconds) {
  bool mtp = false, ngram = false;
  int64_t drafting = 0;
  for (const Feed& f : feeds) {
    if (f.s->drafts.empty()) continue;
    ++drafting;
    (f.s->request.speculate == Speculate::kMtp ? mtp : ngram) = true;
  }
  int64_t n = static_cast<int64_t>(feeds.size());
  if (!ngram) mtp_budget_.step_took(n, drafting, drafts, seconds);
  if (!mtp) ngram_budget_.step_took(n, drafting, drafts, seconds);
}

// As many as pay, or as were asked for, and can still be of use.
int64_t Engine::wanted_drafts(const Sequence& s, int64_t pay) const {
  int64_t length = static_cast<int64_t>(s.history.size());
  int64_t most = s.request.drafts > 0 ? s.request.drafts : pay;
  return std::min({most, s.request.max_new_tokens - s.answered() - 1, room() - length - 1});
}

void Engine::draft(Ctx& ctx, const Var& hidden, std::vector<Feed>& feeds) {
  int64_t answering = 0;  // in the next step
  for (const Feed& f : feeds) answering += f.samples && !f.s->done;
  draft_ngrams(feeds, answering);
  draft_mtp(ctx, hidden, feeds, answering);
}

void Engine::draft_ngrams(std::vector<Feed>& feeds, int64_t answering) {
  std::vector<Sequence*> drafting;
  for (Feed& f : feeds) {
    if (f.samples && !f.s->done && f.s->request.speculate == Speculate::kNgram)
      drafting.push_back(f.s);
  }
  if (drafting.empty()) return;
  int64_t n = static_cast<int64_t>(drafting.size());
  int64_t most = ngram_budget_.choose(answering, n, kNgramDrafts);
  for (Sequence* s : drafting) s->drafts = s->ngrams.draft(s->history, wanted_drafts(*s, most));
}

// The module follows every row of the model, so that it has the keys for its drafts.
void Engine::draft_mtp(Ctx& ctx, const Var& hidden, std::vector<Feed>& feeds, int64_t answering) {
  const double begin = monotonic_seconds();
  Batch next;
  std::vector<int32_t> rows;
  std::vector<Drafting> drafting;
  for (Feed& f : feeds) {
    Sequence& s = *f.s;
    if (s.seen < 0 || s.done) continue;
    CHECK(s.seen == f.past);
    int64_t n = kv_.length(s.kv) - s.seen;
    next.append(
        std::span(s.history).subspan(static_cast<size_t>(s.seen) + 1, static_cast<size_t>(n)),
        s.seen, s.kv);
    for (int64_t i = 0; i < n; ++i) rows.push_back(static_cast<int32_t>(f.row_begin + i));
    s.seen += n;
    if (f.samples) drafting.push_back({&s, static_cast<int32_t>(next.rows()) - 1, 0});
  }
  if (rows.empty()) return;
  Var h = model_.draft(ctx, select_rows(ctx, hidden, rows), next, kv_);
  const double followed = monotonic_seconds();
  int64_t n = static_cast<int64_t>(drafting.size());
  if (std::ssize(rows) <= n * (kMtpDrafts + 1))  // no prompts
    mtp_budget_.following_took(answering, followed - begin);
  int64_t most = n > 0 ? mtp_budget_.choose(answering, n, kMtpDrafts) : 0;
  int64_t pages = kv_.available_pages(), wanted = 0, wanting = 0;
  for (Drafting& d : drafting) {
    d.wanted = std::max<int64_t>(wanted_drafts(*d.s, most), 0);
    int64_t missing = kv_.missing_pages(d.s->kv, d.wanted + 1);
    if (missing > pages) d.wanted = 0;
    pages -= d.wanted > 0 ? missing : 0;
    wanted += d.wanted;
    wanting += d.wanted > 0;
    d.s->idle_drafts = most > 0 || d.s->request.drafts > 0 ? 0 : d.s->idle_drafts + 1;
    if (d.s->idle_drafts < kIdleSteps) continue;
    d.s->seen = -1;
    mtp_rest_ = kIdleRequests;
  }
  if (wanted == 0) return;
  draft_on(ctx, h, std::move(drafting));
  mtp_budget_.drafting_took(answering, wanting, wanted, monotonic_seconds() - followed);
}

// Draws a token from each row of the module and goes on from that with the module's own state in
// the place of the model's.
void Engine::draft_on(Ctx& ctx, Var h, std::vector<Drafting> drafting) {
  for (int64_t depth = 0;; ++depth) {
    std::erase_if(drafting, [&](const Drafting& d) { return d.wanted <= depth; });
    if (drafting.empty()) return;
    std::vector<int32_t> rows;
    for (const Drafting& d : drafting) rows.push_back(d.row);
    each_logits(ctx, h, rows, [&](size_t i, std::span<float> logits) {
      Drafting& d = drafting[i];
      size_t length = d.s->history.size();
      d.s->history.insert(d.s->history.end(), d.s->drafts.begin(), d.s->drafts.end());
      try {
        SamplePlace place{.history = d.s->history};
        d.s->drafts.push_back(sample(logits, place, d.s->request.sampling).id);
      } catch (const Error&) {  // no draft from a damaged module
        d.wanted = 0;
      }
      d.s->history.resize(length);
    });
    std::erase_if(drafting, [&](const Drafting& d) { return d.wanted <= depth + 1; });
    if (drafting.empty()) return;
    Batch next;
    rows.clear();
    for (Drafting& d : drafting) {
      rows.push_back(d.row);
      d.row = static_cast<int32_t>(next.rows());
      next.append(std::span(d.s->drafts).last(1), kv_.length(d.s->kv) + depth, d.s->kv);
    }
    h = model_.draft(ctx, select_rows(ctx, h, rows), next, kv_);
  }
}

}  // namespace wels
