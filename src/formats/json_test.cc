#include "formats/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace wels {
namespace {

using nlohmann::ordered_json;

TEST(OrderedJson, IsWhatTheLibraryReads) {
  for (const char* text :
       {"null", "true", "-7", "18446744073709551615", "1.5e3", R"("a\u00e9\n")", "[]", "{}",
        R"({"b": 1, "a": {"z": [], "y": [1, [2, {"x": null}], "s"]}, "": false})",
        R"([{"one": 1}, {"two": {"three": [[[]]]}}, [{}]])"}) {
    EXPECT_EQ(parse_ordered_json(text, "t"), ordered_json::parse(text)) << text;
    EXPECT_EQ(parse_ordered_json(text, "t").dump(), ordered_json::parse(text).dump()) << text;
    EXPECT_EQ(parse_json(text, "t"), nlohmann::json::parse(text)) << text;
  }
  for (const char* text : {"", "{", R"({"a": 1, "a": 2})", "[1,]", "\"\xff\"", "1 2"})
    EXPECT_THROW(parse_ordered_json(text, "t"), Error) << text;
  std::string deep(64, '['), deeper(65, '[');
  EXPECT_NO_THROW(parse_json(deep + std::string(64, ']'), "t"));
  EXPECT_THROW(parse_json(deeper + std::string(65, ']'), "t"), Error);
}

// The library's own parsers take minutes for this.
TEST(OrderedJson, ManyKeysTakeNoLongerThanTheirText) {
  constexpr int kKeys = 300'000;
  std::string text = "{";
  for (int i = 0; i < kKeys; ++i) text += (i > 0 ? ",\"k" : "\"k") + std::to_string(i) + "\":{}";
  ordered_json j = parse_ordered_json(text + "}", "t");
  EXPECT_EQ(j.size(), static_cast<size_t>(kKeys));
  EXPECT_EQ(j.begin().key(), "k0");
  EXPECT_EQ(parse_json(text + "}", "t").size(), static_cast<size_t>(kKeys));
}

}  // namespace
}  // namespace wels
