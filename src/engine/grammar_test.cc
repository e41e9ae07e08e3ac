#include "engine/grammar.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "base/error.h"
#include "base/rng.h"
#include "engine/token_mask.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;

// One token for each byte.
std::shared_ptr<const TokenTree> bytes_tree() {
  static const auto tree = [] {
    std::vector<std::string> tokens;
    for (int b = 0; b < 256; ++b) tokens.emplace_back(1, static_cast<char>(b));
    return std::make_shared<const TokenTree>(tokens);
  }();
  return tree;
}

bool matches(const Grammar& g, std::string_view text) {
  GrammarMatcher m(std::make_shared<Grammar>(g), bytes_tree());
  for (char c : text) {
    if (!m.accept(static_cast<uint8_t>(c))) return false;
  }
  return m.can_end();
}

struct GbnfCase {
  const char* grammar;
  std::vector<std::string> yes, no;
};

TEST(Grammar, GbnfMatchesWhatItsRulesSay) {
  const GbnfCase kCases[] = {
      {"root ::= \"yes\" | \"no\"", {"yes", "no"}, {"", "y", "yesno", "Yes"}},
      {"root ::= [a-c]+ \"-\" [^0-9]?",
       {"a-", "abc-x", "cc-é", "b-\n"},
       {"-", "d-", "a-5", "a-xy"}},
      {"root ::= x* # all\nx ::= \"(\" root \")\"",
       {"", "()", "(())()", "((()))"},
       {"(", ")(", "(()"}},
      {"root ::= \"a\"{2} \"b\"{1,3} \"c\"{2,}",
       {"aabcc", "aabbbcccc"},
       {"abcc", "aabbbbcc", "aabc"}},
      {"root ::= \"a\" * \"b\" { 2 , 3 } (\"c\"\n +\n) x ?\nx ::= \"d\"",
       {"bbc", "aabbbccd"},
       {"bc", "bbbbc", "bb", "bbcdd"}},
      {"root ::= (\"a\"? \"b\"?)* \"!\"", {"!", "ab!", "ba!", "bbaa!"}, {"c!", "ab"}},
      {"root ::= expr\nexpr ::= term (\"+\" term)*\nterm ::= [0-9]+ |\n  \"(\" expr \")\"",
       {"1", "1+23", "(1+2)+3", "((4))"},
       {"", "1+", "(1", "1++2"}},
      {"root ::= [\\u4e00-\\u9fff]{2} \"\\x21\" [\\U0001F600-\\U0001F64F]",
       {"中文!😀", "你好!🙏"},
       {"中!😀", "中文!x", "中文!🚀"}},
      {"root ::= . .", {"ab", "é😀", "\n\""}, {"a", "abc", "\xff\xff", "\xed\xa0\x80x"}},
      {"root ::= \"\\\"\\\\\\n\\t\" [\\]\\-\\^a]",
       {"\"\\\n\t]", "\"\\\n\t-", "\"\\\n\t^"},
       {"\"\\\n\tb"}},
      {"root ::= \"\" | \"x\" root", {"", "x", "xxxx"}, {"y"}},
  };
  for (const GbnfCase& c : kCases) {
    Grammar g = Grammar::from_gbnf(c.grammar);
    for (const auto& text : c.yes) EXPECT_TRUE(matches(g, text)) << c.grammar << "\n" << text;
    for (const auto& text : c.no) EXPECT_FALSE(matches(g, text)) << c.grammar << "\n" << text;
  }
}

TEST(Grammar, ImpossibleGbnfIsRefusedWithItsLine) {
  std::string huge = "root ::=";
  for (int i = 0; i < 101; ++i) huge += " \"a\"{10000}";
  const std::pair<const char*, const char*> kCases[] = {
      {"", "no rule \"root\""},
      {"root ::= missing", "\"missing\" is used but not defined"},
      {"root ::= \"a\"\nroot ::= \"b\"", "line 2.*defined twice"},
      {"root ::= root \"a\" | \"b\"", "\"root\" begins with itself"},
      {"root ::= a\na ::= b? a \"x\" | \"y\"\nb ::= \"b\"", "\"a\" begins with itself"},
      {"root ::= \"a\" root", "\"root\" matches no text"},
      {"root ::= [z-a]", "line 1.*ends before it begins"},
      {"root ::= \"a", "not closed"},
      {"root ::= (\"a\"", "parenthesis is not closed"},
      {"root ::= \"a\"{3,2}", "allows no number"},
      {"root ::= \"a\"{99999}", "more than 10000"},
      {huge.c_str(), "symbols"},
      {"root ::= \"\\q\"", "no escape"},
      {"root ::= \"\\uD800\"", "no character"},
      {"root = \"a\"", "::= is missing"},
      {"root ::= \"a\" )", "unexpected"},
      {"root ::= [\xff]", "UTF-8"},
  };
  for (auto [text, message] : kCases) {
    try {
      Grammar::from_gbnf(text);
      ADD_FAILURE() << text << " was taken";
    } catch (const Error& e) {
      EXPECT_TRUE(std::regex_search(e.what(), std::regex(message))) << text << "\n" << e.what();
    }
  }
}

