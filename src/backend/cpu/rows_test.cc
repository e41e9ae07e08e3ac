// The row ops at shapes that are split over threads, against RefDevice<double>; that their bits do
// not depend on the number of threads; and what they must do exactly: ties of the router, the
// stable sort, the order of additions. (Small, odd and strided shapes of every op: tests/ops.)
#include <numeric>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "backend/cpu/cpu_device.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tensor/pool.h"

namespace wels {
namespace {

// Runs every row op once on a device and keeps what it wrote, by name. Inputs depend on their name
// and dtype only; on the oracle outputs are f64.
class AllOps {
 public:
  AllOps(Device& dev, DType type, bool oracle) : dev_(dev), type_(type), oracle_(oracle) {
    elementwise();
    norms();
    rows();
    experts();
    optimiser();
  }
  std::map<std::string, Tensor> out;
  std::map<std::string, double> number;

 private:
  static constexpr int64_t kRows = 331, kCols = 263, kExperts = 67, kTop = 5;

  Tensor make(DType dtype, int64_t n, int64_t d) {
    keep_.push_back(make_tensor(pool_, dtype, n, d));
    return keep_.back().t;
  }
  static void fill(const Tensor& t, const std::string& name, DType rounded) {
    Rng rng(hash_name(name));
    for (int64_t i = 0; i < t.size(); ++i) {
      float v = static_cast<float>(rng.normal());
      if (rounded == DType::kBF16) v = to_float(to_bf16(v));
      switch (t.dtype) {
        case DType::kF64:
          t.row<double>(0)[i] = static_cast<double>(v);
          break;
        case DType::kF32:
          t.row<float>(0)[i] = v;
          break;
        default:
          t.row<bf16>(0)[i] = to_bf16(v);
          break;
      }
    }
  }
  Tensor in(const std::string& name, DType dtype, int64_t n = kRows, int64_t d = kCols) {
    Tensor t = make(dtype, n, d);
    fill(t, name, dtype);
    return t;
  }
  Tensor in(const std::string& name) { return in(name, type_); }
  // An output, or something that is added to: starts with random numbers.
  Tensor result(const std::string& name, DType dtype, int64_t n = kRows, int64_t d = kCols) {
    Tensor t = make(oracle_ ? DType::kF64 : dtype, n, d);
    fill(t, name, dtype);
    return out[name] = t;
  }
  Tensor result(const std::string& name) { return result(name, type_); }
  Tensor index(int64_t n, int64_t d, int64_t below, int32_t lowest = 0) {
    Tensor t = make(DType::kI32, n, d);
    Rng rng(static_cast<uint64_t>(n * d));
    for (int64_t i = 0; i < t.size(); ++i) {
      t.row<int32_t>(0)[i] =
          static_cast<int32_t>(rng.below(static_cast<uint64_t>(below - lowest))) + lowest;
    }
    return t;
  }
  static Weight weight(const Tensor& t) {
    Weight w;
    w.rows = t.rows;
    w.cols = t.cols;
    w.value = {t};
    return w;
  }

  void elementwise() {
    DType f32 = DType::kF32;
    Tensor wide = in("wide", f32), narrow = in("narrow"), other = in("other");
    dev_.copy(narrow, result("copy"), Accum::kSet);
    dev_.copy(wide, result("copy from f32"), Accum::kSet);
    dev_.copy(narrow, result("copy, added to f32", f32), Accum::kAdd);
    dev_.copy(wide, result("copy from f32, added"), Accum::kAdd);
    dev_.zero(result("zero"));
    dev_.add(wide, narrow, result("add to f32", f32));
    dev_.add(narrow, other, result("add"));
  }

