#include "train/optimizer.h"

#include <algorithm>
#include <cmath>

namespace wels {
namespace {

// Newton-Schulz iteration that maps singular values to about 1: X ← aX + (bA + cA²)X with A = XXᵀ,
// five times with the coefficients of Polar Express (Amsel et al. 2025, as shared/recipe 6 quotes
// them).
constexpr double kPolarExpress[5][3] = {{8.15655, -22.48329, 15.87877},
                                        {4.04293, -2.80892, 0.50002},
                                        {3.89167, -2.77248, 0.50607},
                                        {3.28575, -2.36813, 0.46449},
                                        {2.34654, -1.70978, 0.42324}};

std::string state_name(const char* kind, const Weight& w, size_t e) {
  return kind + tensor_name(w.name, static_cast<int64_t>(e));
}

}  // namespace

double clip_coefficient(double norm, double clip) {
  return clip <= 0 ? 1.0 : std::min(1.0, clip / (norm + 1e-6));
}

Optimizer::Optimizer(Device& dev, Model& model, OptimizerConfig config)
    : dev_(dev), config_(config), pool_(device_pool(dev)) {
  visit_parameters(model.config(), model.weights(), [&](Weight& w, const WeightSpec& spec) {
    bool matrix = spec.kind == WeightKind::kMatrix || spec.kind == WeightKind::kEmbedding;
    Slot slot{&w,
              matrix,
              config_.muon && spec.kind == WeightKind::kMatrix && !spec.full_precision,
              {},
              {}};
    for (const Tensor& value : w.value) {
      slot.m.push_back(make_tensor(pool_, value.dtype, value.rows, value.cols));
      dev_.zero(slot.m.back().t);
      if (slot.muon) continue;
      slot.v.push_back(make_tensor(pool_, value.dtype, value.rows, value.cols));
      dev_.zero(slot.v.back().t);
    }
    slots_.push_back(std::move(slot));
  });
}

double Optimizer::gradient_norm() {
  double sum = 0;
  for (Slot& s : slots_) {
    for (Tensor& g : s.weight->grad) {
      if (s.weight->fresh_grad) dev_.zero(g);  // no gradient reached it in this step
      sum += dev_.sum_squares(g);
    }
    s.weight->fresh_grad = false;
  }
  return std::sqrt(sum);
}

void Optimizer::step(double lr, double grad_scale) {
  ++steps_;
  double t = static_cast<double>(steps_);
  AdamWParams p{.lr = static_cast<float>(lr),
                .beta1 = static_cast<float>(config_.beta1),
                .beta2 = static_cast<float>(config_.beta2),
                .eps = static_cast<float>(config_.eps),
                .weight_decay = 0,
                .grad_scale = static_cast<float>(grad_scale),
                .bias1 = static_cast<float>(1 - std::pow(config_.beta1, t)),
                .bias2 = static_cast<float>(1 - std::pow(config_.beta2, t))};
  for (Slot& s : slots_) {
    for (size_t e = 0; e < s.weight->value.size(); ++e) {
      if (s.muon) {
        muon_update(s, e, lr, grad_scale);
      } else {
        p.weight_decay = s.decays ? static_cast<float>(config_.weight_decay) : 0.0f;
        dev_.adamw(s.weight->value[e], s.weight->grad[e], s.m[e].t, s.v[e].t, p);
      }
    }
    ++s.weight->version;
  }
}

// M ← μM + G; update = orthogonalised (G + μM), scaled to AdamW's typical RMS of 0.2:
// c·sqrt(max(rows, cols)).
void Optimizer::muon_update(Slot& slot, size_t e, double lr, double grad_scale) {
  Tensor w = slot.weight->value[e], g = slot.weight->grad[e], m = slot.m[e].t;
  float mu = static_cast<float>(config_.momentum);
  dev_.axpby(static_cast<float>(grad_scale), g, mu, m);
  OwnedTensor x = make_tensor(pool_, w.dtype, w.rows, w.cols),
              next = make_tensor(pool_, w.dtype, w.rows, w.cols);
  dev_.copy(m, x.t);
  dev_.axpby(static_cast<float>(grad_scale), g, mu, x.t);
  double norm = std::sqrt(dev_.sum_squares(x.t));
  if (norm == 0) return;
  // The smaller side makes the Gram matrix: A = XXᵀ (rows <= cols) or XᵀX. 1.01: keeps the largest
  // singular value below 1.
  bool wide = w.rows <= w.cols;
  int64_t side = std::min(w.rows, w.cols);
  OwnedTensor a = make_tensor(pool_, w.dtype, side, side),
              b = make_tensor(pool_, w.dtype, side, side);
  dev_.axpby(0, x.t, static_cast<float>(1 / (norm * 1.01)), x.t);
  for (const double* k : kPolarExpress) {
    dev_.gemm(x.t, !wide, x.t, wide, 1.0f, 0.0f, a.t);
    dev_.copy(a.t, b.t);
    dev_.gemm(a.t, false, a.t, false, static_cast<float>(k[2]), static_cast<float>(k[1]), b.t);
    dev_.copy(x.t, next.t);
    if (wide) {
      dev_.gemm(b.t, false, x.t, false, 1.0f, static_cast<float>(k[0]), next.t);
    } else {
      dev_.gemm(x.t, false, b.t, false, 1.0f, static_cast<float>(k[0]), next.t);
    }
    std::swap(x, next);
  }
  double scale = 0.2 * std::sqrt(static_cast<double>(std::max(w.rows, w.cols)));
  dev_.axpby(static_cast<float>(-lr * scale), x.t,
             static_cast<float>(1 - lr * config_.weight_decay), w);
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() {
  std::vector<std::pair<std::string, Tensor>> out;
  for (Slot& s : slots_) {
    for (size_t e = 0; e < s.m.size(); ++e)
      out.emplace_back(state_name("m.", *s.weight, e), s.m[e].t);
    for (size_t e = 0; e < s.v.size(); ++e)
      out.emplace_back(state_name("v.", *s.weight, e), s.v[e].t);
  }
  return out;
}

int64_t Optimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const Slot& s : slots_) {
    for (const auto* list : {&s.m, &s.v}) {
      for (const OwnedTensor& t : *list) bytes += t.t.bytes();
    }
  }
  return bytes;
}

}  // namespace wels
