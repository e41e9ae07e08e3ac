// Attention of the CPU device against the plain loops in double, for every instruction set this CPU
// has.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend/cpu/cpu_device.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"

namespace wels {
namespace {

// A tensor that owns its memory, random normal or filled with NaN.
struct Data {
  std::vector<uint8_t> bytes;
  Tensor t;
  Data() = default;
  Data(DType dtype, int64_t rows, int64_t cols)
      : bytes(static_cast<size_t>(row_bytes(dtype, cols) * rows + 64)) {
    t = Tensor(bytes.data(), dtype, rows, cols);
    for (int64_t i = 0; i < rows * cols; ++i) set(i, NAN);
  }
  Data(DType dtype, int64_t rows, int64_t cols, uint64_t seed) : Data(dtype, rows, cols) {
    Rng rng(seed);
    for (int64_t i = 0; i < rows * cols; ++i) set(i, rng.normal());
  }
  Data(Data&&) = default;
  Data& operator=(Data&&) = default;
  void set(int64_t i, double x) {
    if (t.dtype == DType::kF64) static_cast<double*>(t.data)[i] = x;
    if (t.dtype == DType::kF32) static_cast<float*>(t.data)[i] = static_cast<float>(x);
    if (t.dtype == DType::kBF16) static_cast<bf16*>(t.data)[i] = to_bf16(static_cast<float>(x));
  }
  double get(int64_t i) const {
    if (t.dtype == DType::kF64) return static_cast<double*>(t.data)[i];
    if (t.dtype == DType::kF32) return static_cast<double>(static_cast<float*>(t.data)[i]);
    return static_cast<double>(to_float(static_cast<bf16*>(t.data)[i]));
  }
  bool same_bits(const Data& o) const {
    return t.rows == o.t.rows && t.cols == o.t.cols &&
           std::memcmp(bytes.data(), o.bytes.data(), static_cast<size_t>(t.bytes())) == 0;
  }
};

std::vector<std::string> isas() {
  std::vector<std::string> have;
  for (const char* isa : {"avx2", "avx512", "avx512_vnni", "avx512_bf16"}) {
    try {
      CpuDevice device(isa);
      have.push_back(isa);
    } catch (const Error&) {
    }
  }
  return have;
}

// Largest error in units of the largest value.
void expect_close(const Data& got, const Data& want, const char* what) {
  ASSERT_EQ(got.t.rows, want.t.rows);
  ASSERT_EQ(got.t.cols, want.t.cols);
  double error = 0, largest = 1e-3, dot = 0, gg = 1e-30, ww = 1e-30;
  for (int64_t i = 0; i < got.t.size(); ++i) {
    double g = got.get(i), w = want.get(i);
    ASSERT_EQ(std::isnan(g), std::isnan(w))
        << what << " at " << i / got.t.cols << ", " << i % got.t.cols;
    if (std::isnan(g)) continue;
    error = std::max(error, std::abs(g - w));
    largest = std::max(largest, std::abs(w));
    dot += g * w;
    gg += g * g;
    ww += w * w;
  }
  bool rounded = got.t.dtype == DType::kBF16;
  EXPECT_LE(error, largest * (rounded ? 1.5e-2 : 2e-5)) << what;
  if (ww > 1e-20) {
    EXPECT_GE(dot / std::sqrt(gg * ww), rounded ? 1 - 2e-5 : 1 - 1e-9) << what;
  }
}

// Everything a case needs. kv holds keys and values of each head side by side, as kv_b makes them.
struct Case {
  AttendParams p;
  std::vector<AttendSegment> segments;
  int64_t n = 0, keys = 0;
  Case(int heads, int kv_heads, int dk, int dr, int dv,
       std::vector<std::pair<int64_t, int64_t>> rows_and_past) {
    p.heads = heads, p.kv_heads = kv_heads, p.dk = dk, p.dr = dr, p.dv = dv;
    p.k_step = p.v_step = dk + dv;
    p.scale = 1.0f / std::sqrt(static_cast<float>(dk + dr));
    for (auto [rows, past] : rows_and_past) {
      segments.push_back({n, rows, keys, rows + past});
      n += rows;
      keys += rows + past;
    }
  }
};

struct Result {
  Data q, kv, shared, y, lse, dy, dq, dkv, dshared;
  // The same numbers whatever the dtype: rounded to `values` first.
  Result(Device& device, const Case& c, DType dtype, DType values, bool backward = true) {
    auto make = [&](int64_t rows, int64_t cols, uint64_t seed) {
      Data x(values, rows, cols, seed), y(dtype, rows, cols);
      for (int64_t i = 0; i < x.t.size(); ++i) y.set(i, x.get(i));
      return y;
    };
    const AttendParams& p = c.p;
    DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    q = make(c.n, p.heads * (p.dk + p.dr), 1);
    kv = make(c.keys, p.kv_heads * (p.dk + p.dv), 2);
    if (p.dr > 0) shared = make(c.keys, p.dr, 3);
    dy = make(c.n, p.heads * p.dv, 4);
    y = Data(dtype, c.n, p.heads * p.dv);
    lse = Data(wide, c.n, p.heads);
    device.attend(q.t, kv.t, v_of(kv, p), shared.t, c.segments, p, y.t, lse.t);
    if (!backward) return;
    dq = Data(dtype, c.n, q.t.cols);
    dkv = Data(dtype, c.keys, kv.t.cols);
    if (p.dr > 0) dshared = Data(dtype, c.keys, p.dr);
    device.attend_backward(q.t, kv.t, v_of(kv, p), shared.t, c.segments, p, y.t, lse.t, dy.t, dq.t,
                           dkv.t, v_of(dkv, p), dshared.t);
  }
  static Tensor v_of(const Data& kv, const AttendParams& p) {
    return kv.t.col_range(p.dk, kv.t.cols - p.dk);
  }
};

std::vector<Case> cases() {
  return {
      Case(4, 4, 32, 16, 32, {{256, 0}}),
      Case(2, 2, 24, 16, 20, {{1, 0}, {63, 0}, {64, 0}, {65, 0}, {130, 0}}),
      Case(3, 3, 5, 3, 7, {{33, 0}, {0, 9}, {2, 0}}),
      Case(6, 2, 32, 0, 16, {{70, 0}, {5, 100}, {1, 63}}),
      Case(8, 1, 16, 8, 40, {{66, 3}, {129, 0}}),
      Case(1, 1, 128, 64, 128, {{200, 0}}),
      Case(2, 2, 16, 16, 16, {{700, 0}, {30, 1100}}),
      Case(2, 1, 1, 0, 1, {{17, 2}}),
  };
}

TEST(Attend, both_directions_match_the_plain_loops) {
  RefDevice<double> ref;
  for (const Case& c : cases()) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      Result want(ref, c, DType::kF64, dtype);
      for (const std::string& isa : isas()) {
        SCOPED_TRACE(isa + " " + std::string(name(dtype)) + " heads " + std::to_string(c.p.heads) +
                     " dk " + std::to_string(c.p.dk) + " dv " + std::to_string(c.p.dv) + " n " +
                     std::to_string(c.n));
        CpuDevice device(isa);
        Result got(device, c, dtype, dtype);
        expect_close(got.y, want.y, "y");
        for (int64_t i = 0; i < got.lse.t.size(); ++i)
          ASSERT_NEAR(got.lse.get(i), want.lse.get(i), 2e-5);
        expect_close(got.dq, want.dq, "dq");
        expect_close(got.dkv, want.dkv, "dk, dv");
        if (c.p.dr > 0) expect_close(got.dshared, want.dshared, "dshared");
      }
    }
  }
}

