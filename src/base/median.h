#pragma once
#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace wels {

// Half of the values are no larger (of an even number, one more than half); NaN where there are
// none. No value may be NaN.
inline double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace wels
