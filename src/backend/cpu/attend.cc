// Attention, forward: training and prefill (attend) and decode over the paged cache
// (attend_cached).
//
// Both are one algorithm. The queries of a kv head are columns (attend_kernels.h), 64 to a tile.
// Keys are taken in chunks of kChunk, always counted from the segment's first key: a chunk's keys
// and values are packed once for up to kBlockCols columns (for one tile alone a cache of the
// activations' type is read where it lies), every tile runs its softmax over the chunk from
// nothing, and the chunks' results are merged in order. The chunking is the same whatever the split
// of the work, so a row's bits are too, and a decoded token has the bits of a prefilled one.
// Source: Dao et al. 2022 (tiles), Dao 2023, "Flash-Decoding" (chunks of the context in parallel).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/cpu/attend_work.h"
#include "backend/cpu/cpu_device.h"
#include "backend/cpu/isa/kernels.h"
#include "base/threads.h"
#include "tensor/pool.h"

namespace wels {

float* attend_work(int64_t floats) {
  struct Work {
    float* data = nullptr;
    int64_t floats = 0;
    ~Work() {
      if (data) free_host(data, floats * 4);
    }
  };
  thread_local Work work;
  if (work.floats < floats) {
    if (work.data) free_host(work.data, work.floats * 4);
    work.data = nullptr;
    work.floats = 0;
    work.data = static_cast<float*>(allocate_host(floats * 4));
    work.floats = floats;
  }
  return work.data;
}

void check_attend(const Tensor& q, const AttendParams& p) {
  CHECK(p.kv_heads > 0);
  CHECK(p.heads % p.kv_heads == 0);
  CHECK(p.scale > 0.0f);
  CHECK(q.cols == static_cast<int64_t>(p.heads) * (p.dk + p.dr));
}

namespace {

constexpr int kChunk = 512;      // keys
constexpr int kBlockCols = 256;  // columns that share a packed chunk
static_assert(kChunk % kAttendKeys == 0 && kBlockCols % kAttendCols == 0);

// The queries of one kv head in one segment.
struct Queries {
  int64_t q_begin, q_rows, k_rows;
  int head;  // the first of the group
  int64_t columns(const AttendShape& s) const { return q_rows * s.group; }
  // Keys that column c sees.
  int64_t visible(const AttendShape& s, int64_t c) const {
    return k_rows - q_rows + c / s.group + 1;
  }
};

// The softmax of a tile so far: m [64], l [64], o [64][dv_pad].
struct State {
  float *m, *l, *o;
  static int64_t floats(const AttendShape& s) {
    return 2 * kAttendCols + static_cast<int64_t>(kAttendCols) * s.dv_pad;
  }
  State(float* base) : m(base), l(base + kAttendCols), o(base + 2 * kAttendCols) {}
};

struct ForwardWork {
  float *k, *v_rows, *v, *q_rows, *q, *s, *p, *chunk, *block, *limit, *factor;
  AttendInt8Queries q8;
  AttendInt8Keys k8;
  ForwardWork(Carver& c, const AttendShape& a) {
    const int64_t blocks = a.dk / 32;
    q8 = {reinterpret_cast<int8_t*>(c.take(kBlockCols * blocks * 8)), c.take(kBlockCols * blocks),
          reinterpret_cast<int32_t*>(c.take(kBlockCols * blocks))};
    k8 = {reinterpret_cast<uint8_t*>(c.take(kChunk * blocks * 8)), c.take(kChunk * blocks)};
    k = c.take(static_cast<int64_t>(kChunk) * a.k_ld);
    v_rows = c.take(static_cast<int64_t>(kChunk) * a.v_ld);
    v = c.take(static_cast<int64_t>(kChunk) / a.kernels->pair * a.dv_pad);
    q_rows = c.take(static_cast<int64_t>(kAttendCols) * a.k_ld);
    q = c.take(static_cast<int64_t>(kBlockCols) * a.dk_units);
    s = c.take(kAttendCols * kAttendKeys);
    p = c.take(kAttendCols * kAttendKeys);
    chunk = c.take(State::floats(a));
    block = c.take(kBlockCols / kAttendCols * State::floats(a));
    limit = c.take(kAttendCols);
    factor = c.take(kAttendCols);
  }
};

// Where the keys [j, j + n) lie: fills k, and where there are such, shared and v.
struct KeyPointers {
  const void *k[kChunk], *shared[kChunk], *v[kChunk];
  int type;                 // of the rows, as AttendTable::rows counts
  bool has_shared = false;  // k holds dk columns, shared the others
  bool v_in_k = false;      // values are the first columns of the keys
  bool one_page = false;    // they lie behind each other, row_bytes apart
  int64_t row_bytes = 0;
  AttendAhead next;  // the keys behind them and their values, where a tile's are in a page
};

// Where the keys and values of a step lie as the tiles read them.
struct PackedKeys {
  const float* k;
  int k_ld;
  const float* v;
  int v_ld;
  float* v_pairs = nullptr;  // work space where v is rows
};

// Whether the cache's rows are the layout `rows` as they are. Not where neighbours share few sets
// of the L1 cache.
bool in_place(const AttendShape& a, const KeyPointers& keys) {
  return keys.one_page && !keys.has_shared && keys.type == a.kernels->pair - 1 &&
         a.dk % a.kernels->pair == 0 && a.dv % 16 == 0 && keys.row_bytes % 4 == 0 &&
         keys.row_bytes % 2048 != 0 && reinterpret_cast<uintptr_t>(keys.k[0]) % 4 == 0 &&
         reinterpret_cast<uintptr_t>(keys.v[0]) % 4 == 0;
}

// The n keys and their values for several tiles, or for one, which reads everything once.
PackedKeys pack_keys(const AttendShape& a, const AttendParams& p, const KeyPointers& keys, int n,
                     bool one_tile, const ForwardWork& w) {
  const AttendTable& kernels = *a.kernels;
  float* pairs = one_tile && kernels.pair > 1 ? w.v : nullptr;
  if (one_tile && in_place(a, keys)) {
    const int ld = static_cast<int>(keys.row_bytes / 4);
    return {static_cast<const float*>(keys.k[0]), ld, static_cast<const float*>(keys.v[0]), ld,
            pairs};
  }
  auto* pack = kernels.rows[keys.type];
  if (keys.has_shared) {
    pack(keys.k, p.dk, keys.shared, p.dr, n, w.k, a.k_ld);
  } else {
    pack(keys.k, a.dk, nullptr, 0, n, w.k, a.k_ld);
  }
  if (!keys.v_in_k) pack(keys.v, a.dv, nullptr, 0, n, w.v_rows, a.v_ld);
  const float* rows = keys.v_in_k ? w.k : w.v_rows;
  const int ld = keys.v_in_k ? a.k_ld : a.v_ld;
  if (one_tile || kernels.pair == 1) return {w.k, a.k_ld, rows, ld, pairs};
  kernels.pairs(rows, ld, n, a.dv_pad, w.v);
  return {w.k, a.k_ld, w.v, a.dv_pad};
}

// Scores of a cache of Q8_0 are in int8 where whole blocks make a key, whatever the rows of a call.
bool scores_in_int8(const Kernels& k, const AttendParams& p, const Tensor& pool) {
  return k.attend_int8 && pool.dtype == DType::kQ8_0 && p.dk % 32 == 0 && p.dr % 32 == 0;
}

AttendInt8Queries queries_from(const AttendInt8Queries& q, int column, int blocks) {
  const int64_t at = static_cast<int64_t>(column) / 16 * 16 * blocks;
  return {q.q + at * 32, q.scale + at, q.start + at};
}

// n queries of a tile, rounded; lanes beyond them are zero.
void round_queries(const Kernels& k, const AttendShape& a, const void* const* rows, int n,
                   const AttendInt8Queries& to) {
  const int blocks = a.dk / 32;
  std::vector<QuantRecord> record(static_cast<size_t>(blocks));
  for (int i = 0; i < (n + 15) / 16 * 16; ++i) {
    if (i < n) {
      k.quant->round_rows({rows[i], a.type == 1, a.dk, 1, a.dk, record.data(),
                           blocks * static_cast<int64_t>(sizeof(QuantRecord)),
                           static_cast<int>(DType::kQ8_0) - static_cast<int>(DType::kQ4_0)});
    } else {
      std::fill(record.begin(), record.end(), QuantRecord{});
    }
    for (int b = 0; b < blocks; ++b) {
      const QuantRecord& from = record[static_cast<size_t>(b)];
      const int64_t at = (i / 16 * blocks + b) * 16 + i % 16;
      to.scale[at] = from.scale;
      to.start[at] = from.start[0];
      for (int step = 0; step < 8; ++step) {
        std::memcpy(to.q + (((i / 16 * blocks + b) * 8 + step) * 16 + i % 16) * 4,
                    from.q + 4 * step, 4);
      }
    }
  }
}

// Keys for scores in int8, values as pack_keys has them.
PackedKeys pack_int8_keys(const Kernels& k, const AttendShape& a, const AttendParams& p,
                          const KeyPointers& keys, int n, bool one_tile, const ForwardWork& w) {
  const AttendTable& kernels = *a.kernels;
  const int of_k = keys.has_shared ? p.dk : a.dk;
  k.attend_int8->pack(keys.k, of_k / 32, keys.shared, (a.dk - of_k) / 32, n, w.k8);
  // As far apart as keys are: a power of two would put them into few sets of the L1 cache.
  float* rows = a.v_ld <= a.k_ld ? w.k : w.v_rows;
  const int ld = std::max(a.v_ld, a.v_ld <= a.k_ld ? a.k_ld : 0);
  kernels.rows[keys.type](keys.v, a.dv, nullptr, 0, n, rows, ld);
  if (one_tile || kernels.pair == 1)
    return {w.k, a.k_ld, rows, ld, kernels.pair > 1 ? w.v : nullptr};
  kernels.pairs(rows, ld, n, a.dv_pad, w.v);
  return {w.k, a.k_ld, w.v, a.dv_pad};
}

// Columns [c0, c0 + cols) against the chunks [first, end): state[t] of tile t.
template <class Fill>
void run_chunks(const AttendShape& a, const AttendParams& p, const Tensor& q,
                const Queries& queries, int64_t c0, int cols, int64_t first, int64_t end,
                Fill&& fill, const ForwardWork& w, float* states, const Kernels* int8 = nullptr) {
  const AttendTable& kernels = *a.kernels;
  const void* rows[kAttendCols];
  // One tile reads every key once, so its keys are packed as they are needed, if at all, and stay
  // in the L2 cache; several tiles share the whole packed chunk.
  const bool one_tile = cols <= kAttendCols;
  const int step = one_tile ? kAttendKeys : kChunk;
  const int q_ld = std::min(kAttendCols, (cols + 15) / 16 * 16);
  for (int t = 0; t < cols; t += kAttendCols) {
    int n = std::min(kAttendCols, cols - t);
    for (int i = 0; i < n; ++i) {
      int64_t c = c0 + t + i;
      rows[i] = element(q, queries.q_begin + c / a.group, (queries.head + c % a.group) * a.dk);
    }
    if (int8) {
      round_queries(*int8, a, rows, n, queries_from(w.q8, t, a.dk / 32));
      continue;
    }
    kernels.rows[a.type](rows, a.dk, nullptr, 0, n, w.q_rows, a.k_ld);
    kernels.transpose(w.q_rows, a.k_ld, n, a.dk_units, w.q + static_cast<int64_t>(t) * a.dk_units,
                      q_ld);
  }
  KeyPointers keys;
  keys.type = a.type;
  for (int64_t chunk = first; chunk < end; ++chunk) {
    const int64_t key = chunk * kChunk;
    const int n_keys =
        static_cast<int>(std::min<int64_t>(kChunk, queries.visible(a, c0 + cols - 1) - key));
    if (n_keys <= 0) break;
    for (int from = 0; from < n_keys; from += step) {
      const int n_step = std::min(step, n_keys - from);
      fill(key + from, n_step, keys);
      const PackedKeys packed = int8 ? pack_int8_keys(*int8, a, p, keys, n_step, one_tile, w)
                                     : pack_keys(a, p, keys, n_step, one_tile, w);
      for (int t = 0; t < cols; t += kAttendCols) {
        const int n = std::min(kAttendCols, cols - t);
        int skip = 0;  // columns of the tile that see nothing of the chunk
        for (int i = 0; i < kAttendCols; ++i) {
          int64_t seen = queries.visible(a, c0 + t + std::min(i, n - 1)) - key;
          w.limit[i] = static_cast<float>(std::clamp<int64_t>(seen - from, 0, kChunk));
          if (i < n && seen <= 0) ++skip;
        }
        if (skip == n) continue;
        const AttendInt8Scores eight{queries_from(w.q8, t, a.dk / 32), w.k8, a.dk / 32};
        State state(states + t / kAttendCols * State::floats(a));
        State to = chunk == first ? state : State(w.chunk);
        kernels.forward_tile({w.q + static_cast<int64_t>(t) * a.dk_units,
                              packed.k,
                              packed.v,
                              packed.v_pairs,
                              w.limit,
                              a.dk_units,
                              q_ld,
                              packed.k_ld,
                              packed.v_ld,
                              a.dv_pad,
                              n,
                              n_step,
                              from > 0,
                              keys.next,
                              int8 ? int8->attend_int8 : nullptr,
                              &eight,
                              a.scale2,
                              w.s,
                              w.p,
                              to.m,
                              to.l,
                              to.o});
        if (chunk != first && from + n_step == n_keys)
          kernels.merge(state.m, state.l, state.o, to.m, to.l, to.o, skip, n, a.dv_pad, a.scale2);
      }
    }
  }
}

// Divides by the softmax's denominator and writes y and lse of columns [c0, c0 + cols).
void finish(const AttendShape& a, const Queries& queries, int64_t c0, int cols, const float* states,
            float* factor, const Tensor& y, const Tensor& lse) {
  void* rows[kAttendCols];
  for (int t = 0; t < cols; t += kAttendCols) {
    const int n = std::min(kAttendCols, cols - t);
    State state(const_cast<float*>(states) + t / kAttendCols * State::floats(a));
    for (int i = 0; i < n; ++i) {
      int64_t c = c0 + t + i, row = queries.q_begin + c / a.group,
              head = queries.head + c % a.group;
      factor[i] = 1.0f / state.l[i];
      rows[i] = element_out(y, row, head * a.dv);
      if (!lse.empty()) lse.row<float>(row)[head] = state.m[i] * a.scale + std::log(state.l[i]);
    }
    a.kernels->store_rows(state.o, a.dv_pad, n, a.dv, factor, 1, rows);
  }
}

// A block of columns of one kv head of one segment; all its chunks, or one.
struct Item {
  int segment, kv_head;
  int64_t c0;
  int cols;
  int64_t work;       // column-key pairs
  int64_t chunk = 0;  // where chunks are items: which one,
  int64_t state = 0;  // and the place of its result
};

// All blocks, the largest first so that the last ones to finish are small.
template <class Segments>
std::vector<Item> blocks_of(const AttendShape& a, const AttendParams& p, const Segments& segments) {
  std::vector<Item> items;
  for (size_t s = 0; s < segments.size(); ++s) {
    const auto& seg = segments[s];
    CHECK(seg.q_rows <= seg.k_rows);
    const Queries queries{seg.q_begin, seg.q_rows, seg.k_rows, 0};
    for (int h = 0; h < p.kv_heads; ++h) {
      for (int64_t c = 0; c < queries.columns(a); c += kBlockCols) {
        int cols = static_cast<int>(std::min<int64_t>(kBlockCols, queries.columns(a) - c));
        items.push_back({static_cast<int>(s), h, c, cols, cols * queries.visible(a, c + cols - 1)});
      }
    }
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& x, const Item& y) { return x.work > y.work; });
  return items;
}

}  // namespace

