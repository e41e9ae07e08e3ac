#include "data/chat_record.h"

#include <gmock/gmock.h>

#include "base/test_folder.h"
#include "data/compressed_test.h"
#include "data/examples.h"
#include "data/json_lines.h"
#include "text/bpe_trainer.h"

namespace wels {
namespace {

using testing::HasSubstr;

std::string roles(const ChatRecord& r) {
  std::string out;
  for (const ChatMessage& m : r.messages)
    out += m.role + "(" + m.content.value_or("-") + ")" + (m.tool_calls.empty() ? "" : "!") + " ";
  return out;
}

ChatRecord parse(const char* line) { return parse_chat_record(line, "f:1"); }

TEST(ChatRecord, ReadsAlpaca) {
  EXPECT_EQ(roles(parse(R"({"instruction":"Add","input":"1 2","output":"3"})")),
            "user(Add\n1 2) assistant(3) ");
  EXPECT_EQ(
      roles(parse(
          R"({"system":"S","instruction":"c","input":"","output":"d","history":[["a","b"]]})")),
      "system(S) user(a) assistant(b) user(c) assistant(d) ");
}

TEST(ChatRecord, ReadsShareGpt) {
  ChatRecord r =
      parse(R"({"conversations":[{"from":"human","value":"q"},{"from":"function_call",)"
            R"("value":"{\"name\":\"f\",\"arguments\":{\"z\":1,\"a\":2}}"},{"from":"observation",)"
            R"("value":"7"},{"from":"gpt","value":"It is 7."}],"system":"S"})");
  EXPECT_EQ(roles(r), "system(S) user(q) assistant(-)! tool(7) assistant(It is 7.) ");
  EXPECT_EQ(r.messages[2].tool_calls[0].name, "f");
  EXPECT_EQ(r.messages[2].tool_calls[0].arguments, "{\"z\": 1, \"a\": 2}") << "order of keys";
}

TEST(ChatRecord, ReadsOpenAiMessagesWithTools) {
  ChatRecord r =
      parse(R"({"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],)"
            R"("messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,)"
            R"("tool_calls":[{"type":"function","function":{"name":"f","arguments":"{}"}}]}]})");
  ASSERT_EQ(r.messages.size(), 3u);
  EXPECT_EQ(r.messages[0].role, "system");
  EXPECT_THAT(*r.messages[0].content, HasSubstr("### f"));
  EXPECT_EQ(r.messages[2].tool_calls.size(), 1u);
}

TEST(ChatRecord, ReadsPairsAndTexts) {
  EXPECT_EQ(roles(parse(R"({"question":"q","answer":"a"})")), "user(q) assistant(a) ");
  ChatRecord r = parse(R"({"text":"all of it"})");
  EXPECT_TRUE(r.messages.empty());
  EXPECT_EQ(r.text, "all of it");
}

TEST(ChatRecord, TheSameQuestionIsHeldOutWithAllItsAnswers) {
  EXPECT_EQ(parse(R"({"question":"q","answer":"a"})").question_hash,
            parse(R"({"instruction":"q","output":"b"})").question_hash);
  EXPECT_NE(parse(R"({"question":"q","answer":"a"})").question_hash,
            parse(R"({"question":"r","answer":"a"})").question_hash);
  int held = 0;
  for (uint64_t h = 0; h < 10000; ++h) held += in_held_out_share(h * 0x9E3779B97F4A7C15ull, 0.1);
  EXPECT_NEAR(held, 1000, 150);
}

