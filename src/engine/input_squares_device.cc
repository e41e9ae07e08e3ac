#include "engine/input_squares_device.h"

#include "base/check.h"
#include "base/threads.h"

namespace wels {

const InputSquaresDevice::Squares* InputSquaresDevice::find(const Weight& w) const {
  auto twin = same_input_.find(&w);
  auto at = squares_.find(twin == same_input_.end() ? &w : twin->second);
  return at == squares_.end() ? nullptr : &at->second;
}

void InputSquaresDevice::add_squares(const Tensor& x, double* sums) {
  if (x.rows == 0) return;
  std::vector<float> host(static_cast<size_t>(x.size()));
  int64_t bytes = x.size() * static_cast<int64_t>(sizeof(float));
  Tensor plain(of_.allocate(bytes), DType::kF32, x.rows, x.cols);
  of_.copy(x, plain, Accum::kSet);
  of_.download(plain, host.data());
  of_.release(plain.data, bytes);
  // By columns: the order of a sum does not depend on the number of threads.
  parallel_for(x.cols, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < x.rows; ++r) {
      const float* row = host.data() + r * x.cols;
      for (int64_t c = begin; c < end; ++c)
        sums[c] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
    }
  });
}

void InputSquaresDevice::note(const Tensor& x, const Weight& w, const Tensor* offsets) {
  if (w.full_precision) return;  // the router: never quantised
  CHECK(x.cols == w.cols);
  Squares& s = squares_[&w];
  s.sums.resize(static_cast<size_t>(w.experts() * w.cols));
  s.rows.resize(static_cast<size_t>(w.experts()));
  std::vector<int32_t> begin{0, static_cast<int32_t>(x.rows)};
  if (offsets) {
    begin.resize(static_cast<size_t>(offsets->cols));
    of_.download(*offsets, begin.data());
  }
  for (size_t e = 0; e + 1 < begin.size(); ++e) {
    int64_t n = begin[e + 1] - begin[e];
    add_squares(x.row_range(begin[e], n), s.sums.data() + static_cast<int64_t>(e) * w.cols);
    s.rows[e] += n;
  }
}

}  // namespace wels