TEST(Attend, rows_of_no_segment_are_zero) {
  CpuDevice device;
  Case c(2, 2, 16, 16, 16, {{10, 0}, {20, 0}});
  c.segments.erase(c.segments.begin());
  Result r(device, c, DType::kF32, DType::kF32);
  for (int64_t i = 0; i < 10 * r.y.t.cols; ++i) ASSERT_EQ(r.y.get(i), 0.0);
  for (int64_t i = 0; i < 10 * r.dq.t.cols; ++i) ASSERT_EQ(r.dq.get(i), 0.0);
  for (int64_t i = 0; i < 10 * r.dkv.t.cols; ++i) ASSERT_EQ(r.dkv.get(i), 0.0);
  for (int64_t i = 0; i < 10 * r.dshared.t.cols; ++i) ASSERT_EQ(r.dshared.get(i), 0.0);
}

TEST(Attend, no_rows_do_nothing) {
  CpuDevice device;
  Case c(2, 2, 16, 16, 16, {});
  Result r(device, c, DType::kBF16, DType::kBF16);
  EXPECT_EQ(r.y.t.rows, 0);
}

TEST(Attend, scores_far_apart_do_not_overflow) {
  for (const std::string& isa : isas()) {
    CpuDevice device(isa);
    RefDevice<double> ref;
    Case c(2, 2, 16, 0, 16, {{150, 0}});
    c.p.scale = 300.0f;  // scores of thousands: each softmax has one winner
    Result got(device, c, DType::kF32, DType::kF32, false),
        want(ref, c, DType::kF64, DType::kF32, false);
    for (int64_t i = 0; i < got.y.t.size(); ++i)
      ASSERT_NEAR(got.y.get(i), want.y.get(i), 2e-2) << isa;
  }
}

