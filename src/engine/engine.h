// Engine: prompts of token ids → answers of token ids, for many clients at once over the paged KV
// cache. Continuous batching (Yu et al. 2022): every step is one forward pass of one row per
// answering sequence, or several where tokens were drafted (draft.h), and of pieces of prompts, as
// many as a step has room for. Requests come and go between steps. A sequence that finds no page is
// computed again later; its text stays.
//
// What a sequence gets does not depend on the others, bit for bit: ops whose rows are independent,
// draws that depend on seed and place only, and a form of MLA per row that depends on the prompt's
// length only (but see Reuse::kAny). Not for several threads at once; callbacks run inside step()
// and may submit and cancel.
#pragma once
#include <deque>
#include <exception>
#include <map>
#include <memory>

#include "engine/answer_lengths.h"
#include "engine/disk_cache.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "model/model.h"

namespace wels {

// Counts since the engine began; or of one run.
struct GenerateTiming {
  int64_t prompt_tokens = 0, new_tokens = 0;
  int64_t cached_tokens = 0;           // of the prompts: found in the cache, not computed
  int64_t drafted = 0, accepted = 0;   // tokens of speculation
  int64_t preempted = 0;               // sequences that had to give up their pages
  double prefill_s = 0, decode_s = 0;  // steps with rows of prompts, without

  GenerateTiming& operator+=(const GenerateTiming& t);
};
GenerateTiming operator-(const GenerateTiming& now, const GenerateTiming& before);

// The KV cache of an engine.
struct CacheOptions {
  int64_t tokens = 0;       // of all sequences; the engine's context where that is more
  std::string folder = {};  // also keeps pages on disk, for later engines (disk_cache.h); empty: no
  int64_t folder_bytes = 0;         // at most
  std::optional<DType> dtype = {};  // T of the activations, f32, bf16 or Q8_0; nothing: T
  MlaRows rows = MlaRows::kLatent;  // of models with MLA
};

class Engine {
 public:
  // dtype: T of activations. context: tokens of one sequence at most.
  Engine(Device& dev, Model& model, DType dtype, int64_t context, const CacheOptions& cache);
  // With room for `cache_tokens` in a cache of T.
  Engine(Device& dev, Model& model, DType dtype, int64_t context, int64_t cache_tokens = 0)
      : Engine(dev, model, dtype, context, CacheOptions{.tokens = cache_tokens}) {}
  ~Engine();

  // A request's number. Throws Error where it can't be served: nothing else is touched.
  int64_t submit(GenerateRequest request);
  void cancel(int64_t id);  // finishes in the next step; unknown or finished numbers: nothing
  // One forward pass; false if nothing is left to do. Throws nothing: what fails (a callback, a
  // file of the cache, memory) fails for the requests concerned.
  bool step();

  // All of these to their end. Throws the first one's Error; none is begun if one is refused.
  // on_finish is not called.
  std::vector<GenerateResult> run(std::vector<GenerateRequest> requests,
                                  GenerateTiming* timing = nullptr);

  // Forgets all cached rows: for a model whose weights have changed. Nothing may be running or
  // waiting (CHECK).
  void forget_prefixes();

  const GenerateTiming& timing() const { return timing_; }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const;
  int64_t available_tokens() const { return kv_.available_pages() * KvCache::kPageRows; }

  static constexpr int64_t kStepRows = 512;    // of prompts, in a step without answers
  static constexpr int64_t kRowsBeside = 128;  // of prompts, beside answers: they must not stall
  static constexpr int64_t kMtpDrafts = 3, kNgramDrafts = 6;  // at most

 private:
  struct Sequence;
  struct Feed;
  struct Drawn;
  struct Drafting;
  using Owned = std::unique_ptr<Sequence>;

