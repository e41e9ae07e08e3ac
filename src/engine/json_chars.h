// Characters inside JSON strings as grammars, and regular expressions over them.
#pragma once
#include <string>
#include <string_view>

#include "engine/grammar_builder.h"

namespace wels {

// The first character of valid UTF-8, and its length.
uint32_t first_char(std::string_view utf8, size_t& length);

// Whether a character may stand in a JSON string as itself.
bool is_json_plain(uint32_t c);
// A character that stands as itself, but those of `without`.
GrammarBuilder::Sequence json_plain_char(GrammarBuilder& b, std::vector<CharSpan> without = {});
// Any character, plain or escaped.
GrammarBuilder::Sequence json_string_char(GrammarBuilder& b);

// What a string may hold so that `pattern` matches it: literals, ., classes, \d \w \s and their
// opposites, groups, |, * + ? {m,n}, ^ at the beginning and $ at the end; where these are missing,
// anything may stand before or after. Throws Error (look-around, back references, lazy quantifiers
// and the like): where.
GrammarBuilder::Sequence json_regex(GrammarBuilder& b, std::string_view pattern,
                                    const std::string& where);

}  // namespace wels