// A vocabulary in which tokens overlap, end within characters, appear twice, or are special.
std::shared_ptr<const TokenTree> json_tree() {
  static const auto tree = [] {
    std::vector<std::string> tokens;
    for (int b = 0; b < 256; ++b) tokens.emplace_back(1, static_cast<char>(b));
    for (const char* t :
         {"{\"", "\":",   "\": ", "\",", "\", \"", "true", "fal",      "se",  "null", "12",
          "3.",  ".5",    "e1",   "-1",  "[]",     "[{",   "}]",       "\"}", "ab",   "name",
          "a\"", "\\u00", "\\n",  " \"", "00",     "日",   "\xe6\x97", "本"})
      tokens.emplace_back(t);
    tokens.emplace_back("true");
    tokens.emplace_back("");
    return std::make_shared<const TokenTree>(tokens);
  }();
  return tree;
}

TEST(Grammar, AmbiguousOnesAreRefusedBeforeTheyFillTheMemory) {
  std::vector<std::string> tokens;
  for (size_t n = 1; n <= 64; ++n) tokens.emplace_back(n, '=');
  for (int n = 0; n < 4096; ++n) {
    tokens.emplace_back();
    for (int bit = 0; bit < 12; ++bit) tokens.back() += n >> bit & 1 ? '=' : '-';
  }
  auto tree = std::make_shared<const TokenTree>(tokens);
  std::string nested = "root ::= r0";
  for (int i = 0; i < 40; ++i)
    nested += std::string("\nr") + std::to_string(i) + " ::= r" + std::to_string(i + 1) +
              " \"x\" | r" + std::to_string(i + 1) + " \"y\"";
  nested += "\nr40 ::= \"=\"";
  for (const std::string& text :
       {std::string(R"(root ::= "=" root "b" | "=" root "c" | "d")"),
        std::string(R"(root ::= "=" root "b" | "=" root "c" | "-" root "d" | "-" root "e" | "f")"),
        nested}) {
    auto grammar = std::make_shared<Grammar>(Grammar::from_gbnf(text));
    try {
      GrammarMatcher m(grammar, tree);
      m.allowed();
      ADD_FAILURE() << text << " was followed";
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr("grammar: is too ambiguous")) << text;
    }
  }
  std::string words = "root ::= \"=\"";  // many alternatives are not ambiguous
  for (int i = 0; i < 20000; ++i) words += " | \"w" + std::to_string(i) + "\"";
  EXPECT_TRUE(matches(Grammar::from_gbnf(words), "w19999"));
}

bool bit(std::span<const uint64_t> mask, size_t t) { return mask[t >> 6] >> (t & 63) & 1; }

// A random text of the grammar, token by token, with the mask checked against every token on the
// way. Ends as soon as it may after `target` tokens.
std::string random_text(const std::shared_ptr<const Grammar>& g, uint64_t seed, int target) {
  GrammarMatcher m(g, json_tree());
  Rng rng(seed);
  std::string text;
  for (int n = 0; n < 3000; ++n) {
    if (m.can_end() && n >= target) break;
    std::vector<uint64_t> mask(m.allowed().begin(), m.allowed().end());
    std::vector<int32_t> can;
    for (int32_t t = 0; t < json_tree()->vocab_size(); ++t) {
      bool allowed = bit(mask, static_cast<size_t>(t));
      if (n < 8 && seed < 4) {  // each token from the beginning: slow
        GrammarMatcher copy(g, json_tree());
        bool ok = true;
        for (char c : text) ok = ok && copy.accept(static_cast<uint8_t>(c));
        EXPECT_TRUE(ok);
        EXPECT_EQ(copy.accept(t), allowed) << text << " then " << json_tree()->bytes(t);
      }
      if (allowed) can.push_back(t);
    }
    if (can.empty()) {
      EXPECT_TRUE(m.can_end()) << "a dead end after " << text;
      break;
    }
    // After `target` tokens mostly what closes.
    std::vector<int32_t> closing;
    for (int32_t c : {'"', '}', ']', '0', ',', 'x', 'y'}) {
      if (n >= target && std::find(can.begin(), can.end(), c) != can.end()) closing.push_back(c);
    }
    if (!closing.empty() && rng.below(4) > 0) can = closing;
    int32_t t = can[rng.below(can.size())];
    EXPECT_TRUE(m.accept(t));
    text += json_tree()->bytes(t);
  }
  EXPECT_TRUE(m.can_end()) << text;
  return text;
}

