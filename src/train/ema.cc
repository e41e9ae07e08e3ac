#include "train/ema.h"

#include <algorithm>

namespace wels {

WeightEma::WeightEma(Device& dev, Model& model, double decay)
    : dev_(dev), decay_(decay), pool_(device_pool(dev)) {
  CHECK(decay >= 0 && decay < 1);
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec&) {
    Slot slot{&w, {}, {}};
    for (const Tensor& value : w.value) {
      slot.average.push_back(make_tensor(pool_, value.dtype, value.rows, value.cols));
      slot.idle.push_back(slot.average.back().t);
      dev_.copy(value, slot.idle.back());
    }
    slots_.push_back(std::move(slot));
  });
}

WeightEma::~WeightEma() {
  if (exchanged_) exchange();
}

void WeightEma::update() {
  CHECK(!exchanged_);
  double t = static_cast<double>(updates_++);
  double beta = std::min(decay_, (1 + t) / (10 + t));
  for (Slot& s : slots_) {
    for (size_t e = 0; e < s.idle.size(); ++e) {
      dev_.axpby(static_cast<float>(1 - beta), s.weight->value[e], static_cast<float>(beta),
                 s.idle[e]);
    }
  }
}

void WeightEma::exchange() {
  for (Slot& s : slots_) {
    std::swap(s.weight->value, s.idle);
    ++s.weight->version;
  }
  exchanged_ = !exchanged_;
}

std::vector<std::pair<std::string, Tensor>> WeightEma::state() const {
  CHECK(!exchanged_);
  std::vector<std::pair<std::string, Tensor>> out;
  for (const Slot& s : slots_) {
    for (size_t e = 0; e < s.idle.size(); ++e) {
      std::string name = tensor_name(s.weight->name, static_cast<int64_t>(e));
      out.emplace_back("ema." + name, s.idle[e]);
    }
  }
  return out;
}

}  // namespace wels
