// Addition and subtraction column by column, as chains write them.
#pragma once
#include <string>

namespace wels {

// The columns from the least significant digit on, "7+5=12 3+0+1=4" (digits, then the carry if
// there is one), and the sum that they make. The sum reads off the columns: the last one whole,
// then the last digits of those before it.
struct ColumnSum {
  std::string steps, sum;
};
// a, b: decimal digits. A number that has no digit left is left out: "9+1=10 4+1=5" for 49 + 1...
ColumnSum add_columns(const std::string& a, const std::string& b);

// a − b ≥ 0 likewise: "12-7=5 3-1=2" for 32 − 7, ten more where a digit is too small, then one less
// in the next column; `sum` is the difference.
ColumnSum subtract_columns(const std::string& a, const std::string& b);

}  // namespace wels