void CpuDevice::attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
                       std::span<const AttendSegment> segments, const AttendParams& p, Tensor y,
                       Tensor lse) {
  if (q.dtype != DType::kBF16 && q.dtype != DType::kF32) {
    return RefDevice<float>::attend(q, k, v, shared, segments, p, y, lse);
  }
  check_attend(q, p);
  CHECK(k.dtype == q.dtype && v.dtype == q.dtype && y.dtype == q.dtype);
  const AttendShape a(*k_->attend, q.dtype, p);
  int64_t rows = 0;
  for (const AttendSegment& s : segments) rows += s.q_rows;
  if (rows < y.rows) {  // rows of no segment
    zero(y);
    if (!lse.empty()) zero(lse);
  }
  const std::vector<Item> items = blocks_of(a, p, segments);
  parallel_tasks(static_cast<int64_t>(items.size()), [&](int64_t i) {
    const Item& item = items[static_cast<size_t>(i)];
    const AttendSegment& s = segments[static_cast<size_t>(item.segment)];
    const Queries queries{s.q_begin, s.q_rows, s.k_rows, item.kv_head * a.group};
    const ForwardWork w = make_work<ForwardWork>(a);
    auto fill = [&](int64_t key, int n, KeyPointers& keys) {
      keys.has_shared = p.dr > 0;
      for (int j = 0; j < n; ++j) {
        keys.k[j] = element(k, s.k_begin + key + j, static_cast<int64_t>(item.kv_head) * p.k_step);
        keys.v[j] = element(v, s.k_begin + key + j, static_cast<int64_t>(item.kv_head) * p.v_step);
        if (p.dr > 0) keys.shared[j] = element(shared, s.k_begin + key + j, 0);
      }
    };
    run_chunks(a, p, q, queries, item.c0, item.cols, 0, (s.k_rows + kChunk - 1) / kChunk, fill, w,
               w.block);
    finish(a, queries, item.c0, item.cols, w.block, w.factor, y, lse);
  });
}

