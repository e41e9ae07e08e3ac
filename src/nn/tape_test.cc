// The tape's accumulation: values used once, twice, not at all, and through every op that shares or
// splits rows; against central differences in double.
#include "nn/tape.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "backend/registry.h"
#include "nn/ops.h"

namespace wels {
namespace {

class TapeTest : public testing::Test {
 protected:
  Pool pool_;
  std::unique_ptr<Device> dev_ = make_device("ref:double");

  Var input(Ctx& ctx, const std::vector<double>& x, int64_t rows) {
    Var v = ctx.make(DType::kF64, rows, static_cast<int64_t>(x.size()) / rows);
    dev_->upload(x.data(), v.t);
    return v;
  }

  // d/dx of Σ_i c_i·y_i with y = fn(x) and fixed c, by the tape and by differences.
  void check(const std::vector<double>& x, int64_t rows, std::function<Var(Ctx&, const Var&)> fn) {
    auto value = [&](const std::vector<double>& at, Tape* tape, std::vector<double>* gradient) {
      Ctx ctx{.dev = *dev_, .pool = pool_, .tape = tape, .dtype = DType::kF64};
      Var in = input(ctx, at, rows), y = fn(ctx, in);
      double sum = 0;
      std::vector<double> c(static_cast<size_t>(y.t.size()));
      for (size_t i = 0; i < c.size(); ++i) {
        c[i] = std::sin(static_cast<double>(i) + 1);
        sum += c[i] * static_cast<const double*>(y.t.data)[i];
      }
      if (tape) {
        dev_->upload(c.data(), tape->grad_out(y).t);
        tape->backward();
        gradient->resize(at.size());
        dev_->download(tape->grad(in), gradient->data());
      }
      return sum;
    };
    Tape tape(*dev_, pool_);
    std::vector<double> gradient;
    value(x, &tape, &gradient);
    for (size_t i = 0; i < x.size(); ++i) {
      std::vector<double> up = x, down = x;
      up[i] += 1e-5;
      down[i] -= 1e-5;
      EXPECT_NEAR(gradient[i], (value(up, nullptr, nullptr) - value(down, nullptr, nullptr)) / 2e-5,
                  1e-6)
          << "x[" << i << "]";
    }
  }
  // A frozen op that is not linear, [n, 3] to [n, 3].
  Var bend(Ctx& c, const Var& x) { return gated_matmul(c, x, gate_, up_); }
  static Weight square(std::vector<double>& values) {
    Weight w;
    w.rows = w.cols = 3;
    w.value = {Tensor(values.data(), DType::kF64, 3, 3)};
    return w;
  }