// What the schemas of this test ask for, by another way than the grammar's.
bool valid(const Json& v, const Json& s, const Json& root) {
  if (s.is_boolean()) return s.get<bool>();
  if (s.contains("$ref"))
    return valid(v, root.at(Json::json_pointer(s["$ref"].get<std::string>().substr(1))), root);
  for (const char* key : {"anyOf", "oneOf"}) {
    if (s.contains(key))
      return std::any_of(s[key].begin(), s[key].end(),
                         [&](const Json& x) { return valid(v, x, root); });
  }
  if (s.contains("const")) return v == s["const"];
  if (s.contains("enum"))
    return std::find(s["enum"].begin(), s["enum"].end(), v) != s["enum"].end();
  if (s.contains("type") && s["type"].is_array()) {
    return std::any_of(s["type"].begin(), s["type"].end(), [&](const Json& t) {
      Json one = s;
      one["type"] = t;
      return valid(v, one, root);
    });
  }
  std::string t = s.value("type", "");
  if (t == "integer" && !v.is_number_integer()) return false;
  if (t == "number" && !v.is_number()) return false;
  if (v.is_number() && (t == "integer" || t == "number")) {
    auto x = v.get<double>();
    if (x < s.value("minimum", -INFINITY) || x > s.value("maximum", INFINITY)) return false;
    if (s.contains("exclusiveMinimum") && x <= s["exclusiveMinimum"]) return false;
    if (s.contains("exclusiveMaximum") && x >= s["exclusiveMaximum"]) return false;
  }
  if (t == "boolean" && !v.is_boolean()) return false;
  if (t == "null" && !v.is_null()) return false;
  if (t == "string") {
    if (!v.is_string()) return false;
    auto text = v.get<std::string>();
    auto length =
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
    if (length < s.value("minLength", 0) || length > s.value("maxLength", 1 << 30)) return false;
    if (s.contains("pattern") &&
        !std::regex_search(text, std::regex(s["pattern"].get<std::string>())))
      return false;
  }
  if (t == "array") {
    if (!v.is_array()) return false;
    auto n = static_cast<int>(v.size());
    if (n < s.value("minItems", 0) || n > s.value("maxItems", 1 << 30)) return false;
    size_t prefix = s.contains("prefixItems") ? s["prefixItems"].size() : 0;
    for (size_t i = 0; i < v.size(); ++i) {
      if (i < prefix ? !valid(v[i], s["prefixItems"][i], root)
                     : s.contains("items") && !valid(v[i], s["items"], root))
        return false;
    }
  }
  if (t == "object") {
    if (!v.is_object()) return false;
    for (const Json& name : s.value("required", Json::array())) {
      if (!v.contains(name)) return false;
    }
    for (const auto& [key, x] : v.items()) {
      if (s.contains("properties") && s["properties"].contains(key)) {
        if (!valid(x, s["properties"][key], root)) return false;
      } else if (s.contains("additionalProperties") && !valid(x, s["additionalProperties"], root)) {
        return false;
      }
    }
  }
  return true;
}

