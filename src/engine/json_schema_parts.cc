#include "engine/json_schema_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "formats/json.h"

namespace wels {
namespace {

using Json = SchemaJson;
constexpr size_t kMostParts = 100, kMostNames = 5000;  // of an allOf; of all their properties
constexpr int64_t kMostCompared = 1'000'000;           // values, properties and alternatives
constexpr int kDeepest = 20;                           // references in each other

// The schema itself, what it refers to and the parts of its allOf, each without these.
void collect_parts(const Json& root, const Json& s, const std::string& path, int depth,
                   std::vector<Json>& out) {
  if (depth > kDeepest) fail_schema(path, "\"$ref\" in allOf leads nowhere");
  if (!s.is_object()) fail_schema(path + "/allOf", "must be a list of schemas");
  if (out.size() >= kMostParts)
    fail_schema(path + "/allOf", fmt::format("has more than {} parts", kMostParts));
  Json own = s;
  own.erase("$ref");
  own.erase("allOf");
  out.push_back(std::move(own));
  if (s.contains("$ref")) {
    std::string pointer;
    collect_parts(root, schema_target(root, s["$ref"], path, pointer), path, depth + 1, out);
  }
  if (!s.contains("allOf")) return;
  if (!s["allOf"].is_array() || s["allOf"].empty())
    fail_schema(path + "/allOf", "must be a list of schemas");
  for (const Json& part : s["allOf"]) collect_parts(root, part, path, depth + 1, out);
}

std::set<std::string> names_of(const Json& s, const char* key) {
  std::set<std::string> out;
  if (!s.contains(key)) return out;
  if (s[key].is_object()) {
    for (const auto& [name, unused] : s[key].items()) out.insert(name);
  } else if (s[key].is_array()) {
    for (const Json& name : s[key]) {
      if (name.is_string()) out.insert(name.get<std::string>());
    }
  }
  return out;
}

// additionalProperties and items speak of what their own part does not list; in the sum they would
// speak of what no part lists.
void check_lists(const std::vector<Json>& parts, const Json& sum, const std::string& path) {
  std::set<std::string> all = names_of(sum, "properties");
  for (const Json& part : parts) {
    if (part.contains("items") && !part.contains("prefixItems") && sum.contains("prefixItems"))
      fail_schema(path, "\"items\" and \"prefixItems\" in different parts are not enforced here",
                  "put them side by side");
    if (!part.contains("additionalProperties")) continue;
    const Json& more = part["additionalProperties"];
    if (more == Json(true) || more == Json::object()) continue;
    std::set<std::string> own = names_of(part, "properties");
    for (const std::string& name : all) {
      if (!own.contains(name))
        fail_schema(path,
                    fmt::format("\"additionalProperties\" beside another part's \"{}\" is not "
                                "enforced here",
                                printable(name)),
                    "list all properties beside it");
    }
  }
}

void add_part(Json& sum, const Json& part, const std::string& path) {
  for (const auto& [key, v] : part.items()) {
    if (key == "properties" && !v.is_object())
      fail_schema(path, "\"properties\" must be an object");
    if (key == "required" && !v.is_array())
      fail_schema(path, "\"required\" must be a list of names");
    if (!sum.contains(key)) {
      sum[key] = v;
    } else if (key == "properties") {
      for (const auto& [name, p] : v.items()) {
        if (sum[key].contains(name) && sum[key][name] != p)
          fail_schema(path, "gives \"" + printable(name) + "\" two schemas");
        sum[key][name] = p;
      }
    } else if (key == "required") {
      for (const Json& name : v) sum[key].push_back(name);
    } else if (key == "format" ? sum[key] != v && (enforced_format(sum) || enforced_format(part))
                               : !is_annotation(key) && sum[key] != v) {
      fail_schema(path, fmt::format("gives \"{}\" twice", printable(key)));
    }
  }
}

// JSON's types, integer being number.
std::set<std::string> types_of(const Json& s, bool made) {
  static const std::set<std::string> kAll = {"object", "array",   "string",
                                             "number", "boolean", "null"};
  Json type = s.contains("type") ? s["type"] : Json(made ? implied_type(s) : "value");
  std::set<std::string> out;
  for (const Json& one : type.is_array() ? type : Json::array({type})) {
    if (one == Json("value")) return kAll;
    if (one.is_string()) out.insert(one == Json("integer") ? "number" : one.get<std::string>());
  }
  return out;
}
std::string type_name(const Json& v) { return v.type_name(); }  // as JSON schema's

bool has_values(const Json& s) { return s.contains("const") || s.contains("enum"); }
Json values_of(const Json& s) {
  return s.contains("const")    ? Json::array({s["const"]})
         : s["enum"].is_array() ? s["enum"]
                                : Json::array();
}

}  // namespace

void fail_schema(const std::string& path, const std::string& what, const std::string& hint) {
  throw Error("json schema, " + printable(path), what, hint);
}

bool is_annotation(const std::string& key) {
  static const std::set<std::string> kAnnotations = {
      "title",      "description", "default",         "examples",        "$schema",  "$id",
      "$comment",   "$anchor",     "$defs",           "definitions",     "readOnly", "writeOnly",
      "deprecated", "format",      "contentEncoding", "contentMediaType"};
  return kAnnotations.contains(key);
}

const std::string* enforced_format(const Json& s) {
  // Days that exist: of each month, and the 29th of February in leap years.
  static const std::string kDate =
      "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|"
      "02-(0[1-9]|1[0-9]|2[0-8]))|"
      "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
  static const std::string kHour = "([01][0-9]|2[0-3])";
  static const std::string kTime =
      kHour + R"((:[0-5][0-9]){2}(\.[0-9]{1,9})?(Z|[+-])" + kHour + ":[0-5][0-9])";
  static const std::map<std::string, std::string> kFormats = {
      {"date", "^" + kDate + "$"},
      {"time", "^" + kTime + "$"},
      {"date-time", "^" + kDate + "T" + kTime + "$"},
      {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"}};
  if (!s.contains("format") || !s["format"].is_string()) return nullptr;
  auto it = kFormats.find(s["format"].get<std::string>());
  return it == kFormats.end() ? nullptr : &it->second;
}

std::string implied_type(const Json& s) {
  static const std::pair<const char*, const char*> kSigns[] = {
      {"properties", "object"}, {"required", "object"},   {"additionalProperties", "object"},
      {"items", "array"},       {"prefixItems", "array"}, {"minItems", "array"},
      {"maxItems", "array"},    {"minLength", "string"},  {"maxLength", "string"},
      {"pattern", "string"},    {"minimum", "number"},    {"maximum", "number"}};
  for (auto [key, type] : kSigns) {
    if (s.contains(key)) return type;
  }
  return enforced_format(s) ? "string" : "value";
}

const Json& schema_target(const Json& root, const Json& ref, const std::string& path,
                          std::string& pointer) {
  std::string to = ref.is_string() ? ref.get<std::string>() : "";
  if (to.empty() || to[0] != '#')
    fail_schema(path, "\"$ref\" must point into this schema", "as \"#/$defs/name\"");
  pointer.clear();
  for (size_t i = 1; i < to.size(); ++i) {
    if (to[i] != '%') {
      pointer += to[i];
      continue;
    }
    std::string hex = to.substr(i + 1, 2);
    if (hex.size() != 2 || hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      fail_schema(path, fmt::format("\"$ref\" \"{}\" has a % without two digits", printable(to)));
    pointer += static_cast<char>(std::stoi(hex, nullptr, 16));
    i += 2;
  }
  try {
    return root.at(Json::json_pointer(pointer));
  } catch (const Json::exception&) {
    fail_schema(path, fmt::format("\"$ref\" points to \"{}\", which is not there", printable(to)));
  }
}

Json merged_schema(const Json& root, const Json& schema, const std::string& path) {
  std::vector<Json> parts;
  collect_parts(root, schema, path, 0, parts);
  size_t names = 0;
  for (const Json& part : parts)
    names += part.contains("properties") ? part["properties"].size() : 0;
  if (names > kMostNames)
    fail_schema(path + "/allOf", fmt::format("has more than {} properties", kMostNames));
  Json sum = Json::object();
  for (const Json& part : parts) add_part(sum, part, path + "/allOf");
  check_lists(parts, sum, path + "/allOf");
  return sum;
}

bool SchemaOverlap::may_overlap(const Json& made, const Json& other, int depth) {
  if (&made == &other || depth > kDeepest || ++compared_ > kMostCompared) return true;
  for (const Json* s : {&made, &other}) {
    if (s->is_boolean()) return s->get<bool>();
    if (!s->is_object()) return true;
    bool is_made = s == &made;
    auto with = [&](const Json& x) {
      return is_made ? may_overlap(x, other, depth + 1) : may_overlap(made, x, depth + 1);
    };
    std::string pointer;
    if (s->contains("$ref")) return with(schema_target(root_, (*s)["$ref"], "#", pointer));
    if (s->contains("allOf")) {
      auto [it, fresh] = merged_.try_emplace(s);
      if (fresh) it->second = merged_schema(root_, *s, "#");
      compared_ += fresh ? 1000 : 0;  // copies
      return with(it->second);
    }
    for (const char* key : {"anyOf", "oneOf"}) {
      if (s->contains(key) && (*s)[key].is_array())
        return std::any_of((*s)[key].begin(), (*s)[key].end(), with);
    }
  }
  if (has_values(made) || has_values(other)) return values_overlap(made, other);
  std::set<std::string> types = types_of(made, true), allowed = types_of(other, false), both;
  std::set_intersection(types.begin(), types.end(), allowed.begin(), allowed.end(),
                        std::inserter(both, both.begin()));
  if (both.erase("object") > 0 && objects_overlap(made, other, depth)) return true;
  return !both.empty();
}

bool SchemaOverlap::values_overlap(const Json& made, const Json& other) {
  if (has_values(made) && has_values(other)) {
    Json a = values_of(made), b = values_of(other);
    compared_ += static_cast<int64_t>(a.size()) * static_cast<int64_t>(b.size());
    if (compared_ > kMostCompared) return true;
    auto same = [](const Json& x, const Json& y) {
      return x == y || (x.is_structured() && x.type() == y.type());
    };
    return std::any_of(a.begin(), a.end(), [&](const Json& x) {
      return std::any_of(b.begin(), b.end(), [&](const Json& y) { return same(x, y); });
    });
  }
  bool first = has_values(made);
  Json values = values_of(first ? made : other);
  compared_ += static_cast<int64_t>(values.size());
  std::set<std::string> types = first ? types_of(other, false) : types_of(made, true);
  return std::any_of(values.begin(), values.end(),
                     [&](const Json& v) { return types.contains(type_name(v)); });
}

// Objects differ by a property that one of them must have: its schemas exclude each other, or the
// other schema does not have it.
bool SchemaOverlap::objects_overlap(const Json& made, const Json& other, int depth) {
  std::set<std::string> mine = names_of(made, "properties"), must = names_of(made, "required"),
                        theirs = names_of(other, "properties"), need = names_of(other, "required");
  compared_ += static_cast<int64_t>(mine.size() + theirs.size());
  auto more = [](const Json& s) {
    return s.contains("additionalProperties") ? s["additionalProperties"] != Json(false)
                                              : !s.contains("properties");
  };
  bool open = more(made);
  bool other_open = !other.contains("additionalProperties") || more(other);
  for (const std::string& name : need) {
    if (!open && !mine.contains(name) && !must.contains(name)) return false;
  }
  for (const std::string& name : must) {
    if (!other_open && !theirs.contains(name)) return false;
  }
  // Properties with values of their own first: they tell unions apart, and are quick to compare.
  for (bool values : {true, false}) {
    for (const std::string& name : mine) {
      if (!theirs.contains(name) || !(must.contains(name) || need.contains(name))) continue;
      const Json &a = made["properties"][name], &b = other["properties"][name];
      if ((has_values(a) && has_values(b)) == values && !may_overlap(a, b, depth + 1)) return false;
    }
  }
  return true;
}

}  // namespace wels