  void norms() {
    DType f32 = DType::kF32;
    Weight gain = weight(in("gain", f32, 1, kCols)),
           narrow_gain = weight(in("narrow gain", type_, 1, kCols));
    for (DType x_type : {f32, type_}) {
      std::string of = x_type == f32 ? " of f32" : "";
      Tensor x = in("x", x_type), inv = result("inv_rms" + of, f32, kRows, 1), dy = in("dy");
      dev_.rms_norm(x, gain, 1e-5f, result("rms_norm" + of), inv);
      dev_.rms_norm(x, narrow_gain, 1e-5f, result("rms_norm, narrow gain" + of), Tensor());
      dev_.rms_norm_backward(x, gain, inv, dy, result("rms_norm dx" + of, x_type), Accum::kSet,
                             result("dgain" + of, f32, 1, kCols));
      dev_.rms_norm_backward(x, gain, inv, dy, result("rms_norm dx, added" + of, x_type),
                             Accum::kAdd, Tensor());
    }
    Tensor pos = index(1, kRows, 50), cos = in("cos", f32, 50, 18), sin = in("sin", f32, 50, 18);
    for (bool interleaved : {true, false}) {
      for (bool inverse : {true, false}) {
        RopeParams p{.heads = 5,
                     .head_dim = 47,
                     .rotated = 36,
                     .interleaved = interleaved,
                     .inverse = inverse};
        std::string of =
            std::string(interleaved ? " pairs" : " halves") + (inverse ? ", inverse" : "");
        Tensor x = in("rope x", type_, kRows, 5 * 47);
        dev_.rope(x, pos, cos, sin, p, result("rope" + of, type_, kRows, 5 * 47), Accum::kSet);
        dev_.rope(x, pos, cos, sin, p, result("rope added" + of, type_, kRows, 5 * 47),
                  Accum::kAdd);
      }
    }
  }

  void rows() {
    Tensor x = in("x"), some = index(1, kRows, kRows, -1), three = index(kRows, 3, kRows, -1);
    if (!oracle_) dev_.gather_rows(x, some, result("gather_rows"));
    dev_.gather_sum(x, three, result("gather_sum"), Accum::kSet);
    dev_.gather_sum(x, three, result("gather_sum added"), Accum::kAdd);
    Tensor backwards = make(DType::kI32, 1, kRows);
    for (int64_t i = 0; i < kRows; ++i)
      backwards.row<int32_t>(0)[i] = i % 7 == 3 ? -1 : static_cast<int32_t>(kRows - 1 - i);
    if (!oracle_) dev_.scatter_rows(x, backwards, result("scatter_rows"));
    Weight table = weight(in("table", DType::kF32, 40, kCols));
    Tensor token = index(1, kRows, 40);
    dev_.embed(token, table, result("embed"));
    dev_.embed_backward(token, in("dy"), result("dtable", DType::kF32, 40, kCols));
  }

  void experts() {
    DType f32 = DType::kF32;
    int64_t n = 2000;
    for (bool sigmoid : {true, false}) {
      std::string of = sigmoid ? "" : " softmax";
      RouteParams p{.experts = kExperts, .top_k = kTop, .sigmoid = sigmoid, .scale = 2.5};
      Tensor logits = in("logits", f32, n, kExperts), expert = make(DType::kI32, n, kTop),
             load = make(DType::kI32, 1, kExperts);
      Tensor w = result("route" + of, f32, n, kTop);
      dev_.route(logits, in("bias", f32, 1, kExperts), Tensor(), p, expert, w, load);
      out["expert" + of] = expert;
      out["load" + of] = load;
      dev_.route_backward(logits, expert, w, in("dweight", f32, n, kTop), p,
                          result("dlogits" + of, f32, n, kExperts));
      std::vector<AttendSegment> segments{{0, 900, 0, 0}, {900, 1, 0, 0}, {901, 1099, 0, 0}};
      number["balance_loss" + of] = dev_.balance_loss(logits, segments, p);
      dev_.balance_loss_backward(logits, segments, p, 3.0f,
                                 result("balance dlogits" + of, f32, n, kExperts));
    }
    Tensor offsets = make(DType::kI32, 1, kExperts + 1), token_of = make(DType::kI32, 1, n * kTop),
           slot = make(DType::kI32, n, kTop);
    dev_.dispatch(out["expert"], kExperts, offsets, token_of, slot);
    out["offsets"] = offsets;
    out["token_of"] = token_of;
    out["slot_of"] = slot;
    Tensor rows = in("expert rows", type_, n * kTop, 37), weight = in("weight", f32, n, kTop),
           shared = in("shared", type_, n, 37);
    dev_.combine(rows, slot, weight, shared, result("combine", type_, n, 37));
    dev_.combine_backward(rows, slot, weight, shared, result("drows", type_, n * kTop, 37),
                          result("dweight", f32, n, kTop));
  }