const char* const kSchemas[] = {
    "true",
    R"({"type": "object"})",
    R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0,
        "maximum": 130}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1,
        "maxItems": 4}},
        "required": ["name", "tags"], "additionalProperties": false})",
    R"({"type": "object", "properties": {"a": {"type": "boolean"}, "ab": {"const": 5}}, "required": ["z"],
        "additionalProperties": {"type": "null"}})",
    R"({"type": ["string", "null"], "minLength": 2, "maxLength": 4})",
    R"({"enum": ["red", 7, null, {"a": [1]}]})",
    R"({"anyOf": [{"type": "number"}, {"type": "array", "items": false}]})",
    R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"value": {"type": "integer"},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"]}}})",
    R"({"type": "integer", "minimum": -12, "maximum": 345})",
    R"({"type": "integer", "exclusiveMinimum": 99})",
    R"({"type": "integer", "maximum": -1000})",
    R"({"type": "number", "minimum": 0, "maximum": 1})",
    R"({"type": "number", "minimum": -3})",
    R"({"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "integer"}], "items": {"type": "null"},
        "minItems": 3,
        "maxItems": 5})",
    R"({"type": "string", "pattern": "^(ab|c)+[0-9]{2,3}\\.\\w\"?$"})",
    R"({"type": "string", "pattern": "x[^a-z]y"})",
    R"({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"properties": {"b": {"type": "string"}}, "required": ["b"]}]})",
};

TEST(Grammar, RandomTextsOfASchemaAreJsonThatFitsIt) {
  for (const char* text : kSchemas) {
    auto g = std::make_shared<Grammar>(Grammar::from_json_schema(text));
    Json schema = Json::parse(text);
    for (uint64_t seed = 0; seed < 12; ++seed) {
      std::string out = random_text(g, seed, static_cast<int>(seed) * 4);
      Json v = Json::parse(out, nullptr, false);
      ASSERT_FALSE(v.is_discarded()) << text << "\n" << out;
      Json s = schema;
      if (s.is_object() && s.contains("allOf"))
        s = Json::parse(R"({"type": "object", "required": ["a", "b"], "additionalProperties": false,
                            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}})");
      EXPECT_TRUE(valid(v, s, schema)) << text << "\n" << out;
    }
  }
}

TEST(Grammar, SchemasTakeWhatFitsAndNothingElse) {
  struct Case {
    const char* schema;
    std::vector<std::string> yes, no;
  };
  const Case kCases[] = {
      {kSchemas[2],
       {R"({"name": "x", "tags": ["a"]})", R"({"name":"é","age":130,"tags":["abc","日本人"]})"},
       {R"({"name": "x"})", R"({"name": "x", "tags": []})",
        R"({"name": "x", "age": 131, "tags": ["a"]})",
        R"({"name": "x", "age": 007, "tags": ["a"]})", R"({"name": "x", "tags": ["abcd"]})",
        R"({"tags": ["a"], "name": "x"})"}},
      {kSchemas[3],
       {R"({"z": null})", R"({"a": true, "ab": 5, "z": null, "abc": null, "": null, "b": null})"},
       {R"({"z": null, "a": null})", R"({"z": null, "abc": 1})", R"({"z": null, "ab": null})",
        "{}"}},
      {kSchemas[8], {"-12", "0", "345", "-1", "99"}, {"-13", "346", "-0x", "1.0", "012", "-"}},
      {kSchemas[9], {"100", "1234567"}, {"99", "-100", "0"}},
      {kSchemas[11], {"0", "0.5", "1", "1.000"}, {"1.5", "2", "-0.5", "1.01"}},
      {kSchemas[14],
       {R"("ab12.x")", R"("cab123._\"")"},
       {R"("ab1.x")", R"("ab12xx")", R"("d12.x")"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2026-11-24T09:05:59Z")", R"("2026-11-24T23:05:59.125+01:30")"},
       {R"("2026-11-24T24:05:59Z")", R"("2026-11-24")", R"("2026-11-24T09:05:59")"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2026-11-24")", R"("2026-04-30")", R"("2026-12-31")", R"("2026-02-28")",
        R"("2024-02-29")", R"("2000-02-29")", R"("0000-02-29")", R"("1996-02-29")"},
       {R"("2026-13-24")", R"("now")", R"("2026-04-31")", R"("2026-02-29")", R"("1900-02-29")",
        R"("2026-02-30")", R"("2026-01-32")", R"("2026-00-01")", R"("2026-01-00")"}},
      {R"({"format": "uuid"})", {R"("01234567-89ab-cdef-0123-456789abcdef")"}, {"1", R"("a")"}},
      {R"({"type": "integer", "format": "int32"})", {"1"}, {R"("a")"}},
      {R"({"type": "string", "pattern": "^\\S$"})",
       {R"("a")", R"("é")", "\"\u200B\""},
       {R"(" ")", "\"\u00A0\"", "\"\u1680\"", "\"\u2000\"", "\"\u200A\"", "\"\u2028\"",
        "\"\u2029\"", "\"\u202F\"", "\"\u205F\"", "\"\u3000\"", "\"\uFEFF\""}},
      {R"({"type": "string", "pattern": "^\\s.$"})",
       {R"("\ta")", "\"\u3000\u00A0\"", "\"\uFEFF\u0085\""},
       {R"("aa")", "\" \u2028\"", "\" \u2029\"", R"(" \n")"}},
      {R"({"$defs": {"a b": {"type": "null"}, "c%": {"const": 1}}, "type": "array",
           "prefixItems": [{"$ref": "#/$defs/a%20b"}, {"$ref": "#/%24defs/c%25"}]})",
       {"[null, 1]"},
       {"[1, null]"}},
      {R"({"$defs": {"o": {"type": "object", "properties": {"a": {"const": 1}}}},
           "allOf": [{"$ref": "#/$defs/o", "required": ["a"]}]})",
       {R"({"a": 1})"},
       {"{}"}},
      {R"({"properties": {"b": {"const": 2}}, "required": ["b"], "allOf": [
           {"properties": {"a": {"const": 1}, "b": {"const": 2}}, "additionalProperties": false}]})",
       {R"({"b": 2})", R"({"b": 2, "a": 1})"},
       {R"({"b": 2, "c": 1})", R"({"a": 1})"}},
      {R"({"type": "string", "maxLength": 2})",
       {R"("é日")", R"("\u00e9\n")", R"("")"},
       {R"("abc")", "\"\xe9\"", R"("\ud83d")"}},
      {"true",
       {"null", "[1, {\"a\": \"b\"}]", "{}", "-1.5e+10"},
       {"nul", "[1,]", "{a: 1}", "01", "'a'", "1 2"}},
  };
  for (const Case& c : kCases) {
    Grammar g = Grammar::from_json_schema(c.schema);
    for (const auto& text : c.yes) EXPECT_TRUE(matches(g, text)) << c.schema << "\n" << text;
    for (const auto& text : c.no) EXPECT_FALSE(matches(g, text)) << c.schema << "\n" << text;
  }
}