// The gradients of many segments (a thread takes all heads of one) have the bits of each segment
// alone (a thread per head).
TEST(Attend, a_segment_has_the_same_bits_in_any_batch_and_with_any_threads) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<std::pair<int64_t, int64_t>> rows;
    for (int i = 0; i < 40; ++i) rows.push_back({1 + i * 7 % 90, i % 3});
    Case all(4, 2, 24, 16, 32, rows);
    CpuDevice device;
    int threads = thread_count();
    Result whole(device, all, dtype, dtype);
    for (int t : {1, 3}) {
      set_thread_count(t);
      Result again(device, all, dtype, dtype);
      EXPECT_TRUE(whole.y.same_bits(again.y) && whole.lse.same_bits(again.lse));
      EXPECT_TRUE(whole.dq.same_bits(again.dq) && whole.dkv.same_bits(again.dkv) &&
                  whole.dshared.same_bits(again.dshared));
    }
    set_thread_count(threads);
    for (size_t i : {size_t{0}, size_t{7}, size_t{39}}) {
      Case one = all;
      one.segments = {all.segments[i]};
      Result alone(device, one, dtype, dtype);
      const AttendSegment& s = all.segments[i];
      auto same_rows = [](const Data& a, const Data& b, int64_t begin, int64_t n) {
        return std::memcmp(a.t.row_raw(begin), b.t.row_raw(begin),
                           static_cast<size_t>(n * row_bytes(a.t.dtype, a.t.cols))) == 0;
      };
      EXPECT_TRUE(same_rows(whole.y, alone.y, s.q_begin, s.q_rows)) << i;
      EXPECT_TRUE(same_rows(whole.dq, alone.dq, s.q_begin, s.q_rows)) << i;
      EXPECT_TRUE(same_rows(whole.dkv, alone.dkv, s.k_begin, s.k_rows)) << i;
      EXPECT_TRUE(same_rows(whole.dshared, alone.dshared, s.k_begin, s.k_rows)) << i;
    }
  }
}

// Rows of a sequence scattered over pages of a pool, keys and values as AttendParams says.
struct Paged {
  Data pool;
  std::vector<int32_t> pages;
  int page_rows;
  Paged(DType dtype, int64_t rows, int width, int page_rows, uint64_t seed) : page_rows(page_rows) {
    int64_t n = (rows + page_rows - 1) / page_rows;
    pool = Data(dtype, (n + 3) * page_rows, width, seed);
    for (int64_t i = 0; i < n; ++i) pages.push_back(static_cast<int32_t>((i * 7 + 3) % (n + 3)));
    std::vector<bool> used(static_cast<size_t>(n + 3));
    for (int32_t& p : pages) {
      while (used[static_cast<size_t>(p)]) p = static_cast<int32_t>((p + 1) % (n + 3));
      used[static_cast<size_t>(p)] = true;
    }
  }
};

