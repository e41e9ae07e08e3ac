// Every backward op of RefDevice<double> against central differences: for a random upstream
// gradient dy, the gradient of sum(y ∘ dy) with respect to each input, to 1e-6 of the largest.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "backend/ref/ref_device.h"
#include "base/rng.h"

namespace wels {
namespace {

// A matrix of doubles and a view of it.
struct M {
  std::vector<double> v;
  Tensor t;
  M(int64_t rows, int64_t cols, const char* name = nullptr, double scale = 1)
      : v(static_cast<size_t>(rows * cols)) {
    t = Tensor(v.data(), DType::kF64, rows, cols);
    if (!name) return;
    Rng rng(hash_name(name));
    for (double& x : v) x = scale * rng.normal();
  }
  M(const M&) = delete;
};

struct Indices {
  std::vector<int32_t> v;
  Tensor t;
  Indices(std::vector<int32_t> values, int64_t rows, int64_t cols) : v(std::move(values)) {
    t = Tensor(v.data(), DType::kI32, rows, cols);
  }
};

double dot(const M& a, const M& b) {
  double sum = 0;
  for (size_t i = 0; i < a.v.size(); ++i) sum += a.v[i] * b.v[i];
  return sum;
}

// gradient: of loss() with respect to x, as the op gave it.
void expect_gradient(M& x, const M& gradient, const std::function<double()>& loss,
                     const char* what) {
  double largest = 1e-3, step = 1e-5;
  for (double g : gradient.v) largest = std::max(largest, std::fabs(g));
  for (size_t i = 0; i < x.v.size(); ++i) {
    double at = x.v[i];
    x.v[i] = at + step;
    double up = loss();
    x.v[i] = at - step;
    double down = loss();
    x.v[i] = at;
    ASSERT_NEAR(gradient.v[i], (up - down) / (2 * step), 1e-6 * largest)
        << "d" << what << "[" << i << "]";
  }
}

Weight weight_of(std::initializer_list<M*> matrices) {
  Weight w;
  for (M* m : matrices) w.value.push_back(m->t);
  w.rows = w.value[0].rows;
  w.cols = w.value[0].cols;
  return w;
}

class Gradient : public testing::Test {
 protected:
  RefDevice<double> dev;
};

TEST_F(Gradient, OfMatmulWithBias) {
  M x(5, 7, "x"), w(3, 7, "w"), b(1, 3, "b"), y(5, 3), dy(5, 3, "dy"), dx(5, 7), dw(3, 7), db(1, 3);
  Weight weight = weight_of({&w}), bias = weight_of({&b});
  auto loss = [&] { return dev.matmul(x.t, weight, &bias, y.t, false), dot(y, dy); };
  dev.matmul_dx(dy.t, weight, dx.t, Accum::kSet, false);
  dev.matmul_dw(dy.t, x.t, dw.t, Accum::kSet, false);
  dev.column_sum(dy.t, db.t, Accum::kSet);
  expect_gradient(x, dx, loss, "x");
  expect_gradient(w, dw, loss, "w");
  expect_gradient(b, db, loss, "b");
}

TEST_F(Gradient, OfGroupedMatmul) {
  M x(6, 5, "x"), w0(4, 5, "w0"), w1(4, 5, "w1"), w2(4, 5, "w2"), y(6, 4), dy(6, 4, "dy"), dx(6, 5);
  M d0(4, 5), d1(4, 5), d2(4, 5);
  Weight w = weight_of({&w0, &w1, &w2});
  Indices offsets({0, 4, 4, 6}, 1, 4);
  auto loss = [&] { return dev.grouped_matmul(x.t, w, offsets.t, y.t, false), dot(y, dy); };
  std::vector<Tensor> dw{d0.t, d1.t, d2.t};
  dev.grouped_matmul_dx(dy.t, w, offsets.t, dx.t, Accum::kSet, false);
  dev.grouped_matmul_dw(dy.t, x.t, offsets.t, dw, Accum::kSet, false);
  expect_gradient(x, dx, loss, "x");
  expect_gradient(w0, d0, loss, "w0");
  expect_gradient(w1, d1, loss, "w1");
  expect_gradient(w2, d2, loss, "w2");
}

TEST_F(Gradient, OfEmbedAndOfGathers) {
  M w(4, 3, "w"), y(6, 3), dy(6, 3, "dy"), dw(4, 3);
  Weight table = weight_of({&w});
  Indices ids({2, 0, 2, 3, 3, 2}, 1, 6);
  auto embed = [&] { return dev.embed(ids.t, table, y.t), dot(y, dy); };
  dev.embed_backward(ids.t, dy.t, dw.t);
  expect_gradient(w, dw, embed, "w");

  // A dispatch: each row goes to two slots; its gradient is the sum over them.
  M x(3, 4, "x"), slots(6, 4), dslots(6, 4, "dslots"), dx(3, 4);
  Indices token_of({1, 0, -1, 2, 1, 0}, 1, 6), slot_of({1, 5, 0, 4, 3, -1}, 3, 2);
  auto gather = [&] { return dev.gather_rows(x.t, token_of.t, slots.t), dot(slots, dslots); };
  dev.gather_sum(dslots.t, slot_of.t, dx.t, Accum::kSet);
  expect_gradient(x, dx, gather, "x");
}

TEST_F(Gradient, OfRmsNorm) {
  M x(4, 9, "x"), gain(1, 9, "gain"), y(4, 9), inv(4, 1), dy(4, 9, "dy"), dx(4, 9), dgain(1, 9);
  Weight g = weight_of({&gain});
  auto loss = [&] { return dev.rms_norm(x.t, g, 0.1f, y.t, inv.t), dot(y, dy); };
  loss();
  dev.rms_norm_backward(x.t, g, inv.t, dy.t, dx.t, Accum::kSet, dgain.t);
  expect_gradient(x, dx, loss, "x");
  expect_gradient(gain, dgain, loss, "gain");
}

TEST_F(Gradient, OfRopeIsTheInverseRotation) {
  for (bool interleaved : {true, false}) {
    M x(3, 20, "x"), y(3, 20), dy(3, 20, "dy"), dx(3, 20), cos(5, 3), sin(5, 3),
        angle(5, 3, "angle");
    for (size_t i = 0; i < angle.v.size(); ++i) {
      cos.v[i] = std::cos(angle.v[i]);
      sin.v[i] = std::sin(angle.v[i]);
    }
    Indices pos({4, 0, 2}, 1, 3);
    RopeParams p{
        .heads = 2, .head_dim = 10, .rotated = 6, .interleaved = interleaved, .inverse = false},
        back = p;
    back.inverse = true;
    auto loss = [&] { return dev.rope(x.t, pos.t, cos.t, sin.t, p, y.t, Accum::kSet), dot(y, dy); };
    dev.rope(dy.t, pos.t, cos.t, sin.t, back, dx.t, Accum::kSet);
    expect_gradient(x, dx, loss, "x");
  }
}

TEST_F(Gradient, OfGatedMatmul) {
  M x(6, 5, "x"), g0(4, 5, "g0"), g1(4, 5, "g1"), g2(4, 5, "g2"), u0(4, 5, "u0"), u1(4, 5, "u1"),
      u2(4, 5, "u2"), y(6, 4), dy(6, 4, "dy");
  Indices by_expert({0, 4, 4, 6}, 1, 4);
  for (bool grouped : {false, true}) {
    Tensor offsets = grouped ? by_expert.t : Tensor();
    Weight gate = grouped ? weight_of({&g0, &g1, &g2}) : weight_of({&g0}),
           up = grouped ? weight_of({&u0, &u1, &u2}) : weight_of({&u0});
    auto loss = [&] {
      dev.gated_matmul(x.t, gate, up, offsets, y.t, Tensor(), Tensor(), false);
      return dot(y, dy);
    };
    M g(6, 4), u(6, 4), dx(6, 5), dg0(4, 5), dg1(4, 5), dg2(4, 5), du0(4, 5), du1(4, 5), du2(4, 5);
    std::vector<Tensor> dgate{dg0.t, dg1.t, dg2.t}, dup{du0.t, du1.t, du2.t};
    if (!grouped) dgate.resize(1), dup.resize(1);
    dev.gated_matmul(x.t, gate, up, offsets, y.t, g.t, u.t, false);
    dev.gated_matmul_dx(dy.t, gate, up, offsets, g.t, u.t, dx.t, Accum::kSet, false);
    dev.gated_matmul_dw(g.t, u.t, x.t, offsets, dgate, dup, Accum::kSet, false);
    expect_gradient(x, dx, loss, "x");
    expect_gradient(g0, dg0, loss, "g0");
    expect_gradient(g1, dg1, loss, "g1");  // no rows, no matrix: zero
    expect_gradient(g2, dg2, loss, "g2");
    expect_gradient(u0, du0, loss, "u0");
    expect_gradient(u1, du1, loss, "u1");
    expect_gradient(u2, du2, loss, "u2");
  }
}

TEST_F(Gradient, OfSwigluAndScale) {
  M g(3, 5, "g"), u(3, 5, "u"), y(3, 5), dy(3, 5, "dy"), dg(3, 5), du(3, 5), w(5, 2);
  Weight unused = weight_of({&w});
  auto loss = [&] { return dev.swiglu(g.t, u.t, y.t), dot(y, dy); };
  dg.v = g.v;
  du.v = u.v;
  dev.gated_matmul_dx(dy.t, unused, unused, Tensor(), dg.t, du.t, Tensor(), Accum::kSet, false);
  expect_gradient(g, dg, loss, "g");
  expect_gradient(u, du, loss, "u");
  auto scaled = [&] { return dev.scale(g.t, 0.75f, y.t, Accum::kSet), dot(y, dy); };
  dev.scale(dy.t, 0.75f, dg.t, Accum::kSet);
  expect_gradient(g, dg, scaled, "x");
}

TEST_F(Gradient, OfAttention) {
  // MLA: keys and values interleaved, shared RoPE columns; two documents and one that continues
  // five cached rows.
  AttendParams p{
      .heads = 4, .kv_heads = 2, .dk = 3, .dr = 2, .dv = 4, .k_step = 7, .v_step = 7, .scale = 0.4};
  std::vector<AttendSegment> segments{{0, 4, 0, 4}, {4, 1, 4, 1}, {5, 2, 5, 7}};
  M q(7, 20, "q"), kv(12, 14, "kv"), shared(12, 2, "shared"), y(7, 16), lse(7, 4), dy(7, 16, "dy");
  M dq(7, 20), dkv(12, 14), dshared(12, 2);
  Tensor v = kv.t.col_range(3, 11), dv = dkv.t.col_range(3, 11);
  auto loss = [&] {
    return dev.attend(q.t, kv.t, v, shared.t, segments, p, y.t, lse.t), dot(y, dy);
  };
  loss();
  dev.attend_backward(q.t, kv.t, v, shared.t, segments, p, y.t, lse.t, dy.t, dq.t, dkv.t, dv,
                      dshared.t);
  expect_gradient(q, dq, loss, "q");
  expect_gradient(kv, dkv, loss, "kv");
  expect_gradient(shared, dshared, loss, "shared");
}

TEST_F(Gradient, OfRouterWeightsAndBalanceLoss) {
  for (bool sigmoid : {true, false}) {
    for (bool normalize : {true, false}) {
      RouteParams p{.experts = 8,
                    .top_k = 3,
                    .groups = 4,
                    .top_groups = 2,
                    .sigmoid = sigmoid,
                    .group_top2 = sigmoid,
                    .normalize = normalize,
                    .scale = 2.5};
      M logits(6, 8, "logits"), bias(1, 8, "bias", 0.1), weight(6, 3), dweight(6, 3, "dweight"),
          dlogits(6, 8);
      Indices expert(std::vector<int32_t>(18), 6, 3), load(std::vector<int32_t>(8), 1, 8);
      auto loss = [&] {
        return dev.route(logits.t, bias.t, Tensor(), p, expert.t, weight.t, load.t),
               dot(weight, dweight);
      };
      loss();
      dev.route_backward(logits.t, expert.t, weight.t, dweight.t, p, dlogits.t);
      expect_gradient(logits, dlogits, loss, "logits");

      std::vector<AttendSegment> segments{{0, 4, 0, 4}, {4, 2, 4, 2}};
      M dbalance(6, 8);
      dev.balance_loss_backward(logits.t, segments, p, 1.0f, dbalance.t);
      expect_gradient(
          logits, dbalance, [&] { return dev.balance_loss(logits.t, segments, p); },
          "logits (balance)");
    }
  }
}

TEST_F(Gradient, OfCombine) {
  M rows(6, 4, "rows"), weight(3, 2, "weight"), extra(3, 4, "extra"), y(3, 4), dy(3, 4, "dy"),
      drows(6, 4), dweight(3, 2);
  Indices slot_of({5, 0, 2, 3, 1, 4}, 3, 2);
  auto loss = [&] { return dev.combine(rows.t, slot_of.t, weight.t, extra.t, y.t), dot(y, dy); };
  dev.combine_backward(rows.t, slot_of.t, weight.t, dy.t, drows.t, dweight.t);
  expect_gradient(rows, drows, loss, "rows");
  expect_gradient(weight, dweight, loss, "weight");
  expect_gradient(extra, dy, loss, "extra");
}

TEST_F(Gradient, OfTokenLogProbabilities) {
  M h(5, 6, "h"), w(9, 6, "w"), logp(5, 1), lse(5, 1), dlogp(5, 1, "dlogp"), dh(5, 6), dw(9, 6);
  Weight head = weight_of({&w});
  Indices ids({3, -1, 8, 0, 3}, 1, 5);
  for (double temperature : {1.0, 0.7}) {
    Targets target(ids.t, {}, temperature);
    auto loss = [&] { return dev.token_logp(h.t, head, target, logp.t, lse.t), dot(logp, dlogp); };
    loss();
    dev.token_logp_backward(h.t, head, target, lse.t, dlogp.t, dh.t, Accum::kSet, dw.t,
                            Accum::kSet);
    expect_gradient(h, dh, loss, "h");
    expect_gradient(w, dw, loss, "w");
  }
}

TEST_F(Gradient, OfTokenDivergence) {
  M h(5, 6, "h"), w(9, 6, "w"), kl(5, 1), dkl(5, 1, "dkl"), dh(5, 6), dw(9, 6), slope(5, 5);
  M logp(5, 3), tail(5, 1);
  // Row 1 has no teacher, row 2's knows two tokens only, row 4's has no mass outside its tokens.
  Indices id({3, 0, 8, -1, -1, -1, 7, 1, -1, 2, 3, 4, 0, 5, 6}, 5, 3);
  M mass(5, 3);
  mass.v = {0.5, 0.2, 0.1, 0, 0, 0, 0.3, 0.6, 0, 0.01, 0.01, 0.01, 0.25, 0.25, 0.5};
  tail.v = {0.2, 1, 0.1, 0.97, 0};
  for (size_t i = 0; i < mass.v.size(); ++i) logp.v[i] = mass.v[i] > 0 ? std::log(mass.v[i]) : 0;
  Weight head = weight_of({&w});
  TopTokens teacher{id.t, logp.t, tail.t};
  for (bool reverse : {false, true}) {
    for (double temperature : {1.0, 1.7}) {
      KlParams p{reverse, temperature};
      auto loss = [&] {
        dev.token_kl(h.t, head, teacher, p, kl.t, slope.t);
        return dot(kl, dkl);
      };
      loss();
      EXPECT_EQ(kl.v[1], 0);
      dev.token_kl_backward(h.t, head, teacher, p, slope.t, dkl.t, dh.t, Accum::kSet, dw.t,
                            Accum::kSet);
      expect_gradient(h, dh, loss, "h");
      expect_gradient(w, dw, loss, "w");
    }
  }
}

// By hand: what the other tests take for granted.

TEST_F(Gradient, DivergenceIsTheSumOverTokensAndOneBucket) {
  M h(1, 1), w(4, 1), kl(1, 1), logp(1, 2), tail(1, 1);
  h.v = {1};
  w.v = {std::log(0.1), std::log(0.2), std::log(0.3), std::log(0.4)};  // the student's p
  Weight head = weight_of({&w});
  Indices id({3, 1}, 1, 2);
  logp.v = {std::log(0.7), std::log(0.1)};
  tail.v = {0.2};
  TopTokens teacher{id.t, logp.t, tail.t};
  dev.token_kl(h.t, head, teacher, {}, kl.t, Tensor());
  EXPECT_NEAR(kl.v[0],
              0.7 * std::log(0.7 / 0.4) + 0.1 * std::log(0.1 / 0.2) + 0.2 * std::log(0.2 / 0.4),
              1e-12);
  dev.token_kl(h.t, head, teacher, {.reverse = true}, kl.t, Tensor());
  EXPECT_NEAR(kl.v[0],
              0.4 * std::log(0.4 / 0.7) + 0.2 * std::log(0.2 / 0.1) + 0.4 * std::log(0.4 / 0.2),
              1e-12);
}

TEST_F(Gradient, ATeacherIsAtNoDistanceFromItself) {
  M h(4, 6, "h"), w(20, 6, "w"), kl(4, 1), logp(4, 5), tail(4, 1);
  Indices id(std::vector<int32_t>(20), 4, 5);
  Weight head = weight_of({&w});
  TopTokens top{id.t, logp.t, tail.t};
  dev.top_tokens(h.t, head, 1.3, top);
  for (size_t i = 0; i < 4; ++i) {
    double sum = tail.v[i];
    for (size_t j = 0; j < 5; ++j) sum += std::exp(logp.v[5 * i + j]);
    EXPECT_NEAR(sum, 1, 1e-12);
  }
  for (bool reverse : {false, true}) {
    dev.token_kl(h.t, head, top, {reverse, 1.3}, kl.t, Tensor());
    for (double x : kl.v) EXPECT_NEAR(x, 0, 1e-12);
  }
}

TEST_F(Gradient, AbsorbedAttentionEqualsTheExpandedOne) {
  int h = 3, dn = 4, dr = 2, dv = 5, r = 6;
  M q(4, h * (dn + dr), "q"), kv_b(h * (dn + dv), r, "kv_b"), c(7, r, "c"), kr(7, dr, "kr");
  Weight w = weight_of({&kv_b});
  M kv(7, h * (dn + dv)), expanded(4, h * dv), q2(4, h * (r + dr)), latent(4, h * r),
      absorbed(4, h * dv), pool(7, r + dr);
  AttendParams p{.heads = h,
                 .kv_heads = h,
                 .dk = dn,
                 .dr = dr,
                 .dv = dv,
                 .k_step = dn + dv,
                 .v_step = dn + dv,
                 .scale = 0.3};
  std::vector<AttendSegment> segments{{0, 4, 0, 7}};
  dev.matmul(c.t, w, nullptr, kv.t, false);
  dev.attend(q.t, kv.t, kv.t.col_range(dn, kv.t.cols - dn), kr.t, segments, p, expanded.t,
             Tensor());

  dev.copy(c.t, pool.t.col_range(0, r), Accum::kSet);
  dev.copy(kr.t, pool.t.col_range(r, dr), Accum::kSet);
  std::vector<int32_t> pages{0, 1, 2, 3, 4, 5, 6};
  std::vector<CachedSegment> cached{{0, 4, 7, pages}};
  AttendParams pc{.heads = h,
                  .kv_heads = 1,
                  .dk = r,
                  .dr = dr,
                  .dv = r,
                  .k_step = r + dr,
                  .v_step = r + dr,
                  .scale = 0.3};
  dev.absorb_query(q.t, w, h, dn, dr, dv, q2.t);
  dev.attend_cached(q2.t, pool.t, 1, cached, pc, 0, 0, latent.t);
  dev.absorb_output(latent.t, w, h, dn, dv, absorbed.t);
  for (size_t i = 0; i < expanded.v.size(); ++i) EXPECT_NEAR(absorbed.v[i], expanded.v[i], 1e-10);
}

TEST_F(Gradient, AdamWStepByHand) {
  M w(1, 1), g(1, 1), m(1, 1), v(1, 1);
  w.v[0] = 2;
  g.v[0] = 3;
  AdamWParams p{.lr = 0.5f,
                .beta1 = 0.5f,
                .beta2 = 0.75f,
                .eps = 0,
                .weight_decay = 0.25f,
                .grad_scale = 2,
                .bias1 = 0.5f,
                .bias2 = 0.25f};
  dev.adamw(w.t, g.t, m.t, v.t, p);
  // Scaled gradient 6; m = 3, v = 9, both 6 and 36 without bias: a step of lr · 1 after the decay 2
  // · 0.125.
  EXPECT_DOUBLE_EQ(m.v[0], 3);
  EXPECT_DOUBLE_EQ(v.v[0], 9);
  EXPECT_DOUBLE_EQ(w.v[0], 2 - 0.25 - 0.5);
}

}  // namespace
}  // namespace wels
