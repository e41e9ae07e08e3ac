// Numbers as answers state them: -12, 1,234.50, 1 234, 2{,}024, 1e3, 1.5 \times 10^{3}, $3, 3/4,
// 1 1/2, \frac{-3}{4}, \frac34, 25%. Kept as a fraction of whole numbers of any length, so that 0.5
// equals 1/2 and no digit is lost.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace wels {

struct Number {
  bool negative = false;
  // Decimal digits without leading zeros ("0" for zero, which is never negative); the denominator
  // is not 0, and the two may have common factors.
  std::string numerator = "0", denominator = "1";
};
bool operator==(const Number& a, const Number& b);  // in value

// The number that the whole text is, currency sign before and full stop, per cent sign behind left
// aside. Nullopt: it is something else, or of more than 400 digits. blanks: may part thousands.
std::optional<Number> parse_number(std::string_view text, bool blanks = true);
// The last number within the text. A sign counts where it can't be an operation: "5-3" ends with 3.
// Numbers with blanks between them are a list: "1 2 300" ends with 300. Nullopt also where the last
// one is a part of something else: 7², 2\pi, \sqrt{2}.
std::optional<Number> last_number(std::string_view text);

}  // namespace wels