TEST(Grammar, SchemasThatCannotBeEnforcedAreRefusedWithTheirPath) {
  const std::pair<const char*, const char*> kCases[] = {
      {"{", "json schema"},
      {"3", "is no schema"},
      {"false", "allows nothing"},
      {R"({"type": "thing"})", "none of JSON's types"},
      {R"({"properties": {"a": {"multipleOf": 3, "type": "integer"}}})",
       "#/properties/a.*multipleOf"},
      {R"({"type": "array", "uniqueItems": true})", "uniqueItems"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "no number"},
      {R"({"type": "string", "minLength": 3, "maxLength": 2})", "below minLength"},
      {R"({"$ref": "http://example.com"})", "must point into"},
      {R"({"$ref": "#/$defs/none"})", "is not there"},
      {R"({"$ref": "#"})", "begins with itself|matches no text"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
       "matches no text"},
      {R"({"type": "string", "pattern": "(?=a)b"})", "pattern"},
      {R"({"type": "string", "pattern": "^a|b$"})", "parentheses"},
      {R"({"enum": []})", "must list"},
      {R"({"type": "string", "enum": [1]})", "no value of its"},
      {R"({"type": "thing", "enum": [1]})", "none of JSON's types"},
      {R"({"type": "integer", "const": "a"})", "not of its"},
      {R"({"properties": 5, "allOf": [{"properties": {"a": {}}}]})", "must be an object"},
      {R"({"required": "x", "allOf": [{"required": ["a"]}]})", "must be a list"},
      {R"({"required": ["a"], "additionalProperties": false})", "is required, but no property"},
      {R"({"anyOf": [{"type": "null"}], "minimum": 3})", "minimum"},
      {R"({"type": "number", "minimum": 0.5})", "whole number"},
      {R"({"type": "array", "items": false, "minItems": 1})", "minItems asks"},
      {R"({"type": "string", "format": "date", "minLength": 3})", "format.*together with a length"},
      {R"({"type": "string", "format": "uuid", "pattern": "a"})", "together with"},
      {R"({"format": "date", "enum": ["x"]})", "\"format\" is not enforced"},
      {R"({"$ref": "#/$defs/%2"})", "without two digits"},
      {R"({"$defs": {"o": {"type": "object"}}, "allOf": [{"$ref": "#/$defs/o", "maxProperties": 1}]})",
       "maxProperties"},
      {R"({"allOf": [{"$ref": "#"}]})", "leads nowhere"},
      {R"({"allOf": [{"properties": {"a": {}}, "additionalProperties": false},
                     {"properties": {"b": {}}}]})",
       "additionalProperties.*\"b\""},
      {R"({"properties": {"b": {}}, "allOf": [{"additionalProperties": {"type": "null"}}]})",
       "additionalProperties.*\"b\""},
      {R"({"allOf": [{"prefixItems": [{}]}, {"items": {"type": "null"}}]})", "different parts"},
      {R"({"allOf": [{"format": "date"}, {"format": "uuid"}]})", "\"format\" twice"},
  };
  for (auto [text, message] : kCases) {
    try {
      Grammar::from_json_schema(text);
      ADD_FAILURE() << text << " was taken";
    } catch (const Error& e) {
      EXPECT_TRUE(std::regex_search(e.what(), std::regex(message))) << text << "\n" << e.what();
    }
  }
}

TEST(Grammar, OneOfTakesAlternativesThatExcludeEachOther) {
  const std::string kA = R"({"type": "object", "properties": {"kind": {"const": "a"}, "n": {}},
                             "required": ["kind"]})",
                    kB = R"({"properties": {"kind": {"enum": ["b", "c"]}, "n": {}},
                             "required": ["kind"]})";
  const std::pair<std::string, bool> kCases[] = {
      {R"({"type": "string"}, {"type": "null"}, {"type": "integer"})", true},
      {R"({"type": "integer"}, {"type": "number"})", false},
      {R"({"type": "string"}, {"minLength": 3})", false},
      {R"({"type": "integer"}, {"properties": {"a": {}}})", false},  // 1 fits the second as well
      {R"({"const": 1}, {"const": 2}, {"enum": ["x", 3]})", true},
      {R"({"const": 1}, {"enum": [2, 1.0]})", false},
      {R"({"const": "a"}, {"type": "string"})", false},
      {R"({"const": "a"}, {"type": "boolean"}, {"type": ["object", "null"]})", true},
      {kA + "," + kB, true},
      {kA + "," + kB + "," + kA, false},
      {R"({"properties": {"a": {"type": "string"}}, "required": ["a"]},
          {"properties": {"a": {"type": "null"}}})",
       true},
      {R"({"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": "null"}}})",
       false},
      {R"({"properties": {"a": {}}, "required": ["a"], "additionalProperties": false},
          {"properties": {"b": {}}, "required": ["b"], "additionalProperties": false})",
       true},
      {R"({"properties": {"a": {}}, "required": ["a"], "additionalProperties": true},
          {"properties": {"b": {}}, "required": ["b"], "additionalProperties": true})",
       false},
      {R"({"allOf": [{"$ref": "#/$defs/kind"}, {"properties": {"x": {"const": 1}}, "required": ["x"]}]},
          {"allOf": [{"$ref": "#/$defs/kind"}, {"properties": {"x": {"const": 2}}, "required": ["x"]}]})",
       true},
      {R"({"anyOf": [{"const": 1}, {"const": 2}]}, {"oneOf": [{"const": 3}, {"type": "null"}]})",
       true},
      {R"({"anyOf": [{"const": 1}, {"const": 2}]}, {"oneOf": [{"const": 2}, {"type": "null"}]})",
       false},
      // A tree: what tells the alternatives apart stands behind what leads back to them.
      {R"({"type": "null"}, {"type": "object", "required": ["a", "b", "kind"], "properties": {
            "a": {"$ref": "#"}, "b": {"$ref": "#"}, "kind": {"const": "and"}}},
          {"type": "object", "required": ["a", "b", "kind"], "properties": {
            "a": {"$ref": "#"}, "b": {"$ref": "#"}, "kind": {"const": "or"}}})",
       true},
      {R"({"type": "array", "items": {"type": "null"}}, {"type": "array", "items": {"const": 1}})",
       false},
  };
  for (const auto& [list, apart] : kCases) {
    std::string schema =
        R"({"$defs": {"kind": {"properties": {"kind": {"const": "a"}}}}, "oneOf": [)" + list + "]}";
    std::string refused;
    try {
      Grammar::from_json_schema(schema);
    } catch (const Error& e) {
      refused = e.what();
    }
    EXPECT_EQ(refused.empty(), apart) << list << "\n" << refused;
    if (!apart) {
      EXPECT_THAT(refused, testing::HasSubstr("a value could fit alternatives")) << list;
    }
  }
}

