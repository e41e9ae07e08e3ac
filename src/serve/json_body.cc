#include "serve/json_body.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "formats/json.h"
#include "serve/api_error.h"

namespace wels {
namespace {

constexpr std::string_view kSpace = " \t\r\n";

size_t skip_space(std::string_view t, size_t at) {
  return std::min(t.find_first_not_of(kSpace, at), t.size());
}

// The end of the string that begins at `at`.
size_t string_end(std::string_view t, size_t at) {
  for (++at; at < t.size() && t[at] != '"'; ++at) at += t[at] == '\\';
  return std::min(at + 1, t.size());
}

// The end of the value that begins at `at`.
size_t value_end(std::string_view t, size_t at) {
  int depth = 0;
  while (at < t.size()) {
    char c = t[at];
    if (c == '"') {
      at = string_end(t, at);
    } else if (c == '{' || c == '[') {
      ++depth;
      ++at;
    } else if (c == '}' || c == ']') {
      --depth;
      ++at;
    } else if (depth == 0) {
      return std::min(t.find_first_of(" \t\r\n,]}", at), t.size());
    } else {
      ++at;
    }
    if (depth == 0) return at;
  }
  return at;
}

// The child of the container that begins at `at`; npos: it has none of that name or number.
size_t child(std::string_view t, size_t at, const std::string& step) {
  bool list = t[at] == '[';
  size_t wanted = list ? std::strtoull(step.c_str() + 1, nullptr, 10) : 0;
  at = skip_space(t, at + 1);
  for (size_t i = 0; at < t.size() && t[at] != ']' && t[at] != '}'; ++i) {
    bool found = list && i == wanted;
    if (!list) {
      size_t end = string_end(t, at);
      found = t.substr(at + 1, end - at - 2) == step;
      at = skip_space(t, t.find(':', end) + 1);
    }
    if (found) return at;
    at = skip_space(t, value_end(t, at));
    if (at < t.size() && t[at] == ',') at = skip_space(t, at + 1);
  }
  return std::string_view::npos;
}

// Line and column as serde counts them.
std::string position(std::string_view text, size_t bytes) {
  std::string_view before = text.substr(0, bytes);
  auto lines = std::count(before.begin(), before.end(), '\n');
  size_t begin = before.rfind('\n') + 1;  // npos + 1 = 0
  return fmt::format("line {} column {}", lines + 1, bytes - begin);
}

std::string what_it_is(const Json& v) {
  if (v.is_null()) return "null";
  if (v.is_boolean()) return fmt::format("boolean `{}`", v.get<bool>());
  if (v.is_number_float()) return fmt::format("floating point `{}`", v.dump());
  if (v.is_number()) return fmt::format("integer `{}`", v.dump());
  if (v.is_string())
    return fmt::format("string \"{}\"", printable(v.get_ref<const std::string&>()));
  return v.is_array() ? "sequence" : "map";
}

}  // namespace

Json parse_body(std::string_view text) {
  constexpr const char* kStart = "Failed to parse the request body as JSON: ";
  if (text.find_first_not_of(kSpace) == std::string_view::npos)
    throw syntax_error(std::string(kStart) + "EOF while parsing a value at line 1 column 0");
  try {
    return parse_ordered_json(text, "body");
  } catch (const Error& e) {
    throw syntax_error(kStart + e.fact());
  }
}

JsonPath JsonPath::operator/(const std::string& key) const {
  JsonPath out = *this;
  out.steps.push_back(key);
  return out;
}

std::string JsonPath::text() const {
  std::string out;
  for (const std::string& s : steps) out += (out.empty() || s[0] == '[' ? "" : ".") + s;
  return printable(out);
}

std::pair<size_t, size_t> find_json_part(std::string_view text, const JsonPath& path) {
  size_t at = skip_space(text, 0);
  for (const std::string& step : path.steps) {
    size_t next = at < text.size() && (text[at] == '[' || text[at] == '{') ? child(text, at, step)
                                                                           : std::string::npos;
    if (next == std::string::npos) break;
    at = next;
  }
  return {at, value_end(text, at)};
}

JsonFields::JsonFields(std::string_view body, const Json& value, JsonPath path)
    : body_(body), value_(&value), path_(std::move(path)) {
  if (!value.is_object()) wrong_type(value, path_, "a map");
}

void JsonFields::refuse(const JsonPath& at, const std::string& fact) const {
  std::string where = at.text();
  throw invalid_request("Failed to deserialize the JSON body into the target type: " +
                        (where.empty() ? "" : where + ": ") + fact);
}

// Serde notices a container at its first character and everything else at its last.
void JsonFields::wrong_type(const Json& value, const JsonPath& at, const char* expected) const {
  auto [begin, end] = find_json_part(body_, at);
  refuse(at, fmt::format("invalid type: {}, expected {} at {}", what_it_is(value), expected,
                         position(body_, value.is_structured() ? begin + 1 : end)));
}

void JsonFields::missing(const char* key) const {
  size_t end = find_json_part(body_, path_).second;
  refuse(path_, fmt::format("missing field `{}` at {}", key, position(body_, end)));
}

const Json* JsonFields::any(const char* key) const {
  auto it = value_->find(key);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

std::optional<bool> JsonFields::boolean(const char* key) const {
  const Json* v = any(key);
  if (!v) return std::nullopt;
  if (!v->is_boolean()) wrong_type(*v, path_ / key, "a boolean");
  return v->get<bool>();
}

std::optional<double> JsonFields::number(const char* key) const {
  const Json* v = any(key);
  if (!v) return std::nullopt;
  if (!v->is_number()) wrong_type(*v, path_ / key, "f64");
  return v->get<double>();
}

std::optional<int64_t> JsonFields::integer(const char* key) const {
  const Json* v = any(key);
  if (!v) return std::nullopt;
  bool fits = v->is_number_integer() &&
              !(v->is_number_unsigned() && v->get<uint64_t>() > uint64_t{INT64_MAX});
  if (!fits) wrong_type(*v, path_ / key, "i64");
  return v->get<int64_t>();
}

std::optional<std::string> JsonFields::text(const char* key) const {
  const Json* v = any(key);
  if (!v) return std::nullopt;
  if (!v->is_string()) wrong_type(*v, path_ / key, "a string");
  return v->get<std::string>();
}

const Json* JsonFields::array(const char* key) const {
  const Json* v = any(key);
  if (v && !v->is_array()) wrong_type(*v, path_ / key, "a sequence");
  return v;
}

std::optional<JsonFields> JsonFields::object(const char* key) const {
  const Json* v = any(key);
  if (!v) return std::nullopt;
  return JsonFields(body_, *v, path_ / key);
}

void JsonFields::each(const char* key,
                      const std::function<void(const Json&, const JsonPath&)>& fn) const {
  const Json* list = array(key);
  if (!list) return;
  JsonPath at = path_ / key;
  for (size_t i = 0; i < list->size(); ++i) fn((*list)[i], at / i);
}

}  // namespace wels