  // engine.cc
  void check(const GenerateRequest& r) const;
  int64_t room() const;
  void finish(Sequence& s, GenerateResult::Finish how);
  void fail(Sequence& s, const std::exception& e);
  void take(Sequence& s, const SampledToken& token);
  void sample_rows(Ctx& ctx, const Var& hidden, std::vector<Feed>& feeds);
  static void replace_token(Sequence& s, SampledToken& token);
  static SamplePlace place_of(Sequence& s);
  static std::vector<Drawn> draw_alone(std::span<float> logits, std::span<Feed* const> owner);
  void sample_row(std::span<float> logits, Feed& f, Drawn& drawn);
  void after_forward(std::vector<Feed>& feeds);

  // watch_prompt.cc
  void watch_prompts(Ctx& ctx, const Var& hidden, const std::vector<Feed>& feeds);
  void take_prompt_logp(Ctx& ctx, const Var& hidden, const Feed& f, int64_t from);
  void add_hidden(Ctx& ctx, const Var& hidden, const Feed& f, int64_t from);

  // trace_experts.cc
  static bool traced(const Feed& f);
  void trace_experts(const ForwardRecord& record, const std::vector<Feed>& feeds);

  // engine.cc
  void forward(std::vector<Feed>& feeds);
  void remember(Sequence& s, bool end);
  void keep_pages(Sequence& s, bool end);
  void save_page(Sequence& s, int64_t index, const PrefixCache::Rows& rows);
  // fn(i, logits) for the logits of rows[i], in order.
  void each_block_of_logits(Ctx& ctx, const Var& hidden, const std::vector<int32_t>& rows,
                            const std::function<void(size_t begin, std::span<float> logits)>& fn);
  void each_logits(Ctx& ctx, const Var& hidden, const std::vector<int32_t>& rows,
                   const std::function<void(size_t i, std::span<float> logits)>& fn);

  // schedule.cc
  void end_cancelled();
  void leave_finished();
  void restore(const Sequence& s, const PrefixCache::Found& found);
  int64_t expected_rows(const Sequence& s) const;
  int64_t expected_pages() const;
  bool fits(const Sequence& s, const PrefixCache::Found& found) const;
  bool better_waits(const Sequence& s, const PrefixCache::Found& found) const;
  PrefixCache::Found find_prefix(const Sequence& s);
  void admit();
  void start(Sequence& s, const PrefixCache::Found& found);
  void preempt_last();
  void plan_decode(std::vector<Feed>& feeds, int64_t& planned);
  void plan_prefill(std::vector<Feed>& feeds, int64_t& planned, int64_t budget);
  std::vector<Feed> plan();
  Batch batch_of(std::vector<Feed>& feeds) const;

  // speculate.cc
  bool wants_module(const Sequence& s) const;
  void note_step(const std::vector<Feed>& feeds, int64_t drafts, double seconds);
  int64_t wanted_drafts(const Sequence& s, int64_t pay) const;
  void draft(Ctx& ctx, const Var& hidden, std::vector<Feed>& feeds);
  void draft_ngrams(std::vector<Feed>& feeds, int64_t answering);
  void draft_mtp(Ctx& ctx, const Var& hidden, std::vector<Feed>& feeds, int64_t answering);
  void draft_on(Ctx& ctx, Var h, std::vector<Drafting> drafting);

  Device& dev_;
  Model& model_;
  DType dtype_;
  int64_t context_;
  Pool pool_;
  KvCache kv_;
  PrefixCache prefixes_;
  std::optional<DiskCache> disk_;
  MlaForm prompt_form_;                               // of rows that are exact
  bool all_exact_;                                    // answers too
  std::map<std::string, std::deque<Owned>> waiting_;  // by scope
  std::string last_scope_;                            // whose turn it was
  std::vector<Owned> running_;                        // in the order in which they were let in
  std::map<int64_t, Sequence*> by_id_;
  AnswerLengths lengths_;
  int64_t last_id_ = 0, turn_ = 0;
  DraftBudget mtp_budget_, ngram_budget_;
  int64_t mtp_rest_ = 0;  // requests that don't try the MTP module, since it did not pay
  GenerateTiming timing_;
};

}  // namespace wels
