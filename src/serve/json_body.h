// A request's JSON body read field by field. What is wrong with it is said as DeepSeek's service
// says it (the words of Rust's serde): which field, what it is, what was expected, where it stands.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

using Json = nlohmann::ordered_json;

// One JSON value and nothing else; ApiError: 400 with plain text. Errors as parse_json.
Json parse_body(std::string_view text);

// A place in a body: the keys and indices that lead there.
struct JsonPath {
  std::vector<std::string> steps;
  JsonPath operator/(const std::string& key) const;
  JsonPath operator/(size_t index) const { return *this / ("[" + std::to_string(index) + "]"); }
  std::string text() const;  // messages[0].role
};

// An object or one of its parts, for reading. `body` must outlive it.
class JsonFields {
 public:
  // Throws ApiError unless the value is an object.
  JsonFields(std::string_view body, const Json& value, JsonPath path = {});

  // Absent and null are the same: nullopt, nullptr. Throw ApiError where the type is another.
  std::optional<bool> boolean(const char* key) const;
  std::optional<double> number(const char* key) const;
  std::optional<int64_t> integer(const char* key) const;
  std::optional<std::string> text(const char* key) const;
  const Json* array(const char* key) const;
  std::optional<JsonFields> object(const char* key) const;
  const Json* any(const char* key) const;

  template <class T>
  T required(const char* key, std::optional<T> value) const {
    if (!value) missing(key);
    return *std::move(value);
  }
  // fn(element, path) for each element of an array.
  void each(const char* key, const std::function<void(const Json&, const JsonPath&)>& fn) const;

  // Throw ApiError: "missing field `key`", "invalid type: ..., expected ...", and any other fact.
  [[noreturn]] void missing(const char* key) const;
  [[noreturn]] void wrong_type(const Json& value, const JsonPath& at, const char* expected) const;
  [[noreturn]] void refuse(const JsonPath& at, const std::string& fact) const;

  const JsonPath& path() const { return path_; }
  std::string_view body() const { return body_; }
  const Json& value() const { return *value_; }

 private:
  std::string_view body_;
  const Json* value_;
  JsonPath path_;
};

// Where in the text of a valid JSON value the part at `path` begins and ends (bytes); the whole
// text where there is no such part.
std::pair<size_t, size_t> find_json_part(std::string_view text, const JsonPath& path);

}  // namespace wels
