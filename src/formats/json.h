// JSON from strangers: one parse function for every format file, stricter than the library's
// default. Nothing here shows the JSON library's own header; include <nlohmann/json.hpp> in the .cc
// that calls it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace wels {

// Parses `text` (UTF-8, one JSON value). Throws Error(where, ...) on bad syntax, invalid UTF-8, a
// key that appears twice in one object (readers disagree on which one counts), and nesting deeper
// than 64.
nlohmann::json parse_json(std::string_view text, const std::string& where);

// The same with the keys of every object in the text's order.
nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& where);

// The text made safe to print inside a message: control characters and broken UTF-8 replaced, at
// most 120 bytes.
std::string printable(std::string_view text);

}  // namespace wels
