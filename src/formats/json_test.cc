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
  }
  for (const char* text : {"", "{", R"({"a": 1, "a": 2})", "[1,]", "\"\xff\"", "1 2"})
    EXPECT_THROW(parse_ordered_json(text, "t"), Error) << text;
}

// The library's own ordered parser takes minutes for this.
TEST(OrderedJson, ManyKeysTakeNoLongerThanTheirText) {
  constexpr int kKeys = 300'000;
  std::string text = "{";
  for (int i = 0; i < kKeys; ++i) text += (i > 0 ? ",\"k" : "\"k") + std::to_string(i) + "\":1";
  ordered_json j = parse_ordered_json(text + "}", "t");
  EXPECT_EQ(j.size(), static_cast<size_t>(kKeys));
  EXPECT_EQ(j.begin().key(), "k0");
}

}  // namespace
}  // namespace wels