// The rows of a pool in 8 bits, as the device stores them.
struct EightBits {
  std::vector<uint8_t> bytes;
  Tensor t;
  EightBits(Device& device, const Tensor& pool)
      : bytes(static_cast<size_t>(pool.rows * row_bytes(DType::kQ8_0, pool.cols))),
        t(bytes.data(), DType::kQ8_0, pool.rows, pool.cols) {
    std::vector<int32_t> rows(static_cast<size_t>(pool.rows));
    std::iota(rows.begin(), rows.end(), 0);
    device.scatter_rows(pool, Tensor(rows.data(), DType::kI32, 1, pool.rows), t);
  }
};

Data as(const Data& x, DType dtype) {
  Data y(dtype, x.t.rows, x.t.cols);
  for (int64_t i = 0; i < x.t.size(); ++i) y.set(i, x.get(i));
  return y;
}

struct CachedCase {
  AttendParams p;
  int k_col, v_col, width;
};
std::vector<CachedCase> cached_cases() {
  AttendParams latent;  // absorbed MLA
  latent.heads = 20, latent.kv_heads = 1, latent.dk = 48, latent.dr = 16, latent.dv = 48,
  latent.scale = 0.2f;
  AttendParams odd = latent;
  odd.heads = 3, odd.dk = 23, odd.dr = 4, odd.dv = 23;
  AttendParams grouped;  // GQA: all keys, then all values
  grouped.heads = 6, grouped.kv_heads = 2, grouped.dk = 32, grouped.dv = 24, grouped.k_step = 32,
  grouped.v_step = 24;
  grouped.scale = 0.2f;
  AttendParams expanded;  // MLA: keys and values of each head, then k^R
  expanded.heads = expanded.kv_heads = 4, expanded.dk = 16, expanded.dr = 8, expanded.dv = 12,
  expanded.k_step = expanded.v_step = 28, expanded.scale = 0.2f, expanded.shared_col = 112;
  AttendParams even = grouped;  // keys and values whole vectors: read where they lie
  even.dv = even.v_step = 32;
  return {{latent, 0, 0, 64},
          {odd, 2, 2, 30},
          {grouped, 0, 64, 112},
          {even, 0, 64, 128},
          {expanded, 0, 16, 120}};
}
// In pages of 64 the keys of a tile lie in one.
std::vector<std::pair<DType, int>> types_and_pages() {
  return {{DType::kF32, 16}, {DType::kBF16, 16}, {DType::kF32, 64}, {DType::kBF16, 64}};
}

TEST(AttendCached, matches_the_plain_loops) {
  RefDevice<double> ref;
  for (const CachedCase& c : cached_cases()) {
    for (auto [dtype, page_rows] : types_and_pages()) {
      Paged a(dtype, 1700, c.width, page_rows, 1);
      Data wide = as(a.pool, DType::kF64);
      std::span<const int32_t> pages(a.pages);
      for (const std::vector<CachedSegment>& segments :
           {std::vector<CachedSegment>{{0, 1, 1700, pages}},
            {{0, 3, 600, pages}, {3, 1, 1, pages}, {4, 0, 5, pages}},
            {{0, 90, 700, pages}}}) {
        int64_t n = segments.back().q_begin + segments.back().q_rows;
        Data q(dtype, n, c.p.heads * (c.p.dk + c.p.dr), 5), q_wide = as(q, DType::kF64);
        Data want(DType::kF64, n, c.p.heads * c.p.dv);
        ref.attend_cached(q_wide.t, wide.t, page_rows, segments, c.p, c.k_col, c.v_col, want.t);
        for (const std::string& isa : isas()) {
          SCOPED_TRACE(isa + " " + std::string(name(dtype)) + " width " + std::to_string(c.width));
          CpuDevice device(isa);
          Data y(dtype, n, c.p.heads * c.p.dv);
          device.attend_cached(q.t, a.pool.t, page_rows, segments, c.p, c.k_col, c.v_col, y.t);
          expect_close(y, want, "y");
        }
      }
    }
  }
}