void CpuDevice::attend_cached(const Tensor& q, const Tensor& pool, int page_rows,
                              std::span<const CachedSegment> segments, const AttendParams& p,
                              int k_col, int v_col, Tensor y) {
  if (q.dtype != DType::kBF16 && q.dtype != DType::kF32) {
    return RefDevice<float>::attend_cached(q, pool, page_rows, segments, p, k_col, v_col, y);
  }
  check_attend(q, p);
  CHECK(y.dtype == q.dtype);
  CHECK(pool.dtype == DType::kF32 || pool.dtype == DType::kBF16 || pool.dtype == DType::kQ8_0);
  const int block = info(pool.dtype).block;
  CHECK(k_col % block == 0 && v_col % block == 0 && p.k_step % block == 0 && p.v_step % block == 0);
  const bool behind = p.shared_col < 0 || (p.kv_heads == 1 && p.shared_col == k_col + p.dk);
  CHECK(p.dr == 0 ||
        (behind ? p.kv_heads == 1 && (k_col + p.dk) % block == 0 : p.shared_col % block == 0));
  const AttendShape a(*k_->attend, q.dtype, p);
  int64_t rows = 0;
  for (const CachedSegment& s : segments) rows += s.q_rows;
  if (rows < y.rows) zero(y);

  const Kernels* int8 = scores_in_int8(*k_, p, pool) ? k_ : nullptr;
  auto run = [&](const Item& item, int64_t first, int64_t end, const ForwardWork& w,
                 float* states) {
    const CachedSegment& s = segments[static_cast<size_t>(item.segment)];
    const Queries queries{s.q_begin, s.q_rows, s.k_rows, item.kv_head * a.group};
    const int64_t kc = k_col + static_cast<int64_t>(item.kv_head) * p.k_step;
    const int64_t vc = v_col + static_cast<int64_t>(item.kv_head) * p.v_step;
    auto fill = [&](int64_t key, int n, KeyPointers& keys) {
      keys.type = attend_row_type(pool.dtype);
      keys.has_shared = p.dr > 0 && !behind;
      keys.v_in_k = kc == vc && (keys.has_shared ? a.dv <= p.dk : a.dv_pad <= a.dk_pad);
      auto place = [&](int64_t j) {
        return static_cast<int64_t>(s.pages[static_cast<size_t>(j / page_rows)]) * page_rows +
               j % page_rows;
      };
      const int64_t after = key + n, rows = std::min<int64_t>(kAttendKeys, s.k_rows - after);
      keys.one_page = page_rows % kAttendKeys == 0 && key % kAttendKeys == 0 && n <= kAttendKeys;
      keys.row_bytes = row_bytes(pool.dtype, pool.stride);
      keys.next = {};
      if (page_rows % kAttendKeys == 0 && rows > 0) {
        auto piece = [&](int64_t col, int64_t width) {
          return AttendAhead::Piece{row_bytes(pool.dtype, col), row_bytes(pool.dtype, width)};
        };
        keys.next.first = pool.row_raw(place(after));
        keys.next.row_bytes = keys.row_bytes;
        keys.next.rows = static_cast<int>(rows);
        if (p.kv_heads == 1) {
          keys.next.pieces[0] = {0, keys.row_bytes};
        } else {
          keys.next.pieces[0] = piece(kc, p.dk);
          keys.next.pieces[1] = piece(vc, p.dv);
        }
      }
      for (int j = 0; j < n; ++j) {
        const int64_t at = place(key + j);
        keys.k[j] = element(pool, at, kc);
        keys.v[j] = element(pool, at, vc);
        if (keys.has_shared) keys.shared[j] = element(pool, at, p.shared_col);
      }
    };
    run_chunks(a, p, q, queries, item.c0, item.cols, first, end, fill, w, states, int8);
    return queries;
  };

  const std::vector<Item> blocks = blocks_of(a, p, segments);
  auto chunks_of = [&](const Item& b) {
    return (segments[static_cast<size_t>(b.segment)].k_rows + kChunk - 1) / kChunk;
  };
  int64_t most_chunks = 0;
  for (const Item& b : blocks) most_chunks = std::max(most_chunks, chunks_of(b));
  if (static_cast<int64_t>(blocks.size()) >= 4 * thread_count() || most_chunks <= 1 ||
      thread_count() == 1) {
    parallel_tasks(static_cast<int64_t>(blocks.size()), [&](int64_t i) {
      const Item& item = blocks[static_cast<size_t>(i)];
      const ForwardWork w = make_work<ForwardWork>(a);
      const Queries queries = run(item, 0, chunks_of(item), w, w.block);
      finish(a, queries, item.c0, item.cols, w.block, w.factor, y, Tensor());
    });
    return;
  }
  // Too few blocks for the threads: every chunk is an item of its own, and the merge follows.
  const int64_t block_floats = kBlockCols / kAttendCols * State::floats(a);
  std::vector<Item> items;
  std::vector<int64_t> state_of(blocks.size() + 1);
  for (size_t b = 0; b < blocks.size(); ++b) {
    state_of[b + 1] = state_of[b] + chunks_of(blocks[b]);
    for (int64_t c = 0; c < chunks_of(blocks[b]); ++c) {
      items.push_back(blocks[b]);
      items.back().chunk = c;
      items.back().state = state_of[b] + c;
    }
  }
  std::shared_ptr<void> memory = pool_.take(state_of.back() * block_floats * 4);
  float* states = static_cast<float*>(memory.get());
  parallel_tasks(static_cast<int64_t>(items.size()), [&](int64_t i) {
    const Item& item = items[static_cast<size_t>(i)];
    run(item, item.chunk, item.chunk + 1, make_work<ForwardWork>(a),
        states + item.state * block_floats);
  });
  parallel_tasks(static_cast<int64_t>(blocks.size()), [&](int64_t b) {
    const Item& item = blocks[static_cast<size_t>(b)];
    const CachedSegment& s = segments[static_cast<size_t>(item.segment)];
    const Queries queries{s.q_begin, s.q_rows, s.k_rows, item.kv_head * a.group};
    float* sum = states + state_of[static_cast<size_t>(b)] * block_floats;
    for (int64_t c = 1; c < chunks_of(item); ++c) {
      for (int t = 0; t < item.cols; t += kAttendCols) {
        const int n = std::min(kAttendCols, item.cols - t);
        int skip = 0;
        while (skip < n && queries.visible(a, item.c0 + t + skip) <= c * kChunk) ++skip;
        if (skip == n) continue;
        State to(sum + t / kAttendCols * State::floats(a)), from(to.m + c * block_floats);
        a.kernels->merge(to.m, to.l, to.o, from.m, from.l, from.o, skip, n, a.dv_pad, a.scale2);
      }
    }
    const ForwardWork w = make_work<ForwardWork>(a);
    finish(a, queries, item.c0, item.cols, sum, w.factor, y, Tensor());
  });
}

}  // namespace wels
