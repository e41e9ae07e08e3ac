// KvCache: one row per token and layer in pages of kPageRows rows, so that sequences grow without
// moving. MLA rows are the latent c and the rotated key k^R side by side (r + dr values: V3's 576),
// or, where asked for, what training attends to: keys and values of every head, then k^R. GQA rows
// are keys, then values. They are of f32, bf16, or Q8_0: 34 bytes per 32 values, whole numbers with
// a half for their scale (device.h, scatter_rows).
//
// Pages are counted: a page may belong to several sequences (fork, adopt) and may be kept for later
// ones (keep). It is written by one owner only: where a sequence goes on in a partial page that it
// does not own alone, the rows it has of it are copied first (copy-on-write). A kept page that no
// sequence uses is idle; when the free pages are spent, the page that has been idle longest is
// taken. All of this costs O(1) a page. Source: Kwon et al. 2023 (PagedAttention).
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "formats/model_config.h"
#include "tensor/batch.h"
#include "tensor/pool.h"

namespace wels {

// Where a cached row has what. In a block type every part, and every head of GQA, begins a block of
// its own: unlike values do not share a scale, and a head's columns are whole blocks.
struct KvLayout {
  int64_t width = 0;   // columns
  int64_t second = 0;  // the first of k^R (MLA) or of the first head's values (GQA)
  int64_t head = 0;    // from one head to the next (GQA; MLA: expanded rows alone)
};
// What MLA's rows hold: the latent, or keys and values of all heads (f32 or bf16 only).
enum class MlaRows { kLatent, kExpanded };
KvLayout kv_layout(const ModelConfig& cfg, DType dtype, MlaRows rows = MlaRows::kLatent);
// Of a token in all blocks and MTP modules.
int64_t kv_token_bytes(const ModelConfig& cfg, DType dtype, MlaRows rows = MlaRows::kLatent);

class KvCache {
 public:
  static constexpr int kPageRows = 64;

  // Room for `max_tokens` tokens in all sequences together (rounded up to pages). dtype: T of the
  // model, f32, bf16 or Q8_0. Throws Error if the memory can't be had. Layers: blocks and MTP
  // modules.
  KvCache(const ModelConfig& cfg, DType dtype, int64_t max_tokens, MlaRows rows = MlaRows::kLatent);
  ~KvCache();
  KvCache(const KvCache&) = delete;

  int32_t add_sequence();  // an empty sequence; numbers of freed ones are used again
  // A sequence of the first `rows` tokens of the given pages, which stay where they are.
  int32_t adopt(std::span<const int32_t> pages, int64_t rows);
  // A sequence that has the same tokens as `sequence` in the same pages.
  int32_t fork(int32_t sequence);
  void free_sequence(int32_t sequence);
  // Forgets all but the first `rows` tokens and gives back the pages without any.
  void truncate(int32_t sequence, int64_t rows);
  int64_t length(int32_t sequence) const { return at(sequence).length; }

  // Pages that can be had: free ones and idle ones.
  int64_t available_pages() const { return static_cast<int64_t>(free_.size()) + idle_count_; }
  int64_t all_pages() const { return static_cast<int64_t>(pages_.size()); }
  // How many of them `rows` more tokens of a sequence would take, a copy included.
  int64_t missing_pages(int32_t sequence, int64_t rows) const;

  // Makes room for the batch's new rows and returns each row's place in the pool, [n]. Throws Error
  // when no page is available. Segment::past must be the sequence's length.
  std::vector<int32_t> reserve(const Batch& batch);
  void commit(const Batch& batch);  // the rows are there now
  // The same for an MTP module, whose rows lie where the main model's rows of the same tokens do,
  // or, while it drafts, beyond them; nothing to commit.
  std::vector<int32_t> reserve_module(const Batch& batch);

  Tensor pool(int64_t layer) const {
    return pools_[static_cast<size_t>(layer)];
  }  // [pages·kPageRows, width]
  const KvLayout& layout() const { return layout_; }
  int64_t layers() const { return static_cast<int64_t>(pools_.size()); }
  int64_t page_bytes() const { return bytes_ / all_pages(); }  // of all layers
  std::span<const int32_t> pages(int32_t sequence) const { return at(sequence).pages; }
  // Places of rows [0, n) of a sequence.
  std::vector<int32_t> places(int32_t sequence, int64_t n) const;
  int64_t bytes() const { return bytes_; }

  // For whoever finds pages again (engine/prefix_cache.h). A kept page outlives its sequences until
  // it is dropped, or until it is taken: then `taken` is told first.
  void keep(int32_t page);
  void drop(int32_t page);
  bool in_use(int32_t page) const { return info(page).users > 0; }
  void on_taken(std::function<void(int32_t page)> taken) { taken_ = std::move(taken); }
  // Page `index` of the sequence becomes `page`, which holds the same rows.
  void replace_page(int32_t sequence, int64_t index, int32_t page);

 private:
  struct Sequence {
    std::vector<int32_t> pages;
    int64_t length = 0;
  };
  struct Page {
    int32_t users = 0;  // sequences
    bool kept = false;
    int32_t before = -1, after = -1;  // in the list of idle pages
  };
  Sequence& at(int32_t s) { return sequences_[static_cast<size_t>(s)]; }
  const Sequence& at(int32_t s) const { return sequences_[static_cast<size_t>(s)]; }
  Page& info(int32_t p) { return pages_[static_cast<size_t>(p)]; }
  const Page& info(int32_t p) const { return pages_[static_cast<size_t>(p)]; }
  bool must_copy(const Sequence& s, int64_t rows) const;
  int32_t take_page();
  void use(int32_t page);
  void let_go(int32_t page);
  void make_idle(int32_t page);
  void end_idle(int32_t page);
  void own_page(Sequence& s, int64_t row);
  void write_places(const Sequence& s, int64_t from, std::span<int32_t> out) const;

  KvLayout layout_;
  std::vector<Tensor> pools_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> free_sequences_;
  std::vector<Page> pages_;
  std::vector<int32_t> free_;
  int32_t longest_idle_ = -1, last_idle_ = -1;
  int64_t idle_count_ = 0;
  std::function<void(int32_t)> taken_;
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace wels
