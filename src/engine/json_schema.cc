// JSON schemas (2020-12 and draft 7) as grammars. Every text of the grammar is JSON that the schema
// allows; not every such JSON is a text of it: properties come in the schema's order and white
// space is at most a space or one line with its indent. What would have to be ignored is refused
// instead.
//
// Enforced: type (one or several), enum, const, anyOf, oneOf (of alternatives that exclude each
// other), allOf (laid over each other), $ref within the schema (recursion too), properties,
// required, additionalProperties, items, prefixItems, minItems, maxItems, minLength, maxLength,
// pattern (json_chars.h), format date, time, date-time, uuid (other formats are annotations);
// minimum and maximum (integers), exclusive ones for integers.
// Where properties are listed, further ones are allowed only if additionalProperties says so.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "base/error.h"
#include "engine/grammar_builder.h"
#include "engine/json_chars.h"
#include "engine/json_schema_parts.h"
#include "formats/json.h"

namespace wels {
namespace {

using Json = SchemaJson;
using Sequence = GrammarBuilder::Sequence;
constexpr int64_t kUnbounded = GrammarBuilder::kUnbounded;
constexpr int64_t kDigits = 16;  // of a number's integer and of its fraction
constexpr size_t kLongestName = 1000, kMostNames = 5000;  // of properties; in all of a schema

class SchemaCompiler {
 public:
  explicit SchemaCompiler(Json schema)
      : schema_(std::move(schema)), overlap_(schema_), build_("json schema") {
    space_ = build_.repeat(build_.text(" "), 0, 1);
    Sequence indent = build_.repeat(build_.one_of({{' ', ' '}, {'\t', '\t'}}), 0, 20);
    gap_ = build_.any_of({build_.text(" "), {build_.join({build_.text("\n"), indent})}, {}});
  }

  Grammar compile() {
    if (names_in(schema_) > kMostNames)
      fail("#", fmt::format("has more than {} properties and keywords", kMostNames),
           "use a smaller one");
    int32_t root = build_.new_rule();
    refs_["#"] = root;
    build_.define(root, {value(schema_, "#")});
    return build_.finish(root, {{root, "the schema"}});
  }
  Grammar any_object() {
    int32_t root = build_.new_rule();
    build_.define(root, {any_rule("object")});
    return build_.finish(root, {});
  }