TEST(AttendCached, whole_prefill_chunks_and_single_tokens_have_the_same_bits) {
  int threads = thread_count();
  for (const CachedCase& c : cached_cases()) {
    for (auto type_and_page : types_and_pages()) {
      const DType dtype = type_and_page.first;
      const int64_t page_rows = type_and_page.second, n = 1150;
      Paged a(dtype, n, c.width, page_rows, 1);
      Data q(dtype, n, c.p.heads * (c.p.dk + c.p.dr), 5), whole(dtype, n, c.p.heads * c.p.dv);
      CpuDevice device;
      std::vector<CachedSegment> all = {{0, n, n, a.pages}};
      device.attend_cached(q.t, a.pool.t, page_rows, all, c.p, c.k_col, c.v_col, whole.t);
      auto check = [&](int64_t begin, int64_t rows) {
        Data y(dtype, rows, whole.t.cols);
        std::vector<CachedSegment> one = {{0, rows, begin + rows, a.pages}};
        device.attend_cached(q.t.row_range(begin, rows), a.pool.t, page_rows, one, c.p, c.k_col,
                             c.v_col, y.t);
        EXPECT_EQ(
            std::memcmp(y.t.row_raw(0), whole.t.row_raw(begin), static_cast<size_t>(y.t.bytes())),
            0)
            << begin << " + " << rows << " " << name(dtype);
      };
      for (int t : {1, 2, 8}) {
        set_thread_count(t);
        for (int64_t row : {0, 1, 63, 64, 511, 512, 513, 1023, 1024, 1149}) check(row, 1);
        check(0, 333);
        check(333, 5);
        check(338, 812);
      }
      set_thread_count(threads);
    }
  }
}

// A pool of another type: the same whatever the cut, and near the pool it was made from.
TEST(AttendCached, a_pool_in_eight_bits_gives_the_same_bits_in_any_cut_and_nearly_the_values) {
  AttendParams latent, grouped;
  latent.heads = 20, latent.kv_heads = 1, latent.dk = 48, latent.dr = 16, latent.dv = 48,
  latent.scale = 0.15f, latent.shared_col = 64;
  grouped.heads = 6, grouped.kv_heads = 2, grouped.dk = 32, grouped.dv = 24, grouped.k_step = 32,
  grouped.v_step = 32, grouped.scale = 0.15f;
  AttendParams blocks = latent;  // the key is whole blocks: scores may be in int8
  blocks.dk = 64, blocks.dr = 32, blocks.dv = 64, blocks.scale = 0.1f;
  for (const CachedCase& c : {CachedCase{latent, 0, 0, 96}, CachedCase{grouped, 0, 64, 128},
                              CachedCase{blocks, 0, 0, 96}}) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      for (const std::string& isa : isas()) {
        SCOPED_TRACE(isa + " " + std::string(name(dtype)) + " width " + std::to_string(c.width));
        CpuDevice device(isa);
        const int64_t n = 600;
        Paged a(dtype, n, c.width, 16, 1);
        EightBits eight(device, a.pool.t);
        Data q(dtype, n, c.p.heads * (c.p.dk + c.p.dr), 5), whole(dtype, n, c.p.heads * c.p.dv),
            plain(dtype, n, c.p.heads * c.p.dv);
        std::vector<CachedSegment> all = {{0, n, n, a.pages}};
        device.attend_cached(q.t, eight.t, 16, all, c.p, c.k_col, c.v_col, whole.t);
        device.attend_cached(q.t, a.pool.t, 16, all, c.p, c.k_col, c.v_col, plain.t);
        double error = 0, size = 0;
        for (int64_t i = 0; i < whole.t.size(); ++i) {
          error += (whole.get(i) - plain.get(i)) * (whole.get(i) - plain.get(i));
          size += plain.get(i) * plain.get(i);
        }
        EXPECT_LT(std::sqrt(error / size), 0.03);
        EXPECT_GT(error, 0);
        for (auto [begin, count] : {std::pair<int64_t, int64_t>{0, 1},
                                    {511, 1},
                                    {512, 1},
                                    {599, 1},
                                    {0, 333},
                                    {338, 262}}) {
          Data y(dtype, count, whole.t.cols);
          std::vector<CachedSegment> one = {{0, count, begin + count, a.pages}};
          device.attend_cached(q.t.row_range(begin, count), eight.t, 16, one, c.p, c.k_col, c.v_col,
                               y.t);
          EXPECT_EQ(
              std::memcmp(y.t.row_raw(0), whole.t.row_raw(begin), static_cast<size_t>(y.t.bytes())),
              0)
              << begin << " + " << count;
        }
      }
    }
  }
}