  void optimiser() {
    DType f32 = DType::kF32;
    number["sum_squares"] = dev_.sum_squares(in("x"));
    number["sum_squares, strided"] = dev_.sum_squares(in("x").col_range(3, 200));
    Tensor m = result("m", f32), v = result("v", f32), w = result("w", f32);
    for (int64_t i = 0; i < v.size(); ++i) {
      if (oracle_)
        v.row<double>(0)[i] = std::fabs(v.row<double>(0)[i]);
      else
        v.row<float>(0)[i] = std::fabs(v.row<float>(0)[i]);
    }
    dev_.adamw(w, in("g", f32), m, v, {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, 0.3f, 0.2f});
    dev_.axpby(0.25f, in("x", f32), -3.0f, result("axpby", f32));
  }

  Device& dev_;
  DType type_;
  bool oracle_;
  Pool pool_;
  std::vector<OwnedTensor> keep_;
};

double value(const Tensor& t, int64_t i) {
  switch (t.dtype) {
    case DType::kF64:
      return t.row<double>(0)[i];
    case DType::kF32:
      return static_cast<double>(t.row<float>(0)[i]);
    case DType::kBF16:
      return static_cast<double>(to_float(t.row<bf16>(0)[i]));
    default:
      return static_cast<double>(t.row<int32_t>(0)[i]);
  }
}

class Rows : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    threads_ = thread_count();
    try {
      dev_ = std::make_unique<CpuDevice>(GetParam());
    } catch (const Error& e) {
      GTEST_SKIP() << e.what();
    }
  }
  void TearDown() override { set_thread_count(threads_); }
  int threads_ = 1;
  std::unique_ptr<CpuDevice> dev_;
};

TEST_P(Rows, LargeShapesEqualTheReferenceInDouble) {
  set_thread_count(3);
  RefDevice<double> ref;
  for (DType type : {DType::kF32, DType::kBF16}) {
    AllOps got(*dev_, type, false), want(ref, type, true);
    for (auto& [name, w] : want.out) {
      const Tensor& g = got.out.at(name);
      double largest = 0, rounding = g.dtype == DType::kBF16 ? 0x1.01p-8 : 0;
      for (int64_t i = 0; i < w.size(); ++i) largest = std::max(largest, std::fabs(value(w, i)));
      for (int64_t i = 0; i < w.size(); ++i) {
        double bound =
            g.dtype == DType::kI32 ? 0 : rounding * std::fabs(value(w, i)) + 4e-6 * largest;
        ASSERT_NEAR(value(g, i), value(w, i), bound)
            << name << " at " << i << ", " << wels::name(type);
      }
    }
    for (auto& [name, w] : want.number)
      EXPECT_NEAR(got.number.at(name), w, 1e-6 * std::fabs(w)) << name;
  }
}

TEST_P(Rows, BitsDoNotDependOnTheNumberOfThreads) {
  for (DType type : {DType::kF32, DType::kBF16}) {
    set_thread_count(1);
    AllOps one(*dev_, type, false);
    for (int threads : {2, 5}) {
      set_thread_count(threads);
      AllOps more(*dev_, type, false);
      for (auto& [name, t] : one.out) {
        EXPECT_EQ(std::memcmp(t.data, more.out.at(name).data, static_cast<size_t>(t.bytes())), 0)
            << name << ", " << threads << " threads";
      }
      for (auto& [name, x] : one.number) EXPECT_EQ(x, more.number.at(name)) << name;
    }
  }
}

