#include "serve/json_body.h"

#include <gmock/gmock.h>

#include "serve/api_error.h"

namespace wels {
namespace {

using testing::HasSubstr;

std::string message_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const ApiError& e) {
    EXPECT_EQ(e.response().status, 400);
    return e.message();
  }
  return "nothing was refused";
}

std::string refusal(std::string_view body, const std::function<void(const JsonFields&)>& read) {
  return message_of([&] {
    Json json = parse_body(body);
    read(JsonFields(body, json));
  });
}

TEST(JsonBody, WhatIsNoJsonIsRefusedInPlainText) {
  for (const char* bad : {"", " \n", "{", "{\"a\":1}x", "{\"a\":1,\"a\":2}", "\"\xff\"", "nan"}) {
    try {
      parse_body(bad);
      ADD_FAILURE() << bad;
    } catch (const ApiError& e) {
      EXPECT_EQ(e.response().status, 400);
      EXPECT_EQ(e.response().content_type, "application/octet-stream");
      EXPECT_THAT(e.response().body,
                  testing::StartsWith("Failed to parse the request body as JSON: "));
    }
  }
  EXPECT_THROW(parse_body(std::string(100, '[') + std::string(100, ']')), ApiError);
}

TEST(JsonBody, MissingFieldsAreNamedWhereTheObjectEnds) {
  EXPECT_EQ(refusal("{}", [](const JsonFields& f) { f.required("messages", f.text("messages")); }),
            "Failed to deserialize the JSON body into the target type: missing field `messages` at "
            "line 1 column 2");
  EXPECT_EQ(
      refusal("{\"a\":\n {\"b\": 1} }",
              [](const JsonFields& f) {
                JsonFields a = *f.object("a");
                a.required("c", a.text("c"));
              }),
      "Failed to deserialize the JSON body into the target type: a: missing field `c` at line 2 "
      "column 9");
}

TEST(JsonBody, WrongTypesAreNamedWithTheirPlace) {
  EXPECT_EQ(
      refusal(R"({"model": "deepseek-chat", "messages": {}})",
              [](const JsonFields& f) { f.array("messages"); }),
      "Failed to deserialize the JSON body into the target type: messages: invalid type: map, "
      "expected a sequence at line 1 column 40");
  EXPECT_THAT(refusal(R"({"a": [1, "x"]})",
                      [](const JsonFields& f) {
                        f.each("a", [&](const Json& item, const JsonPath& at) {
                          if (!item.is_number()) f.wrong_type(item, at, "i64");
                        });
                      }),
              HasSubstr("a[1]: invalid type: string \"x\", expected i64 at line 1 column 13"));
  EXPECT_THAT(refusal(R"({"t": true})", [](const JsonFields& f) { f.number("t"); }),
              HasSubstr("invalid type: boolean `true`, expected f64 at line 1 column 10"));
  EXPECT_THAT(refusal(R"({"t": 1.5})", [](const JsonFields& f) { f.integer("t"); }),
              HasSubstr("invalid type: floating point `1.5`, expected i64"));
  EXPECT_THAT(
      refusal(R"({"t": 18446744073709551615})", [](const JsonFields& f) { f.integer("t"); }),
      HasSubstr("integer `18446744073709551615`"));
  EXPECT_THAT(refusal("[1]", [](const JsonFields&) {}),
              HasSubstr("invalid type: sequence, expected a map"));
}

TEST(JsonBody, NullIsAbsent) {
  std::string body = R"({"a": null})";
  Json json = parse_body(body);
  JsonFields f(body, json);
  EXPECT_FALSE(f.text("a") || f.number("a") || f.integer("a") || f.boolean("a") || f.object("a"));
  EXPECT_EQ(f.array("a"), nullptr);
}

TEST(JsonBody, PartsAreFoundInTheText) {
  std::string text = R"( {"a\"b": [10, {"c": "x]}"}], "d": -1.5e3 , "e":[] } )";
  auto part = [&](std::vector<std::string> steps) {
    auto [begin, end] = find_json_part(text, JsonPath{std::move(steps)});
    return text.substr(begin, end - begin);
  };
  EXPECT_EQ(part({"a\\\"b", "[1]", "c"}), "\"x]}\"");
  EXPECT_EQ(part({"a\\\"b", "[0]"}), "10");
  EXPECT_EQ(part({"d"}), "-1.5e3");
  EXPECT_EQ(part({"e"}), "[]");
}

}  // namespace
}  // namespace wels
