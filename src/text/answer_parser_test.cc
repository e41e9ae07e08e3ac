#include "text/answer_parser.h"

#include <gmock/gmock.h>

namespace wels {
namespace {

using testing::ElementsAre;
using Kind = AnswerPiece::Kind;
using Pieces = std::vector<AnswerPiece>;

// Neighbours of one kind joined; every tool name stands alone.
void join(const Pieces& in, Pieces& out) {
  for (const AnswerPiece& p : in) {
    if (!out.empty() && out.back().kind == p.kind && p.kind != Kind::kToolName) {
      out.back().text += p.text;
    } else {
      out.push_back(p);
    }
  }
}

Pieces parse(std::string_view text, AnswerParser::Options o, size_t a, size_t b) {
  AnswerParser parser(o);
  Pieces out;
  for (std::string_view part : {text.substr(0, a), text.substr(a, b - a), text.substr(b)}) {
    Pieces pieces;
    parser.push(part, pieces);
    join(pieces, out);
  }
  Pieces pieces;
  parser.finish(pieces);
  join(pieces, out);
  return out;
}

// The same at every one and every pair of places where the text may be cut, and byte by byte.
Pieces parse_everywhere(std::string_view text, AnswerParser::Options o) {
  Pieces whole = parse(text, o, text.size(), text.size());
  for (size_t a = 0; a <= text.size(); ++a) {
    for (size_t b = a; b <= text.size(); ++b)
      EXPECT_EQ(parse(text, o, a, b), whole) << "cut at " << a << " and " << b;
  }
  AnswerParser parser(o);
  Pieces bytes;
  for (char c : text) {
    Pieces pieces;
    parser.push(std::string_view(&c, 1), pieces);
    join(pieces, bytes);
  }
  Pieces pieces;
  parser.finish(pieces);
  join(pieces, bytes);
  EXPECT_EQ(bytes, whole);
  return whole;
}

AnswerPiece reasoning(std::string t) { return {Kind::kReasoning, std::move(t)}; }
AnswerPiece content(std::string t) { return {Kind::kContent, std::move(t)}; }
AnswerPiece call(std::string t) { return {Kind::kToolName, std::move(t)}; }
AnswerPiece arguments(std::string t) { return {Kind::kToolArguments, std::move(t)}; }

TEST(AnswerParser, AnAnswerWithoutMarkersIsContentAsItIs) {
  EXPECT_THAT(parse_everywhere("\n Hello <b>", {}), ElementsAre(content("\n Hello <b>")));
  EXPECT_THAT(parse_everywhere("", {}), ElementsAre());
  EXPECT_THAT(parse_everywhere("<thin", {}), ElementsAre(content("<thin")));
}

TEST(AnswerParser, ReasoningIsSeparatedWhoeverOpenedIt) {
  auto both = ElementsAre(reasoning("We\nadd."), content("4\n"));
  EXPECT_THAT(parse_everywhere("<think>\nWe\nadd.\n</think>\n\n4\n", {}), both);
  EXPECT_THAT(parse_everywhere("\nWe\nadd.\n</think>\n\n4\n", {.thinking = true}), both);
  EXPECT_THAT(parse_everywhere("We\nadd.</think>4\n", {.thinking = true}), both);
}

TEST(AnswerParser, ReasoningMayBeCutShortOrEmpty) {
  EXPECT_THAT(parse_everywhere("We add</thi", {.thinking = true}),
              ElementsAre(reasoning("We add</thi")));
  EXPECT_THAT(parse_everywhere("</think>4", {.thinking = true}), ElementsAre(content("4")));
  EXPECT_THAT(parse_everywhere("a</think>b</think>c", {.thinking = true}),
              ElementsAre(reasoning("a"), content("b</think>c")));
}

TEST(AnswerParser, CallsOfV31) {
  EXPECT_THAT(parse_everywhere(
                  "I look.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
                  "{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>function"
                  "<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>rest",
                  {.tools = true}),
              ElementsAre(content("I look."), call("get_weather"),
                          arguments("{\"city\": \"Paris\"}"), call("function"), arguments("{}")));
}

TEST(AnswerParser, CallsOfV3AndR1) {
  EXPECT_THAT(parse_everywhere(
                  "x</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
                  "get_time\n```json\n{\"a\": \"``` {\"}\n```<｜tool▁call▁end｜>\n"
                  "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"
                  "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                  {.thinking = true, .tools = true}),
              ElementsAre(reasoning("x"), call("get_time"), arguments("{\"a\": \"``` {\"}"),
                          call("now"), arguments("{}")));
}

TEST(AnswerParser, CallsThatAreCutShort) {
  auto cut = [](const char* text) { return parse_everywhere(text, {.tools = true}); };
  EXPECT_THAT(cut("a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁s"),
              ElementsAre(content("a")));
  EXPECT_THAT(cut("<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1<｜tool"),
              ElementsAre(call("f"), arguments("{\"a\": 1<｜tool")));
  EXPECT_THAT(cut("<｜tool▁call▁begin｜>f<｜tool▁sep｜><｜tool▁call▁end｜>"),
              ElementsAre(call("f")));
  EXPECT_THAT(cut("<｜tool▁call▁begin｜>function<｜tool▁sep｜><｜tool▁call▁end｜>"),
              ElementsAre(call("function")));
  EXPECT_THAT(cut("a <｜tool▁ca"), ElementsAre(content("a <｜tool▁ca")));
}

TEST(AnswerParser, MarkersAreTextWhereNoToolsWereGiven) {
  std::string text = "a\n<｜tool▁calls▁begin｜>b";
  EXPECT_THAT(parse_everywhere(text, {}), ElementsAre(content(text)));
}

}  // namespace
}  // namespace wels
