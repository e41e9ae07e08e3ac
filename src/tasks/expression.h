// Arithmetic expressions: trees of numbers and + - * /, written with as few brackets as they need,
// and reduced one operation at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

struct Expression {
  char op = 0;        // 0: a number
  int64_t value = 0;  // of the whole
  std::shared_ptr<const Expression> left, right;
};
using ExpressionRef = std::shared_ptr<const Expression>;

ExpressionRef number_expression(int64_t value);
// The value must be a whole number (CHECK).
ExpressionRef binary_expression(ExpressionRef left, char op, ExpressionRef right);

std::string expression_text(const Expression& e);
// The expression after each operation, the innermost left one first, joined by `between`; the last
// is its value. Empty for a number.
std::string reduction_steps(ExpressionRef e, std::string_view between);

// The same with every operation written out before the expression that it leaves:
// "3*6=18 18-(7+4) 7+4=11 18-11: 8-1=7 1-1=0 =7". Looking an operation up and working it out are
// separate steps then, which a small model learns sooner; numbers of two digits are added and
// subtracted column by column.
std::string worked_steps(ExpressionRef e);

// What a text from anywhere comes to: exactly, as a fraction.
struct Evaluated {
  int64_t numerator = 0, denominator = 1;  // denominator > 0, no common factor
  std::vector<int64_t> numbers;            // as they stand in the text
};
// Knows + - * / ( ) and blanks, also × and ÷; a number that it equals may stand on the other side
// of a "=". Nullopt: no such expression, another value there, a division by 0, or values beyond
// 10^15.
std::optional<Evaluated> evaluate_expression(std::string_view text);

}  // namespace wels
