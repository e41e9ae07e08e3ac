// Manual pages as text: troff source (man and mdoc macros) → the prose that a reader sees, without
// fonts and layout.
#pragma once
#include <string>
#include <string_view>

namespace wels {

// roff: the source of one page, UTF-8. Section headings stand on lines of their own, paragraphs are
// separated by a blank line. Text that uses macros of its own definition keeps their arguments.
// Never fails: what it does not know it passes on.
std::string man_page_text(std::string_view roff);

}  // namespace wels