TEST(ChatRecord, SaysWhatIsWrongAndWhere) {
  auto message = [](const char* line) { return error_of([&] { parse(line); }); };
  EXPECT_THAT(message("[1]"), HasSubstr("f:1"));
  EXPECT_THAT(message("{\"a\":1}"), HasSubstr("f:1: is in no format that wels knows; a line is"));
  EXPECT_THAT(message("{\"instruction\":\"x\"}"), HasSubstr("f:1: lacks \"output\""));
  EXPECT_THAT(message("{\"text\":3}"), HasSubstr("f:1: \"text\" is not a text"));
  EXPECT_THAT(message("{\"question\":\"x\"}"), HasSubstr("lacks \"answer\""));
  EXPECT_THAT(message(R"({"conversations":[{"from":"me","value":"x"}]})"),
              HasSubstr("f:1: conversations[0]: \"from\" is 'me'"));
  EXPECT_THAT(message(R"({"conversations":[{"from":"human"}]})"), HasSubstr("lacks \"value\""));
  EXPECT_THAT(message(R"({"conversations":[{"from":"function_call","value":"no"}]})"),
              HasSubstr("function_call"));
  EXPECT_THAT(message(R"({"messages":[{"role":"user","content":"x"}]})"),
              HasSubstr("no message is the assistant's"));
  EXPECT_THAT(message(R"({"instruction":"x","output":"y","history":[["a"]]})"),
              HasSubstr("\"history\" is not a list of pairs"));
}

TEST(PreferenceRecord, ReadsTheUsualForms) {
  auto read = [](const char* line) { return parse_preference_record(line, "f:1"); };
  PreferenceRecord r = read(R"({"prompt":"q","chosen":"a","rejected":"b"})");
  EXPECT_EQ(r.prompt.back().content, "q");
  EXPECT_EQ(r.chosen.content, "a");
  EXPECT_EQ(r.rejected.content, "b");
  r = read(R"({"conversations":[{"from":"human","value":"q"}],"chosen":{"from":"gpt","value":"a"},)"
           R"("rejected":{"from":"gpt","value":"b"}})");
  EXPECT_EQ(r.prompt.size(), 1u);
  EXPECT_EQ(r.chosen.content, "a");
  r = read(R"({"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],)"
           R"("rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]})");
  EXPECT_EQ(r.prompt.back().content, "q");
  EXPECT_EQ(r.rejected.content, "b");
  r = read(R"({"instruction":"q","input":"i","chosen":"a","rejected":"b"})");
  EXPECT_EQ(r.prompt.back().content, "q\ni");
}

TEST(PreferenceRecord, RefusesWhatCannotBeCompared) {
  auto message = [](const char* line) {
    return error_of([&] { parse_preference_record(line, "f:1"); });
  };
  EXPECT_THAT(message(R"({"prompt":"q","chosen":"a"})"), HasSubstr("f:1: lacks \"rejected\""));
  EXPECT_THAT(message(R"({"chosen":"a","rejected":"b"})"), HasSubstr("lacks a prompt"));
  EXPECT_THAT(message(R"({"prompt":"q","chosen":"a","rejected":"a"})"), HasSubstr("are the same"));
}

TEST(JsonLines, AreNumberedPlainAndCompressed) {
  TestFolder folder;
  std::string text = "{\"a\":1}\n\n{\"b\":2}";
  std::vector<std::string> files = {folder.file("a.jsonl", text),
                                    folder.file("b.jsonl.gz", gzipped(text)),
                                    folder.file("c.jsonl.zst", zstandard(text))};
  std::vector<std::string> got;
  read_json_lines(files, [&](std::string_view line, const std::string& where) {
    got.push_back(where.substr(folder.path().size() + 1) + " " + std::string(line));
    return true;
  });
  EXPECT_THAT(got, testing::ElementsAre("a.jsonl:1 {\"a\":1}", "a.jsonl:3 {\"b\":2}",
                                        "b.jsonl.gz:1 {\"a\":1}", "b.jsonl.gz:3 {\"b\":2}",
                                        "c.jsonl.zst:1 {\"a\":1}", "c.jsonl.zst:3 {\"b\":2}"));
  EXPECT_EQ(list_json_lines({folder.path()}), files);
  std::string array = folder.file("d.json", "[\n{\"a\":1}\n]");
  EXPECT_THAT(error_of([&] {
                read_json_lines({array}, [](std::string_view, const std::string&) { return true; });
              }),
              HasSubstr("jq"));
}

}  // namespace
}  // namespace wels