TEST(Grammar, AnEnumKeepsToItsType) {
  Grammar g = Grammar::from_json_schema(R"({"type": ["string", "null"], "enum": ["a", 1, null]})");
  EXPECT_TRUE(matches(g, "\"a\""));
  EXPECT_TRUE(matches(g, "null"));
  EXPECT_FALSE(matches(g, "1"));
}

// Each of these once took minutes, or the stack.
TEST(Grammar, LargeSchemasAreReadOrRefusedAtOnce) {
  std::string letters(30'000, 'a'), many = "{\"properties\": {\"x\": {}", classes = "root ::= ";
  for (int i = 0; i < 100'000; ++i) many += ",\"k" + std::to_string(i) + "\": {}";
  for (int i = 0; i < 60'000; ++i) {
    uint32_t c = 0x4e00 + static_cast<uint32_t>(i) % 0x5000,
             to = c + 1 + static_cast<uint32_t>(i / 0x5000);
    classes += fmt::format("{}[\\u{:04x}-\\u{:04x}]", i > 0 ? " | " : "", c, to);
  }
  for (const std::string& schema :
       {R"({"type": "object", "required": [")" + letters + R"("]})",
        R"({"additionalProperties": true, "properties": {")" + letters + R"(": {}}})",
        many + "}}"}) {
    EXPECT_THROW(Grammar::from_json_schema(schema), Error) << schema.substr(0, 60);
  }
  std::string values = R"({"oneOf": [{"const": -1})";  // compared in pairs
  for (int i = 0; i < 4000; ++i) values += ", {\"const\": " + std::to_string(i) + "}";
  EXPECT_THROW(Grammar::from_json_schema(values + "]}"), Error);
  std::string long_name(1000, 'a');
  Grammar g = Grammar::from_json_schema(R"({"required": [")" + long_name + R"("]})");
  EXPECT_TRUE(matches(g, "{\"" + long_name + "\":1,\"aaa\":2}"));
  EXPECT_FALSE(matches(g, "{\"" + long_name + "\":1,\"" + long_name + "\":2}"));
  EXPECT_TRUE(matches(Grammar::from_gbnf(classes), "\u4e01"));
}

TEST(Grammar, RangesLeaveSurrogatesOut) {
  Grammar g = Grammar::from_gbnf("root ::= [\\uD7FF-\\uE000]");
  EXPECT_TRUE(matches(g, "\xed\x9f\xbf"));
  EXPECT_TRUE(matches(g, "\xee\x80\x80"));
  EXPECT_FALSE(matches(g, "\xed\xa0\x80"));
  EXPECT_FALSE(matches(g, "\xed\xbf\xbf"));
  EXPECT_THROW(Grammar::from_gbnf("root ::= [\\uD800-\\uDFFF]"), Error);
}

TEST(Grammar, JsonObjectTakesObjectsOnly) {
  Grammar g = Grammar::json_object();
  EXPECT_TRUE(matches(g, R"({"a": [1, 2.5, {"b": null}], "c": "\u00e9 \"x\""})"));
  EXPECT_FALSE(matches(g, "[1]"));
  EXPECT_FALSE(matches(g, "{\"a\": 1} "));
}

TEST(Grammar, StatesAreForgottenWithoutLosingThePlace) {
  auto g = std::make_shared<Grammar>(
      Grammar::from_gbnf("root ::= \"a\"{10000} \"(\" root \")\" | \"b\""));
  GrammarMatcher m(g, bytes_tree());
  for (int level = 0; level < 3; ++level) {
    for (int i = 0; i < 10000; ++i) {
      if (i % 3 == 0) {
        EXPECT_TRUE(bit(m.allowed(), 'a'));
      }
      ASSERT_TRUE(m.accept('a'));
    }
    ASSERT_TRUE(m.accept('('));
  }
  for (char c : std::string_view("b)))")) {
    EXPECT_TRUE(bit(m.allowed(), static_cast<uint8_t>(c)));
    ASSERT_TRUE(m.accept(c));
  }
  EXPECT_TRUE(m.can_end());
  EXPECT_FALSE(bit(m.allowed(), ')'));
}

}  // namespace
}  // namespace wels
