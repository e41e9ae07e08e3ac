// Memory for a model's weights and gradients, and the values that training begins with.
#include "base/rng.h"
#include "base/threads.h"
#include "model/model.h"

namespace wels {

void Model::allocate(DType dtype) {
  CHECK(dtype == DType::kF32 || dtype == DType::kF64);
  allocate(
      [dtype](const WeightSpec& s) { return s.kind == WeightKind::kBuffer ? DType::kF32 : dtype; });
}

// One block of memory per weight, experts one after another.
void Model::allocate(const std::function<DType(const WeightSpec&)>& dtype_of) {
  visit_weights(cfg_, weights_,
                [&](Weight& w, const WeightSpec& s) { w.value = stack(dtype_of(s), s); });
}

void Model::init(DType dtype, uint64_t seed, bool trainable) {
  allocate(dtype);
  visit_weights(cfg_, weights_, [&](Weight& w, const WeightSpec& s) {
    bool random = s.kind == WeightKind::kMatrix || s.kind == WeightKind::kEmbedding;
    double constant = s.kind == WeightKind::kNorm ? 1.0 : 0.0;
    parallel_tasks(s.experts, [&](int64_t e) {
      Rng rng(seed, hash_name(s.name) + static_cast<uint64_t>(e) * 0x9E3779B97F4A7C15ull);
      const Tensor& t = w.value[static_cast<size_t>(e)];
      for (int64_t i = 0; i < s.rows * s.cols; ++i) {
        double value = random ? rng.normal() * cfg_.initializer_range : constant;
        if (t.dtype == DType::kF64) {
          static_cast<double*>(t.data)[i] = value;
        } else {
          static_cast<float*>(t.data)[i] = static_cast<float>(value);
        }
      }
    });
    ++w.version;
  });
  if (trainable) make_gradients();
}

std::vector<Tensor> Model::stack(DType dtype, const WeightSpec& s) {
  int64_t bytes = s.rows * row_bytes(dtype, s.cols), all = bytes * s.experts;
  std::shared_ptr<void> memory(allocate_host(all), [all](void* p) { free_host(p, all); });
  memory_.push_back(memory);
  std::vector<Tensor> out;
  for (int64_t e = 0; e < s.experts; ++e) {
    out.emplace_back(static_cast<uint8_t*>(memory.get()) + e * bytes, dtype, s.rows, s.cols);
  }
  return out;
}

void Model::make_gradients() {
  visit_weights(cfg_, weights_, [&](Weight& w, const WeightSpec& s) {
    if (s.kind == WeightKind::kBuffer) return;
    CHECK(w.value[0].dtype == DType::kF32 || w.value[0].dtype == DType::kF64);
    w.grad = stack(w.value[0].dtype, s);
  });
  clear_gradients();
}

void Model::clear_gradients() {
  visit_parameters(cfg_, weights_, [&](Weight& w, const WeightSpec&) { w.fresh_grad = true; });
}

}  // namespace wels