// Few distinct scores: nearly every choice is a tie, within and between groups.
TEST_P(Rows, TiesOfTheRouterGoToTheLowestNumber) {
  RefDevice<float> ref;
  Pool pool;
  for (RouteParams p :
       {RouteParams{.experts = 64, .top_k = 6},
        RouteParams{.experts = 256, .top_k = 8, .groups = 8, .top_groups = 4},
        RouteParams{.experts = 37, .top_k = 5, .sigmoid = false, .normalize = false},
        RouteParams{.experts = 24, .top_k = 3, .groups = 8, .top_groups = 3, .group_top2 = false},
        RouteParams{.experts = 9, .top_k = 8, .groups = 3, .top_groups = 2}}) {
    int64_t n = 500, e = p.experts;
    OwnedTensor logits = make_tensor(pool, DType::kF32, n, e),
                weight = make_tensor(pool, DType::kF32, n, p.top_k);
    OwnedTensor expert[2] = {make_tensor(pool, DType::kI32, n, p.top_k),
                             make_tensor(pool, DType::kI32, n, p.top_k)};
    OwnedTensor load = make_tensor(pool, DType::kI32, 1, e);
    Rng rng(5);
    for (int64_t i = 0; i < n * e; ++i)
      logits.t.row<float>(0)[i] = static_cast<float>(rng.below(3)) - 1.0f;
    dev_->route(logits.t, Tensor(), Tensor(), p, expert[0].t, weight.t, load.t);
    ref.route(logits.t, Tensor(), Tensor(), p, expert[1].t, weight.t, load.t);
    for (int64_t i = 0; i < n * p.top_k; ++i) {
      ASSERT_EQ(expert[0].t.row<int32_t>(0)[i], expert[1].t.row<int32_t>(0)[i])
          << "choice " << i << " of " << p.experts;
    }
  }
}

TEST_P(Rows, ChoicesThatAreMadeAlreadyAreKeptAndWeighedByTheirScores) {
  RefDevice<float> ref;
  Pool pool;
  for (RouteParams p :
       {RouteParams{.experts = 12, .top_k = 3, .scale = 2.5},
        RouteParams{.experts = 12, .top_k = 3, .sigmoid = false, .normalize = false}}) {
    constexpr int64_t kRows = 40;
    OwnedTensor logits = make_tensor(pool, DType::kF32, kRows, 12);
    OwnedTensor given = make_tensor(pool, DType::kI32, kRows, 3);
    Rng rng(6);
    for (int64_t i = 0; i < kRows * 12; ++i)
      logits.t.row<float>(0)[i] = static_cast<float>(rng.uniform()) - 0.5f;
    for (int64_t t = 0; t < kRows; ++t) {
      for (int j = 0; j < 3; ++j)
        given.t.row<int32_t>(t)[j] = t % 4 == 1 ? -1 : static_cast<int32_t>((t + 5 * j) % 12);
    }
    std::vector<float> weight[3];
    std::vector<int32_t> expert[3], load[3];
    for (int i = 0; i < 3; ++i) {  // the device's, ref's, and without what is given
      weight[i].resize(kRows * 3);
      expert[i].resize(kRows * 3);
      load[i].resize(12);
      Device& device = i == 1 ? static_cast<Device&>(ref) : *dev_;
      device.route(logits.t, Tensor(), i < 2 ? given.t : Tensor(), p,
                   Tensor(expert[i].data(), DType::kI32, kRows, 3),
                   Tensor(weight[i].data(), DType::kF32, kRows, 3),
                   Tensor(load[i].data(), DType::kI32, 1, 12));
    }
    EXPECT_EQ(expert[0], expert[1]);
    EXPECT_EQ(load[0], load[1]);
    for (size_t i = 0; i < weight[0].size(); ++i) {
      EXPECT_NEAR(weight[0][i], weight[1][i], 1e-6);
      int32_t own = given.t.row<int32_t>(0)[i];
      EXPECT_EQ(expert[0][i], own < 0 ? expert[2][i] : own);
      if (own < 0) {
        EXPECT_EQ(weight[0][i], weight[2][i]);
      }
    }
    EXPECT_EQ(std::accumulate(load[0].begin(), load[0].end(), 0), kRows * 3);
  }
}