// The queries as device.h says that they are rounded for scores in int8.
Data rounded_queries(const Data& q) {
  Data out(DType::kF64, q.t.rows, q.t.cols);
  for (int64_t at = 0; at < q.t.size(); at += 32) {
    float most = 0;
    for (int64_t i = at; i < at + 32; ++i)
      most = std::max(most, std::abs(static_cast<float>(q.get(i))));
    const float scale = most / 127, inverse = most > 0 ? 1 / scale : 0;
    for (int64_t i = at; i < at + 32; ++i) {
      double whole = std::nearbyint(static_cast<float>(q.get(i)) * inverse);
      out.set(i, whole * static_cast<double>(scale));
    }
  }
  return out;
}

TEST(AttendCached, scores_in_int8_are_those_of_the_rounded_queries) {
  RefDevice<double> ref;
  AttendParams latent, grouped;
  latent.heads = 20, latent.kv_heads = 1, latent.dk = 64, latent.dr = 32, latent.dv = 64,
  latent.scale = 0.1f, latent.shared_col = 64;
  grouped.heads = 6, grouped.kv_heads = 2, grouped.dk = 32, grouped.dv = 24, grouped.k_step = 32,
  grouped.v_step = 32, grouped.scale = 0.15f;
  for (const CachedCase& c : {CachedCase{latent, 0, 0, 96}, CachedCase{grouped, 0, 64, 128}}) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      for (const std::string isa : {"avx512_vnni", "avx512_bf16"}) {
        if (std::ranges::count(isas(), isa) == 0) continue;
        SCOPED_TRACE(isa + " " + std::string(name(dtype)) + " width " + std::to_string(c.width));
        CpuDevice device(isa);
        const int64_t n = 1150;
        Paged a(dtype, n, c.width, 16, 1);
        EightBits eight(device, a.pool.t);
        for (int64_t count : {1, 70}) {
          Data q(dtype, count, c.p.heads * (c.p.dk + c.p.dr), 5);
          Data y(dtype, count, c.p.heads * c.p.dv), want(DType::kF64, count, y.t.cols);
          std::vector<CachedSegment> one = {{0, count, n, a.pages}};
          device.attend_cached(q.t, eight.t, 16, one, c.p, c.k_col, c.v_col, y.t);
          ref.attend_cached(rounded_queries(q).t, eight.t, 16, one, c.p, c.k_col, c.v_col, want.t);
          expect_close(y, want, "y");
        }
      }
    }
  }
}

