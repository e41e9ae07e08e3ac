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
// What an answer marks as its final one, else all of it: the last \boxed{...}, the line behind the
// last ####, the inside of the last <answer> tag.
std::string_view marked_answer(std::string_view answer);
// What the outermost marks of Markdown or LaTeX enclose where they stand around the whole of a
// text:
// **B**, `x`, $x$, \(x\), \text{Paris}; a full stop behind them goes with them. Empty: none do.
std::string_view within_marks(std::string_view text);
// Without any such marks around the whole of it, however deep.
std::string_view unwrapped(std::string_view text);
// A to Z as a to z.
std::string lower_ascii(std::string_view text);
// The words between white space, views of the text.
std::vector<std::string_view> split_words(std::string_view text);

}  // namespace wels