// A model that has diverged must fail in its loss, not by an index out of range.
TEST_P(Rows, LogitsThatAreNotFiniteStillGiveDistinctExperts) {
  RouteParams p{.experts = 40, .top_k = 6, .groups = 4, .top_groups = 2};
  Pool pool;
  int64_t n = 64;
  OwnedTensor logits = make_tensor(pool, DType::kF32, n, 40),
              weight = make_tensor(pool, DType::kF32, n, 6);
  OwnedTensor expert = make_tensor(pool, DType::kI32, n, 6),
              load = make_tensor(pool, DType::kI32, 1, 40);
  const float kinds[] = {NAN, INFINITY, -INFINITY, 0.5f};
  for (bool sigmoid : {true, false}) {
    p.sigmoid = sigmoid;
    Rng rng(6);
    for (int64_t i = 0; i < n * 40; ++i)
      logits.t.row<float>(0)[i] = i < 40 ? NAN : kinds[rng.below(4)];
    dev_->route(logits.t, Tensor(), Tensor(), p, expert.t, weight.t, load.t);
    for (int64_t t = 0; t < n; ++t) {
      const int32_t* chosen = expert.t.row<int32_t>(t);
      for (int i = 0; i < 6; ++i) {
        ASSERT_GE(chosen[i], 0);
        ASSERT_LT(chosen[i], 40);
        for (int j = 0; j < i; ++j) ASSERT_NE(chosen[i], chosen[j]);
      }
    }
  }
}

TEST_P(Rows, EmbeddingGradientsAreAddedInTheOrderOfTheBatch) {
  set_thread_count(3);
  Pool pool;
  int64_t n = 700, d = 130;
  OwnedTensor token = make_tensor(pool, DType::kI32, 1, n),
              dy = make_tensor(pool, DType::kF32, n, d);
  OwnedTensor dw[2] = {make_tensor(pool, DType::kF32, 9, d), make_tensor(pool, DType::kF32, 9, d)};
  Rng rng(8);
  for (int64_t i = 0; i < n; ++i) token.t.row<int32_t>(0)[i] = static_cast<int32_t>(rng.below(9));
  for (int64_t i = 0; i < n * d; ++i) dy.t.row<float>(0)[i] = static_cast<float>(rng.normal());
  dev_->zero(dw[0].t);
  dev_->zero(dw[1].t);
  dev_->embed_backward(token.t, dy.t, dw[0].t);
  RefDevice<float>().embed_backward(token.t, dy.t, dw[1].t);
  EXPECT_EQ(std::memcmp(dw[0].t.data, dw[1].t.data, static_cast<size_t>(dw[0].t.bytes())), 0);
}

TEST_P(Rows, SumOfSquaresShowsNanAndInfinityWhereverTheyAre) {
  Pool pool;
  OwnedTensor t = make_tensor(pool, DType::kF32, 3, 40001);
  for (float bad : {NAN, INFINITY}) {
    for (int64_t at : {int64_t{0}, int64_t{16384}, t.t.size() - 1}) {
      for (int64_t i = 0; i < t.t.size(); ++i)
        t.t.row<float>(0)[i] = 1e30f;  // beyond f32 when squared
      EXPECT_NEAR(dev_->sum_squares(t.t) / (1e60 * 120003), 1, 1e-6);
      t.t.row<float>(0)[at] = bad;
      EXPECT_FALSE(std::isfinite(dev_->sum_squares(t.t)));
    }
  }
  EXPECT_EQ(dev_->sum_squares(t.t.row_range(0, 0)), 0);
}