  const std::vector<double> x_{0.3, -1.2, 0.7, 2.1, -0.4, 0.9};
  std::vector<double> gate_values_{1, 0.5, -0.3, 0, 2, 0.4, 0.1, -0.6, 1.5},
      up_values_{0.7, 0, 0.2, -1, 1, 0.3, 0.6, 0.8, -0.5};
  Weight gate_ = square(gate_values_), up_ = square(up_values_);
};

TEST_F(TapeTest, AValueUsedTwiceByOneOpGetsBothGradients) {
  check(x_, 2, [](Ctx& c, const Var& x) { return add(c, x, x); });
  check(x_, 2, [](Ctx& c, const Var& x) { return concat(c, x, x); });
}

TEST_F(TapeTest, AValueUsedByTwoOpsGetsTheirSum) {
  check(x_, 2, [this](Ctx& c, const Var& x) {
    Var y = bend(c, x);
    return add(c, add(c, x, y), add(c, bend(c, y), bend(c, x)));
  });
  check(x_, 2, [](Ctx& c, const Var& x) { return add(c, scale(c, x, 0.7f), scale(c, x, -2)); });
}

TEST_F(TapeTest, SelectedRowsGetTheirGradientAndTheOthersNone) {
  check(x_, 3, [](Ctx& c, const Var& x) { return select_rows(c, x, {2, 0}); });
  check(x_, 3, [](Ctx& c, const Var& x) {
    return add(c, select_rows(c, x, {2, 0}), select_rows(c, x, {1, 2}));
  });
}

TEST_F(TapeTest, RecomputationGivesTheSameGradient) {
  check(x_, 2, [this](Ctx& c, const Var& x) {
    return recompute(c, bend(c, x), [this](Ctx& inner, const Var& v) {
      return add(inner, bend(inner, add(inner, v, v)), v);
    });
  });
}

class TapeOfTheHead : public TapeTest {
 protected:
  TapeOfTheHead() {
    head_.rows = 4;
    head_.cols = 3;
    head_.value = {Tensor(values_.data(), DType::kF64, 4, 3)};
  }
  // Log-probabilities of one token per row; `known` as check() is going to ask for.
  Var logp(Ctx& c, const Var& x, std::vector<int32_t> ids, const std::vector<double>& known,
           const std::vector<int32_t>& bits = {}) {
    Var d;
    if (!known.empty()) {
      d = c.make_aux(DType::kF64, 2, 1);
      dev_->upload(known.data(), d.t);
    }
    Var kept;
    if (!bits.empty()) {
      kept = c.make_aux(DType::kI32, 2, 1);
      dev_->upload(bits.data(), kept.t);
    }
    return token_logp(c, x, head_, c.make_ids(ids.data(), 2), d, kept, 0.7);
  }
  std::vector<double> values_{0.5, -1, 0.2, 1.5, 0.1, -0.3, 0.7, 0.9, -1.1, 0.4, -0.6, 0.8};
  Weight head_;
};

TEST_F(TapeOfTheHead, AGradientKnownBeforehandIsHandedOnAlone) {
  std::vector<double> known{std::sin(1.0), std::sin(2.0)};
  check(x_, 2, [&](Ctx& c, const Var& x) { return logp(c, x, {3, -1}, known); });
}

TEST_F(TapeOfTheHead, TokensThatAreNotKeptHaveNoPartInTheGradient) {
  std::vector<double> known{std::sin(1.0), std::sin(2.0)};
  for (const std::vector<double>& d : {known, std::vector<double>()})
    check(x_, 2, [&](Ctx& c, const Var& x) { return logp(c, x, {3, 0}, d, {0b1010, 0b0111}); });
}

TEST_F(TapeOfTheHead, AGradientKnownBeforehandIsAddedToAnother) {
  std::vector<double> known{std::sin(1.0), std::sin(2.0)};
  check(x_, 2, [&](Ctx& c, const Var& x) {
    return add(c, add(c, logp(c, x, {3, 0}, known), logp(c, x, {1, 2}, {})),
               logp(c, x, {1, 1}, known));
  });
}

TEST_F(TapeOfTheHead, DivergenceFromATeacherIsAddedToLogProbabilities) {
  std::vector<int32_t> ids{2, 0, 1, 3};
  std::vector<double> logp{std::log(0.5), std::log(0.25), std::log(0.6), std::log(0.3)},
      tail{0.25, 0.1};
  TopTokens teacher{Tensor(ids.data(), DType::kI32, 2, 2), Tensor(logp.data(), DType::kF64, 2, 2),
                    Tensor(tail.data(), DType::kF64, 2, 1)};
  check(x_, 2, [&](Ctx& c, const Var& x) {
    return add(c, token_kl(c, x, head_, teacher, {.reverse = true, .temperature = 2}),
               this->logp(c, x, {3, 0}, {}));
  });
}

TEST_F(TapeOfTheHead, AnotherGradientThanTheKnownOneIsABug) {
  Tape tape(*dev_, pool_);
  Ctx c{.dev = *dev_, .pool = pool_, .tape = &tape, .dtype = DType::kF64};
  Var y = logp(c, input(c, x_, 2), {3, 0}, {1, 2});
  std::vector<double> other{1, 2.5};
  dev_->upload(other.data(), tape.grad_out(y).t);
  EXPECT_DEATH(tape.backward(), "known");
}

TEST_F(TapeTest, AnOpThatNobodyUsesIsSkipped) {
  check(x_, 2, [this](Ctx& c, const Var& x) {
    bend(c, x);
    return add(c, x, x);
  });
}

TEST_F(TapeTest, BuffersGoBackToThePool) {
  int64_t before = pool_.bytes_now();
  check(x_, 2, [this](Ctx& c, const Var& x) { return bend(c, x); });
  EXPECT_EQ(pool_.bytes_now(), before);
}

}  // namespace
}  // namespace wels
