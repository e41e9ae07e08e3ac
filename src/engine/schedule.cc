// Who is served in a step. Scopes take turns: in being let in, and in the rows for prompts. Whoever
// answers goes first, a row (and its drafts) each; prompts share what is left of the step's rows.
// Who is let in has the pages that it and everybody running are expected to need to their ends
// (answer_lengths.h). Where they run out all the same, since answers got longer than that, the
// sequence that was let in last gives up its own and waits again.
#include <algorithm>

#include "base/log.h"
#include "engine/sequence.h"

namespace wels {
namespace {

using Finish = GenerateResult::Finish;

constexpr int64_t kPageRows = KvCache::kPageRows;
constexpr size_t kLookAhead =
    64;  // waiting requests of a scope that may be let in before its first

int64_t pages_of(int64_t rows) { return (rows + kPageRows - 1) / kPageRows; }

}  // namespace

int64_t Engine::waiting() const {
  int64_t n = 0;
  for (const auto& [scope, queue] : waiting_) n += static_cast<int64_t>(queue.size());
  return n;
}

void Engine::end_cancelled() {
  for (auto& [id, s] : by_id_) {
    try {
      if (s->cancelled || (s->request.cancelled && s->request.cancelled()))
        finish(*s, Finish::kCancelled);
    } catch (const std::exception& e) {
      fail(*s, e);
    }
  }
  leave_finished();
}

// Takes the finished out of every list, then tells their clients, who may submit again.
void Engine::leave_finished() {
  std::vector<Owned> finished;
  auto take_from = [&](auto& list) {
    auto rest =
        std::stable_partition(list.begin(), list.end(), [](const Owned& s) { return !s->done; });
    std::move(rest, list.end(), std::back_inserter(finished));
    list.erase(rest, list.end());
  };
  take_from(running_);
  for (auto i = waiting_.begin(); i != waiting_.end();) {
    take_from(i->second);
    i = i->second.empty() ? waiting_.erase(i) : std::next(i);
  }
  for (Owned& s : finished) {
    if (s->kv >= 0) {
      remember(*s, true);
      kv_.free_sequence(s->kv);
    }
    const Finish how = s->result.finish;
    if (how != Finish::kError && s->answered() > 0)
      lengths_.add(s->answered(), how == Finish::kLength || how == Finish::kContext);
    by_id_.erase(s->id);
  }
  for (Owned& s : finished) {
    try {
      if (s->request.on_finish) s->request.on_finish(std::move(s->result));
    } catch (const std::exception& e) {
      log_warn("what a request does at its end failed: {}", e.what());
    }
  }
}

// Brings whole pages behind those that were found from the disk into the cache, where a request of
// that kind finds them.
void Engine::restore(const Sequence& s, const PrefixCache::Found& found) {
  std::span<const int32_t> tokens = std::span(s.history).first(s.history.size() - 1);
  DiskCache::Key key = disk_->root(s.request.scope);
  auto page_of = [&](int64_t i) {
    return tokens.subspan(static_cast<size_t>(i * kPageRows), kPageRows);
  };
  for (int64_t i = 0; i < found.path.pages; ++i) key = DiskCache::next(key, page_of(i));
  PrefixCache::Path path = found.path;
  const int32_t sequence = kv_.adopt(std::span(found.pages).first(static_cast<size_t>(path.pages)),
                                     path.pages * kPageRows);
  struct Freed {
    KvCache& kv;
    int32_t sequence;
    ~Freed() { kv.free_sequence(sequence); }
  } freed{kv_, sequence};
  for (int64_t i = path.pages; (i + 1) * kPageRows <= static_cast<int64_t>(tokens.size()); ++i) {
    DiskCache::Key before = key;
    key = DiskCache::next(before, page_of(i));
    // A page for every other must be left, or what was just brought in would be taken again.
    if (!disk_->has(key) || kv_.available_pages() <= running() + 1) break;
    Batch batch;
    batch.append(page_of(i), i * kPageRows, sequence);
    kv_.reserve(batch);
    auto rows = disk_->load(key, before, page_of(i), kv_, kv_.pages(sequence).back());
    if (!rows) break;
    kv_.commit(batch);
    prefixes_.add(sequence, path, {page_of(i), rows->exact, rows->drafted});
    if (path.node == 0) break;
  }
}

// Rows of the sequence at its expected end, at least one more than now.
int64_t Engine::expected_rows(const Sequence& s) const {
  int64_t most = std::min(s.request.max_new_tokens, room() - s.prompt);
  int64_t rows = s.prompt + lengths_.expected(s.answered(), most);
  return std::max(rows, static_cast<int64_t>(s.history.size()) + 1);
}

// Pages that the running sequences are expected to take until they end.
int64_t Engine::expected_pages() const {
  int64_t pages = 0;
  for (const Owned& s : running_)
    pages += kv_.missing_pages(s->kv, expected_rows(*s) - kv_.length(s->kv));
  return pages;
}

// Whether the cache has the pages that the sequence and those that run are expected to need.
bool Engine::fits(const Sequence& s, const PrefixCache::Found& found) const {
  if (running_.empty()) return true;
  int64_t need = pages_of(expected_rows(s));
  for (int64_t i = 0; i < found.path.pages; ++i)
    need -= kv_.in_use(found.pages[static_cast<size_t>(i)]);
  return need + expected_pages() <= kv_.available_pages();
}

// Whether a running sequence is just computing whole pages that this one could have for nothing.
bool Engine::better_waits(const Sequence& s, const PrefixCache::Found& found) const {
  if (s.request.reuse == Reuse::kNone) return false;
  return std::any_of(running_.begin(), running_.end(), [&](const Owned& other) {
    const Sequence& o = *other;
    int64_t length = kv_.length(o.kv);
    if (length >= o.prompt || o.path.node == 0 || o.request.reuse == Reuse::kNone) return false;
    if (o.request.scope != s.request.scope) return false;
    if (s.request.reuse == Reuse::kExact && (o.exact < length || o.form != prompt_form_))
      return false;
    if (wants_module(s) && o.seen < 0) return false;
    auto differ = std::mismatch(s.history.begin(), s.history.end() - 1, o.history.begin(),
                                o.history.begin() + o.prompt);
    return (differ.first - s.history.begin()) / kPageRows * kPageRows > found.rows;
  });
}

PrefixCache::Found Engine::find_prefix(const Sequence& s) {
  if (s.request.reuse == Reuse::kNone) return {};
  return prefixes_.find(s.request.scope, std::span(s.history).first(s.history.size() - 1),
                        s.request.reuse == Reuse::kExact, wants_module(s));
}

void Engine::admit() {
  size_t scopes_without = 0;
  while (scopes_without < waiting_.size()) {
    auto turn = waiting_.upper_bound(last_scope_);
    if (turn == waiting_.end()) turn = waiting_.begin();
    last_scope_ = turn->first;
    std::deque<Owned>& queue = turn->second;
    bool let_in = false;
    for (size_t i = 0; i < std::min(queue.size(), kLookAhead) && !let_in; ++i) {
      Sequence& s = *queue[i];
      if (s.done) continue;  // it has failed
      try {
        PrefixCache::Found found = find_prefix(s);
        if (better_waits(s, found)) continue;
        if (!fits(s, found)) return;
        if (disk_ && s.request.reuse != Reuse::kNone) {
          restore(s, found);
          found = find_prefix(s);
        }
        start(s, found);
        running_.push_back(std::move(queue[i]));
        queue.erase(queue.begin() + static_cast<long>(i));
        let_in = true;
      } catch (const std::exception& e) {
        fail(s, e);
      }
    }
    if (queue.empty()) waiting_.erase(turn);
    scopes_without = let_in ? 0 : scopes_without + 1;
  }
}

void Engine::start(Sequence& s, const PrefixCache::Found& found) {
  s.kv = kv_.adopt(found.pages, found.rows);
  s.path = found.path;
  s.exact = found.exact;
  s.form = prompt_form_;
  if (!all_exact_ && s.request.reuse == Reuse::kAny && found.rows > 0 && found.rows < s.prompt)
    s.form = model_.cheaper_form(found.rows, s.prompt - found.rows);
  s.seen = wants_module(s) ? found.rows : -1;
  if (s.request.speculate == Speculate::kMtp && mtp_rest_ > 0) --mtp_rest_;
  if (s.counted) return;
  s.counted = true;
  s.result.cached_tokens = found.rows;
  timing_.prompt_tokens += s.prompt;
  timing_.cached_tokens += found.rows;
}

// The last one let in goes back to the front of its queue; its pages serve it again if they are
// still there then.
void Engine::preempt_last() {
  Sequence& s = *running_.back();
  waiting_[s.request.scope].push_front(std::move(running_.back()));
  running_.pop_back();
  remember(s, true);
  kv_.free_sequence(s.kv);
  s.kv = -1;
  s.path = {};
  s.drafts.clear();
  ++timing_.preempted;
}

// A row for everyone who answers, the oldest first, with its drafts where there are pages for them.
void Engine::plan_decode(std::vector<Feed>& feeds, int64_t& planned) {
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& s = *running_[i];
    int64_t past = kv_.length(s.kv);
    if (past < s.prompt || past + 1 != static_cast<int64_t>(s.history.size())) continue;
    auto missing = [&] {
      return kv_.missing_pages(s.kv, 1 + static_cast<int64_t>(s.drafts.size()));
    };
    if (planned + missing() > kv_.available_pages()) s.drafts.clear();
    while (i < running_.size() && planned + missing() > kv_.available_pages()) preempt_last();
    if (i == running_.size()) return;
    planned += missing();
    feeds.push_back({&s, past, 1 + static_cast<int64_t>(s.drafts.size()), true});
  }
}