// The same keys through attend and through the cache.
TEST(AttendCached, has_the_bits_of_attend) {
  for (const CachedCase& c : cached_cases()) {
    if (c.p.dr > 0 && c.p.shared_col < 0) continue;  // attend has no keys with k^R behind them
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const int64_t n = 800;
      const AttendParams& p = c.p;
      Data kv(dtype, n, c.width, 1), q(dtype, n, p.heads * (p.dk + p.dr), 2),
          y(dtype, n, p.heads * p.dv), z(dtype, n, p.heads * p.dv);
      std::vector<int32_t> pages;
      for (int i = 0; i < 50; ++i) pages.push_back(i);
      CpuDevice device;
      std::vector<AttendSegment> plain = {{0, n, 0, n}};
      std::vector<CachedSegment> cached = {{0, n, n, pages}};
      device.attend(q.t, kv.t, kv.t.col_range(c.v_col, c.width - c.v_col),
                    p.dr > 0 ? kv.t.col_range(p.shared_col, p.dr) : Tensor(), plain, p, y.t,
                    Tensor());
      device.attend_cached(q.t, kv.t, 16, cached, p, c.k_col, c.v_col, z.t);
      EXPECT_TRUE(y.same_bits(z)) << name(dtype) << " width " << c.width;
    }
  }
}

Weight weight_of(const Data& value) {
  Weight w;
  w.name = "kv_b";
  w.rows = value.t.rows, w.cols = value.t.cols;
  w.value = {value.t};
  return w;
}

TEST(Absorb, both_products_match_the_plain_loops_and_rows_stand_alone) {
  RefDevice<double> ref;
  struct Shape {
    int heads, dn, dr, dv, r;
  };
  for (Shape s : {Shape{4, 32, 16, 32, 128},
                  {3, 48, 8, 16, 40},
                  {2, 24, 16, 20, 33},
                  {3, 5, 3, 6, 7},
                  {2, 128, 64, 128, 512}}) {
    for (auto [dtype, stored] : {std::pair{DType::kF32, DType::kF32},
                                 {DType::kBF16, DType::kBF16},
                                 {DType::kF32, DType::kBF16}}) {
      for (int64_t n : {0, 1, 7, 200}) {
        Data w(stored, s.heads * (s.dn + s.dv), s.r, 1), q(dtype, n, s.heads * (s.dn + s.dr), 2),
            x(dtype, n, s.heads * s.r, 3);
        Data w_wide = as(w, DType::kF64), q_wide = as(q, DType::kF64), x_wide = as(x, DType::kF64);
        Data want_q(DType::kF64, n, s.heads * (s.r + s.dr)), want_y(DType::kF64, n, s.heads * s.dv);
        Weight wide = weight_of(w_wide);
        ref.absorb_query(q_wide.t, wide, s.heads, s.dn, s.dr, s.dv, want_q.t);
        ref.absorb_output(x_wide.t, wide, s.heads, s.dn, s.dv, want_y.t);
        for (const std::string& isa : isas()) {
          SCOPED_TRACE(isa + " " + std::string(name(dtype)) + " of " + std::string(name(stored)) +
                       " dn " + std::to_string(s.dn) + " n " + std::to_string(n));
          CpuDevice device(isa);
          Weight weight = weight_of(w);
          Data got_q(dtype, n, want_q.t.cols), got_y(dtype, n, want_y.t.cols);
          device.absorb_query(q.t, weight, s.heads, s.dn, s.dr, s.dv, got_q.t);
          device.absorb_output(x.t, weight, s.heads, s.dn, s.dv, got_y.t);
          expect_close(got_q, want_q, "query");
          expect_close(got_y, want_y, "output");
          if (n < 7) continue;
          Data one_q(dtype, 1, want_q.t.cols), one_y(dtype, 1, want_y.t.cols);
          device.absorb_query(q.t.row_range(n - 1, 1), weight, s.heads, s.dn, s.dr, s.dv, one_q.t);
          device.absorb_output(x.t.row_range(n - 1, 1), weight, s.heads, s.dn, s.dv, one_y.t);
          EXPECT_EQ(std::memcmp(one_q.t.data, got_q.t.row_raw(n - 1),
                                static_cast<size_t>(one_q.t.bytes())),
                    0);
          EXPECT_EQ(std::memcmp(one_y.t.data, got_y.t.row_raw(n - 1),
                                static_cast<size_t>(one_y.t.bytes())),
                    0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace wels
