// What a JSON schema's parts mean together: references, allOf, and whether alternatives of oneOf
// exclude each other.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace wels {

using SchemaJson = nlohmann::ordered_json;

[[noreturn]] void fail_schema(const std::string& path, const std::string& what,
                              const std::string& hint = "");

// Keywords that say nothing about a value. "format" is one, unless it is enforced.
bool is_annotation(const std::string& key);
// date, time, date-time, uuid: the regular expression that such a string matches; else null.
const std::string* enforced_format(const SchemaJson& schema);

// The type that a schema without "type" stands for here, by its other keywords; "value": any.
std::string implied_type(const SchemaJson& schema);

// What a reference within `root` points to: "#" and a JSON pointer, its characters perhaps
// percent-encoded, written plainly into `pointer`. Throws Error: path.
const SchemaJson& schema_target(const SchemaJson& root, const SchemaJson& ref,
                                const std::string& path, std::string& pointer);

// One schema for one with allOf: the parts, and what their references point to, laid over each
// other. Throws Error(path) where that would be another schema than all of them.
SchemaJson merged_schema(const SchemaJson& root, const SchemaJson& schema, const std::string& path);

// Whether alternative i of oneOf may give a text that alternative j allows too. Found by types,
// const, enum and properties; false is certain, true may be caution.
class SchemaOverlap {
 public:
  explicit SchemaOverlap(const SchemaJson& root) : root_(root) {}
  bool may_overlap(const SchemaJson& made, const SchemaJson& other, int depth = 0);

 private:
  bool values_overlap(const SchemaJson& made, const SchemaJson& other);
  bool objects_overlap(const SchemaJson& made, const SchemaJson& other, int depth);
  const SchemaJson& root_;
  std::map<const SchemaJson*, SchemaJson> merged_;  // schemas with allOf
  int64_t compared_ = 0;                            // in all: beyond a limit everything may overlap
};

}  // namespace wels