// Prompts (and what has to be computed again), scope by scope, `budget` rows together.
void Engine::plan_prefill(std::vector<Feed>& feeds, int64_t& planned, int64_t budget) {
  struct Item {
    Sequence* s;
    int64_t round;  // how many of its scope come before it
    size_t place;   // of its scope, counted from whose turn it is
  };
  std::map<std::string, int64_t> scopes;
  std::vector<Item> items;
  for (const Owned& s : running_) {
    int64_t left = static_cast<int64_t>(s->history.size()) - kv_.length(s->kv);
    if (left > 1 || kv_.length(s->kv) < s->prompt)
      items.push_back({s.get(), scopes[s->request.scope]++, 0});
  }
  if (items.empty()) return;
  size_t first = static_cast<size_t>(turn_++) % scopes.size();
  for (Item& item : items) {
    auto at =
        static_cast<size_t>(std::distance(scopes.begin(), scopes.find(item.s->request.scope)));
    item.place = (at + scopes.size() - first) % scopes.size();
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return a.round != b.round ? a.round < b.round : a.place < b.place;
  });
  int64_t left = static_cast<int64_t>(items.size());
  for (const Item& item : items) {
    Sequence& s = *item.s;
    int64_t share = std::min(budget, std::max(kPageRows, budget / left--));
    int64_t past = kv_.length(s.kv), all = static_cast<int64_t>(s.history.size()) - past;
    // A segment has one form.
    int64_t rows = std::min(share, past < s.prompt && !all_exact_ ? s.prompt - past : all);
    rows = std::min(rows, all);
    int64_t pages = kv_.available_pages() - planned;
    while (rows > 0 && kv_.missing_pages(s.kv, rows) > pages)
      rows = (past + rows - 1) / kPageRows * kPageRows - past;  // a page less
    if (rows <= 0) continue;
    planned += kv_.missing_pages(s.kv, rows);
    budget -= rows;
    feeds.push_back({&s, past, rows, rows == all});
    if (budget <= 0) return;
  }
}

std::vector<Engine::Feed> Engine::plan() {
  for (;;) {
    std::vector<Feed> feeds;
    int64_t planned = 0;  // pages
    plan_decode(feeds, planned);
    plan_prefill(feeds, planned, feeds.empty() ? kStepRows : kRowsBeside);
    if (!feeds.empty() || running_.empty()) return feeds;
    CHECK(running() > 1);  // one alone always has room
    preempt_last();
  }
}

Batch Engine::batch_of(std::vector<Feed>& feeds) const {
  Batch batch;
  for (Feed& f : feeds) {
    const Sequence& s = *f.s;
    f.row_begin = batch.rows();
    int64_t known = f.rows - static_cast<int64_t>(s.drafts.size());
    std::vector<int32_t> ids(s.history.begin() + f.past, s.history.begin() + f.past + known);
    ids.insert(ids.end(), s.drafts.begin(), s.drafts.end());
    batch.append(ids, f.past, s.kv);
    batch.segments.back().mla = f.past < s.prompt ? s.form : MlaForm::kAbsorbed;
  }
  return batch;
}

}  // namespace wels
