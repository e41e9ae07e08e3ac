// Texts made comparable: what people and models write for the same answer in different ways.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace wels {

// Without white space at both ends.
std::string_view trimmed(std::string_view text);
// Full-width letters, digits and signs as ASCII, the minus sign U+2212 as '-', blanks of every
// width as ' ', trimmed.
std::string narrowed(std::string_view text);
// Narrowed, lower case (ASCII), one blank for every run of white space, without quotes around it
// and a full stop behind it: exact match compares these.
std::string normalised(std::string_view text);
// Without the marks of Markdown and LaTeX around the whole of it, however deep: **B**, `x`, $x$,
// \(x\), \text{Paris}; a full stop behind them goes with them.
std::string_view unwrapped(std::string_view text);
// A to Z as a to z.
std::string lower_ascii(std::string_view text);
// The words between white space, views of the text.
std::vector<std::string_view> split_words(std::string_view text);

}  // namespace wels