 private:
  [[noreturn]] static void fail(const std::string& path, const std::string& what,
                                const std::string& hint = "") {
    fail_schema(path, what, hint);
  }
  [[noreturn]] static void fail_type(const std::string& path) {
    fail(path, "\"type\" is none of JSON's types",
         "use object, array, string, number, integer, boolean or null");
  }
  static size_t names_in(const Json& s) {
    size_t n = s.is_object() ? s.size() : 0;
    if (s.is_structured()) {
      for (const Json& below : s) n += names_in(below);
    }
    return n;
  }
  static void only(const Json& s, const std::string& path, const std::set<std::string>& known) {
    for (const auto& [key, unused] : s.items()) {
      bool means_nothing = is_annotation(key) && (key != "format" || !enforced_format(s));
      if (!known.contains(key) && !means_nothing)
        fail(path, fmt::format("\"{}\" is not enforced here", printable(key)), "leave it out");
    }
  }
  static int64_t whole(const Json& s, const char* key, int64_t otherwise, const std::string& path) {
    if (!s.contains(key)) return otherwise;
    const Json& v = s[key];
    bool fits = v.is_number_integer() || (v.is_number_float() && std::floor(v.get<double>()) == v);
    if (!fits || std::fabs(v.get<double>()) > 1e15)
      fail(path, fmt::format("\"{}\" must be a whole number of at most 15 digits", key));
    return static_cast<int64_t>(v.get<double>());
  }
  static int64_t amount(const Json& s, const char* key, int64_t otherwise,
                        const std::string& path) {
    int64_t n = whole(s, key, otherwise, path);
    if (s.contains(key) && (n < 0 || n > 100'000))
      fail(path, fmt::format("\"{}\" must be 0 to 100000", key));
    return n;
  }

  // --- any JSON ---

  // value, object, array, string, number: one rule each, made on first use.
  Sequence any_rule(const std::string& kind) {
    auto [it, fresh] = any_.try_emplace(kind, 0);
    if (!fresh) return {it->second};
    int32_t rule = it->second = build_.new_rule();
    if (kind == "string") {
      build_.define(rule, {string_of(json_string_char(build_), 0, kUnbounded)});
    } else if (kind == "number") {
      build_.define(rule, {build_.join({minus(), natural(), fraction(), exponent()})});
    } else if (kind == "array") {
      build_.define(rule, {list(any_rule("value"), 0, kUnbounded)});
    } else if (kind == "object") {
      build_.define(rule, {object({}, member(any_rule("string"), any_rule("value")))});
    } else {
      build_.define(rule,
                    {any_rule("object"), any_rule("array"), any_rule("string"), any_rule("number"),
                     build_.text("true"), build_.text("false"), build_.text("null")});
    }
    return {rule};
  }

  Sequence minus() { return build_.repeat(build_.text("-"), 0, 1); }
  Sequence digit(char first = '0', char last = '9') {
    return build_.one_of({{static_cast<uint32_t>(first), static_cast<uint32_t>(last)}});
  }
  Sequence natural() {
    return build_.any_of(
        {build_.text("0"), build_.join({digit('1'), build_.repeat(digit(), 0, kDigits - 1)})});
  }
  Sequence fraction() {
    return build_.repeat(build_.join({build_.text("."), build_.repeat(digit(), 1, kDigits)}), 0, 1);
  }
  Sequence exponent() {
    Sequence sign = build_.repeat(build_.one_of({{'+', '+'}, {'-', '-'}}), 0, 1);
    return build_.repeat(
        build_.join({build_.one_of({{'e', 'e'}, {'E', 'E'}}), sign, build_.repeat(digit(), 1, 2)}),
        0, 1);
  }
  Sequence string_of(const Sequence& x, int64_t least, int64_t most) {
    return build_.join({build_.text("\""), build_.repeat(x, least, most), build_.text("\"")});
  }
  Sequence comma() { return build_.join({build_.text(","), gap_}); }
  Sequence member(const Sequence& key, const Sequence& v) {
    return build_.join({key, build_.text(":"), space_, v});
  }

  // --- containers ---

  Sequence list(const Sequence& item, int64_t least, int64_t most) {
    Sequence open = build_.join({build_.text("["), gap_}),
             close = build_.join({gap_, build_.text("]")});
    Sequence none = build_.text("[]");
    if (most == 0) return none;
    Sequence more = build_.repeat(build_.join({comma(), item}), std::max<int64_t>(least - 1, 0),
                                  most == kUnbounded ? most : most - 1);
    Sequence some = build_.join({open, item, more, close});
    return least > 0 ? some : build_.any_of({some, none});
  }

  struct Property {
    Sequence member;
    bool required;
  };
  // Properties in order. `further`: a member of another name, any number of times; empty: none.
  // From the last to the first: what may follow where nothing (first) or something (next) stands
  // before.
  Sequence object(const std::vector<Property>& properties, const Sequence& further) {
    Sequence first, next;
    if (!further.empty()) {
      next = build_.repeat(build_.join({comma(), further}), 0, kUnbounded);
      first = build_.any_of({build_.join({further, next}), {}});
    }
    for (size_t i = properties.size(); i-- > 0;) {
      const Property& p = properties[i];
      Sequence with_first = build_.join({p.member, next}),
               with_next = build_.join({comma(), p.member, next});
      first = p.required ? with_first : build_.any_of({with_first, first});
      next = p.required ? with_next : build_.any_of({with_next, next});
      if (next.size() > 1) next = rule_of(next);
    }
    return build_.join({build_.text("{"), gap_, first, gap_, build_.text("}")});
  }
  Sequence rule_of(const Sequence& s) {
    int32_t r = build_.new_rule();
    build_.define(r, {s});
    return {r};
  }

  // --- the schema ---

  Sequence value(const Json& s, const std::string& path) {
    if (++depth_ > 200) fail(path, "is nested too deeply");
    Sequence out = value_of(s, path);
    --depth_;
    return out;
  }

  Sequence value_of(const Json& s, const std::string& path) {
    if (s.is_boolean()) {
      if (!s.get<bool>()) fail(path, "false allows nothing", "leave the property out");
      return any_rule("value");
    }
    if (!s.is_object()) fail(path, "is no schema", "a schema is an object, true or false");
    if (s.contains("$ref")) {
      only(s, path, {"$ref"});
      return reference(s["$ref"], path);
    }
    for (const char* key : {"anyOf", "oneOf"}) {
      if (!s.contains(key)) continue;
      only(s, path, {key});
      Sequence out = alternatives(s[key], path + "/" + key);
      if (key == std::string_view("oneOf")) exclude_each_other(s[key], path + "/oneOf");
      return out;
    }
    if (s.contains("allOf")) return value(merged_schema(schema_, s, path), path);
    if (s.contains("const")) {
      only(s, path, {"const", "type"});
      if (s.contains("type") && !is_of(s["const"], s["type"], path))
        fail(path, "\"const\" is not of its \"type\"");
      return build_.text(s["const"].dump());
    }
    if (s.contains("enum")) return enumeration(s, path);
    if (s.contains("type") && s["type"].is_array()) {
      std::vector<Sequence> each;
      for (const Json& type : s["type"]) each.push_back(typed(s, type, path, true));
      if (each.empty()) fail(path, "\"type\" names no type");
      return build_.any_of(std::move(each));
    }
    return typed(s, s.contains("type") ? s["type"] : Json(implied_type(s)), path, false);
  }

  // several: keywords of the other types stand beside.
  Sequence typed(const Json& s, const Json& type, const std::string& path, bool several) {
    static const std::map<std::string, std::set<std::string>> kKnown = {
        {"object", {"properties", "required", "additionalProperties"}},
        {"array", {"items", "prefixItems", "minItems", "maxItems"}},
        {"string", {"minLength", "maxLength", "pattern"}},
        {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
        {"number", {"minimum", "maximum"}},
        {"boolean", {}},
        {"null", {}},
        {"value", {}}};
    std::string name = type.is_string() ? type.get<std::string>() : "";
    auto known = kKnown.find(name);
    if (known == kKnown.end() || (name == "value" && s.contains("type"))) fail_type(path);
    std::set<std::string> keys = known->second;
    if (several) {
      for (const auto& [unused, others] : kKnown) keys.insert(others.begin(), others.end());
    }
    keys.insert({"type", "format"});  // a format is of strings, whatever else may stand there
    only(s, path, keys);
    if (name == "object") return object_of(s, path);
    if (name == "array") return array_of(s, path);
    if (name == "string") return string_of(s, path);
    if (name == "integer") return integer_of(s, path);
    if (name == "number") return number_of(s, path);
    if (name == "boolean") return build_.any_of({build_.text("true"), build_.text("false")});
    return name == "null" ? build_.text("null") : any_rule("value");
  }

  Sequence reference(const Json& ref, const std::string& path) {
    std::string pointer;
    const Json& target = schema_target(schema_, ref, path, pointer);
    std::string to = "#" + pointer;
    if (auto it = refs_.find(to); it != refs_.end()) return {it->second};
    int32_t rule = refs_[to] = build_.new_rule();
    build_.define(rule, {value(target, to)});
    return {rule};
  }

  Sequence alternatives(const Json& list, const std::string& path) {
    if (!list.is_array() || list.empty()) fail(path, "must be a list of schemas");
    std::vector<Sequence> out;
    for (size_t i = 0; i < list.size(); ++i)
      out.push_back(value(list[i], path + "/" + std::to_string(i)));
    return build_.any_of(std::move(out));
  }

  // What fits two of them fits oneOf no longer.
  void exclude_each_other(const Json& list, const std::string& path) {
    for (size_t i = 0; i < list.size(); ++i) {
      for (size_t j = 0; j < list.size(); ++j) {
        if (i != j && overlap_.may_overlap(list[i], list[j]))
          fail(path,
               fmt::format("a value could fit alternatives {} and {}", std::min(i, j) + 1,
                           std::max(i, j) + 1),
               "give each a required property with its own \"const\", or write anyOf");
      }
    }
  }

  // type: a name or a list of them.
  static bool is_of(const Json& v, const Json& type, const std::string& path) {
    if (type.is_array())
      return std::any_of(type.begin(), type.end(),
                         [&](const Json& one) { return is_of(v, one, path); });
    std::string name = type.is_string() ? type.get<std::string>() : "";
    if (name == "object") return v.is_object();
    if (name == "array") return v.is_array();
    if (name == "string") return v.is_string();
    if (name == "number") return v.is_number();
    if (name == "integer")
      return v.is_number_integer() || (v.is_number() && std::floor(v.get<double>()) == v);
    if (name == "boolean") return v.is_boolean();
    if (name == "null") return v.is_null();
    fail_type(path);
  }

  Sequence enumeration(const Json& s, const std::string& path) {
    only(s, path, {"enum", "type"});
    if (!s["enum"].is_array() || s["enum"].empty()) fail(path, "\"enum\" must list values");
    std::vector<Sequence> out;
    for (const Json& v : s["enum"]) {
      if (!s.contains("type") || is_of(v, s["type"], path)) out.push_back(build_.text(v.dump()));
    }
    if (out.empty()) fail(path, "\"enum\" lists no value of its \"type\"");
    return build_.any_of(std::move(out));
  }

  Sequence object_of(const Json& s, const std::string& path) {
    Json none = Json::object();
    const Json& listed = s.contains("properties") ? s["properties"] : none;
    if (!listed.is_object()) fail(path, "\"properties\" must be an object");
    std::vector<std::string> names;
    std::set<std::string> required;
    for (const auto& [name, unused] : listed.items()) names.push_back(name);
    if (s.contains("required")) {
      if (!s["required"].is_array()) fail(path, "\"required\" must be a list of names");
      for (const Json& name : s["required"]) {
        if (!name.is_string()) fail(path, "\"required\" must be a list of names");
        if (required.insert(name.get<std::string>()).second && !listed.contains(name))
          names.push_back(name.get<std::string>());
      }
    }
    for (const std::string& name : names) {
      if (name.size() > kLongestName)
        fail(path, fmt::format("a property's name has more than {} bytes", kLongestName),
             "shorten it");
    }
    bool free = !s.contains("properties") && !s.contains("additionalProperties");
    Json more = s.contains("additionalProperties") ? s["additionalProperties"] : Json(free);
    bool closed = more == Json(false);
    Sequence other;
    if (!closed) other = rule_of(value(more, path + "/additionalProperties"));
    std::vector<Property> properties;
    for (const std::string& name : names) {
      Sequence v = other;
      if (listed.contains(name)) {
        v = rule_of(value(listed[name], path + "/properties/" + name));
      } else if (s.contains("additionalProperties") && closed) {
        fail(path, "\"" + printable(name) + "\" is required, but no property", "list it");
      } else if (closed) {
        v = any_rule("value");
      }
      properties.push_back({member(build_.text(Json(name).dump()), v), required.contains(name)});
    }
    if (closed) return object(properties, {});
    Sequence key = build_.join({build_.text("\""), not_one_of(names), build_.text("\"")});
    return object(properties, member(key, other));
  }

  // Characters of a key that is none of the names: a tree of the names' beginnings, left with a
  // character that no name has there, or ended where no name ends. Without escapes, so that none
  // can be spelled otherwise.
  Sequence not_one_of(std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return names.empty() ? build_.repeat(json_plain_char(build_), 0, kUnbounded)
                         : not_below(names, 0);
  }
  // names: sorted, different, and the same up to byte `at`.
  Sequence not_below(std::span<const std::string> names, size_t at) {
    bool ends = names[0].size() == at;
    if (ends) names = names.subspan(1);
    struct Branch {
      uint32_t first;
      size_t next;  // byte behind it
      std::span<const std::string> names;
    };
    std::vector<Branch> branches;
    std::vector<CharSpan> taken;
    for (size_t from = 0, to = 0; from < names.size(); from = to) {
      size_t n = 0;
      uint32_t c = first_char(std::string_view(names[from]).substr(at), n);
      auto begins_so = [&](const std::string& other) {
        return other.compare(at, n, names[from], at, n) == 0;
      };
      while (to < names.size() && begins_so(names[to])) ++to;
      branches.push_back({c, at + n, names.subspan(from, to - from)});
      taken.push_back({c, c});
    }
    // What leaves the tree here is made first: the grammar's limit ends this before it is too deep.
    std::vector<Sequence> out{build_.join(
        {json_plain_char(build_, taken), build_.repeat(json_plain_char(build_), 0, kUnbounded)})};
    for (const Branch& b : branches) {
      if (is_json_plain(b.first))
        out.push_back(
            build_.join({build_.one_of({{b.first, b.first}}), not_below(b.names, b.next)}));
    }
    if (!ends) out.push_back({});
    return build_.any_of(std::move(out));
  }

  Sequence array_of(const Json& s, const std::string& path) {
    int64_t least = amount(s, "minItems", 0, path), most = amount(s, "maxItems", kUnbounded, path);
    if (most != kUnbounded && most < least) fail(path, "maxItems is below minItems");
    if (!s.contains("prefixItems") && !(s.contains("items") && s["items"].is_array())) {
      Json items = s.contains("items") ? s["items"] : Json(true);
      if (items == Json(false) && least > 0) fail(path, "minItems asks for items that none may be");
      if (items == Json(false)) return build_.text("[]");
      return list(rule_of(value(items, path + "/items")), least, most);
    }
    // Draft 7 writes prefixItems as a list in items.
    const Json& prefix = s.contains("prefixItems") ? s["prefixItems"] : s["items"];
    if (!prefix.is_array() || prefix.empty()) fail(path, "\"prefixItems\" must list schemas");
    auto n = static_cast<int64_t>(prefix.size());
    if (most != kUnbounded && most < n)
      fail(path, "maxItems is below the number of prefixItems", "shorten the list");
    Sequence out = build_.join({build_.text("["), gap_});
    for (size_t i = 0; i < prefix.size(); ++i)
      out = build_.join({out, i > 0 ? comma() : Sequence(),
                         value(prefix[i], path + "/prefixItems/" + std::to_string(i))});
    bool more = s.contains("prefixItems") && s.contains("items") && s["items"] != Json(false);
    if (!more && least > n) fail(path, "minItems asks for more than prefixItems lists");
    if (more) {
      Sequence item = build_.join({comma(), rule_of(value(s["items"], path + "/items"))});
      out = build_.join({out, build_.repeat(item, std::max<int64_t>(0, least - n),
                                            most == kUnbounded ? most : most - n)});
    }
    return build_.join({out, gap_, build_.text("]")});
  }

  Sequence string_of(const Json& s, const std::string& path) {
    int64_t least = amount(s, "minLength", 0, path),
            most = amount(s, "maxLength", kUnbounded, path);
    if (most != kUnbounded && most < least) fail(path, "maxLength is below minLength");
    bool bounded = s.contains("minLength") || s.contains("maxLength");
    const std::string* format = enforced_format(s);
    if ((s.contains("pattern") || format) && bounded)
      fail(path, fmt::format("\"{}\" together with a length is not enforced here",
                             format ? "format" : "pattern"));
    if (s.contains("pattern") && format)
      fail(path, "\"pattern\" together with \"format\" is not enforced here");
    if (s.contains("pattern")) {
      if (!s["pattern"].is_string()) fail(path, "\"pattern\" must be a string");
      return quoted(json_regex(build_, s["pattern"].get<std::string>(), path));
    }
    if (format) return quoted(json_regex(build_, *format, path));
    return bounded ? string_of(json_string_char(build_), least, most) : any_rule("string");
  }
  Sequence quoted(const Sequence& inner) {
    return build_.join({build_.text("\""), inner, build_.text("\"")});
  }

  // --- numbers in a range ---

  struct Range {
    int64_t least = kNoLeast, most = kNoMost;
    static constexpr int64_t kNoLeast = INT64_MIN, kNoMost = INT64_MAX;
    bool open() const { return least == kNoLeast && most == kNoMost; }
  };
  Range range_of(const Json& s, const std::string& path) {
    Range r{whole(s, "minimum", Range::kNoLeast, path), whole(s, "maximum", Range::kNoMost, path)};
    if (s.contains("exclusiveMinimum"))
      r.least = std::max(r.least, whole(s, "exclusiveMinimum", 0, path) + 1);
    if (s.contains("exclusiveMaximum"))
      r.most = std::min(r.most, whole(s, "exclusiveMaximum", 0, path) - 1);
    if (r.least > r.most) fail(path, "no number lies in the range");
    return r;
  }

  Sequence integer_of(const Json& s, const std::string& path) {
    Range r = range_of(s, path);
    if (r.open()) return build_.join({minus(), natural()});
    return signed_range(r, [&](int64_t a, int64_t b) { return naturals(a, b); });
  }
  // Bounds are whole, so a number is an integer below the upper bound with any fraction, or the
  // bound itself.
  Sequence number_of(const Json& s, const std::string& path) {
    Range r = range_of(s, path);
    if (r.open()) return any_rule("number");
    return signed_range(r, [&](int64_t a, int64_t b) {
      if (b == Range::kNoMost) return build_.join({naturals(a, b), fraction()});
      Sequence zeros = build_.repeat(
          build_.join({build_.text("."), build_.repeat(build_.text("0"), 1, kDigits)}), 0, 1);
      Sequence bound = build_.join({build_.text(std::to_string(b)), zeros});
      if (a == b) return bound;
      return build_.any_of({build_.join({naturals(a, b - 1), fraction()}), bound});
    });
  }
  // magnitude(a, b): texts of the numbers a to b, both >= 0.
  template <class F>
  Sequence signed_range(Range r, F magnitude) {
    std::vector<Sequence> out;
    if (r.least < 0) {
      int64_t a = std::max<int64_t>(0, r.most == Range::kNoMost ? 0 : -r.most);
      int64_t b = r.least == Range::kNoLeast ? Range::kNoMost : -r.least;
      out.push_back(build_.join({build_.text("-"), magnitude(a, b)}));
    }
    if (r.most >= 0) out.push_back(magnitude(std::max<int64_t>(0, r.least), r.most));
    return build_.any_of(std::move(out));
  }
  // Decimal texts of a to b, length by length.
  Sequence naturals(int64_t a, int64_t b) {
    std::vector<Sequence> out;
    int64_t low = 0, high = 9;
    for (int64_t length = 1; length <= kDigits && low <= b; ++length) {
      int64_t first = std::max(a, low), last = std::min(b, high);
      if (first <= last) out.push_back(between(std::to_string(first), std::to_string(last)));
      low = high + 1;
      high = high * 10 + 9;
    }
    return build_.any_of(std::move(out));
  }
  // Texts of digits of one length, from a to b.
  Sequence between(std::string_view a, std::string_view b) {
    if (a.empty()) return {};
    auto any = [&](size_t n) {
      return build_.repeat(digit(), static_cast<int64_t>(n), static_cast<int64_t>(n));
    };
    std::string nines(a.size() - 1, '9'), zeros(a.size() - 1, '0');
    if (a[0] == b[0]) return build_.join({digit(a[0], a[0]), between(a.substr(1), b.substr(1))});
    std::vector<Sequence> out;
    char from = a[0], to = b[0];
    if (a.substr(1) != zeros) {
      out.push_back(build_.join({digit(from, from), between(a.substr(1), nines)}));
      ++from;
    }
    if (b.substr(1) != nines) {
      out.push_back(build_.join({digit(to, to), between(zeros, b.substr(1))}));
      --to;
    }
    if (from <= to) out.push_back(build_.join({digit(from, to), any(a.size() - 1)}));
    return build_.any_of(std::move(out));
  }

  const Json schema_;
  SchemaOverlap overlap_;
  GrammarBuilder build_;
  Sequence space_, gap_;
  std::map<std::string, int32_t> refs_, any_;
  int depth_ = 0;
};

}  // namespace

Grammar Grammar::from_json_schema(std::string_view text) {
  return SchemaCompiler(parse_ordered_json(text, "json schema")).compile();
}

Grammar Grammar::json_object() { return SchemaCompiler(Json(true)).any_object(); }

}  // namespace wels