INSTANTIATE_TEST_SUITE_P(Cpu, Rows, testing::Values("avx2", "avx512", "avx512_bf16"),
                         [](const auto& info) { return info.param; });

// What a cache in 8 bits makes of values that are none, too large or nearly nothing.
TEST(RowOps, blocks_of_q8_0_have_the_bits_of_the_plain_loops) {
  RefDevice<float> ref;
  constexpr int64_t kCols = 90, kWidth = 96;
  std::vector<float> values;
  Rng rng(3);
  auto row_of = [&](float scale) {
    for (int64_t i = 0; i < kCols; ++i) values.push_back(static_cast<float>(rng.normal()) * scale);
  };
  for (float scale : {0.0f, 1e-42f, 1e-9f, 3e-6f, 1e-4f, 1.0f, 3e4f, 8e6f, 1e7f, 1e38f})
    row_of(scale);
  for (float odd : {NAN, INFINITY, -INFINITY}) {
    row_of(1);
    values[values.size() - 40] = odd;
  }
  // Ties: 127 is the largest, so d = 1 and q = x.
  for (int64_t i = 0; i < kCols; ++i)
    values.push_back(i % 32 == 0 ? -127.0f : static_cast<float>(i % 16) - 7.5f);
  int64_t n = static_cast<int64_t>(values.size()) / kCols;
  std::vector<int32_t> index(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) index[static_cast<size_t>(i)] = static_cast<int32_t>(n - 1 - i);
  Tensor rows(index.data(), DType::kI32, 1, n);
  std::vector<bf16> narrow;
  for (float v : values) narrow.push_back(to_bf16(v));
  for (Tensor x : {Tensor(values.data(), DType::kF32, n, kCols),
                   Tensor(narrow.data(), DType::kBF16, n, kCols)}) {
    size_t bytes = static_cast<size_t>(n * row_bytes(DType::kQ8_0, kWidth));
    std::vector<uint8_t> want(bytes, 0xaa), got(bytes, 0xbb);
    ref.scatter_rows(x, rows, Tensor(want.data(), DType::kQ8_0, n, kWidth));
    for (const char* isa : {"avx2", "avx512", "avx512_bf16"}) {
      std::unique_ptr<CpuDevice> device;
      try {
        device = std::make_unique<CpuDevice>(isa);
      } catch (const Error&) {
        continue;
      }
      Tensor pool(got.data(), DType::kQ8_0, n, kWidth);
      device->scatter_rows(x, rows, pool);
      for (size_t i = 0; i < bytes; ++i)
        ASSERT_EQ(want[i], got[i]) << isa << " " << name(x.dtype) << " byte " << i;
      std::vector<float> back(static_cast<size_t>(n * kWidth));
      device->gather_rows(pool, rows, Tensor(back.data(), DType::kF32, n, kWidth));
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t begin = 0; begin < kCols; begin += 32) {
          float largest = 0;
          bool whole = true;
          int64_t end = std::min(begin + 32, kCols);
          auto at = [&](int64_t c) {
            return x.dtype == DType::kF32 ? x.row<float>(r)[c] : to_float(x.row<bf16>(r)[c]);
          };
          for (int64_t c = begin; c < end; ++c) {
            largest = std::max(largest, std::abs(at(c)));
            whole = whole && std::isfinite(at(c));
          }
          whole = whole && largest <= 65504 * 127.0f;
          for (int64_t c = begin; c < end; ++c) {
            float v = back[static_cast<size_t>(r * kWidth + c)];
            ASSERT_EQ(std::isnan(v), !whole) << r << ", " << c;
            // Halves below 6e-5 have steps of 6e-8, so very small blocks lose more.
            if (whole) {
              ASSERT_NEAR(v, at(c), largest * 0.005f + 4e-6f) << r << ", " << c;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace wels
