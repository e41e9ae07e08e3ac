#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "serve/anthropic.h"
#include "serve/response_writer.h"
#include "serve/responses.h"

namespace wels {
namespace {

using nlohmann::json;
using testing::ElementsAre;

// The data of a stream's events, in order; "[DONE]" as a string.
std::vector<json> events(const std::string& text) {
  std::vector<json> out;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "an event without its empty line";
    std::string event = text.substr(at, end - at);
    size_t data = event.find("data: ");
    std::string value = event.substr(data + 6);
    out.push_back(value == "[DONE]" ? json(value) : json::parse(value));
    if (data > 0) {
      EXPECT_EQ(event.substr(0, data), "event: " + out.back()["type"].get<std::string>() + "\n");
    }
    at = end + 2;
  }
  return out;
}

std::vector<Delta> answer_deltas() {
  std::vector<Delta> d;
  d.push_back({.kind = Delta::kReasoning, .text = "We"});
  d.push_back({.kind = Delta::kReasoning, .text = " \"add\"\n"});
  d.push_back({.kind = Delta::kContent, .text = "4"});
  d.push_back({.kind = Delta::kToolName, .text = "f", .call = 0, .call_id = "call_00_x"});
  d.push_back({.kind = Delta::kToolArguments, .text = "{\"a\"", .call = 0});
  d.push_back({.kind = Delta::kToolArguments, .text = ":1}", .call = 0});
  d.push_back({.kind = Delta::kFinish, .finish = FinishReason::kToolCalls});
  return d;
}

const ResponseInfo kInfo{"id-1", "deepseek-reasoner", 123, "fp_1"};
const Usage kUsage{100, 64, 9, 2};

std::string written(EventWriter& w, std::vector<Delta> deltas, std::optional<Error> error = {}) {
  std::string out;
  w.begin(out);
  for (Delta& d : deltas) w.write({d}, out);
  w.end(kUsage, error, out);
  return out;
}

TEST(ChatWriter, ChunksComeInTheOrderThatDeepSeekSendsThem) {
  std::string text = written(*make_chat_writer(kInfo, false), answer_deltas());
  EXPECT_EQ(
      text.substr(0, text.find("\n\n")),
      R"(data: {"id":"id-1","object":"chat.completion.chunk","created":123,"model":"deepseek-reasoner",)"
      R"("system_fingerprint":"fp_1","choices":[{"index":0,"delta":{"role":"assistant","content":null,)"
      R"("reasoning_content":""},"logprobs":null,"finish_reason":null}]})");
  std::vector<json> all = events(text);
  ASSERT_EQ(all.size(), 9u);
  auto delta = [&](size_t i) { return all[i]["choices"][0]["delta"]; };
  EXPECT_EQ(delta(1), json::parse(R"({"content":null,"reasoning_content":"We"})"));
  EXPECT_EQ(delta(2)["reasoning_content"], " \"add\"\n");
  EXPECT_EQ(delta(3), json::parse(R"({"content":"4","reasoning_content":null})"));
  EXPECT_EQ(
      delta(4)["tool_calls"],
      json::parse(
          R"([{"index":0,"id":"call_00_x","type":"function","function":{"name":"f","arguments":""}}])"));
  EXPECT_EQ(delta(5)["tool_calls"],
            json::parse(R"([{"index":0,"function":{"arguments":"{\"a\""}}])"));
  EXPECT_EQ(delta(7)["content"], "");
  EXPECT_EQ(all[7]["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(all[7]["usage"],
            json::parse(R"({"prompt_tokens":100,"completion_tokens":9,"total_tokens":109,
      "prompt_tokens_details":{"cached_tokens":64},"completion_tokens_details":{"reasoning_tokens":2},
      "prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36})"));
  for (size_t i = 0; i < 7; ++i) EXPECT_FALSE(all[i].contains("usage"));
  EXPECT_EQ(all[8], "[DONE]");
}

TEST(ChatWriter, IncludeUsageHasAChunkOfItsOwn) {
  std::vector<json> all = events(written(*make_chat_writer(kInfo, true), answer_deltas()));
  ASSERT_EQ(all.size(), 10u);
  for (size_t i = 0; i < 8; ++i) EXPECT_TRUE(all[i].at("usage").is_null());
  EXPECT_EQ(all[8]["choices"], json::array());
  EXPECT_EQ(all[8]["usage"]["total_tokens"], 109);
}

TEST(ChatWriter, AnAnswerWithoutReasoningDoesNotMentionIt) {
  std::vector<Delta> d;
  d.push_back({.kind = Delta::kContent, .text = "hi"});
  d.push_back({.kind = Delta::kFinish});
  std::string text = written(*make_chat_writer(kInfo, false), d);
  EXPECT_EQ(text.find("reasoning_content"), std::string::npos);
  EXPECT_THAT(events(text)[0]["choices"][0]["delta"],
              json::parse(R"({"role":"assistant","content":""})"));
}

TEST(ChatWriter, ChoicesEndEachForItself) {
  std::vector<Delta> d;
  d.push_back({.kind = Delta::kContent, .choice = 1, .text = "b"});
  d.push_back({.kind = Delta::kFinish, .choice = 1, .finish = FinishReason::kLength});
  d.push_back({.kind = Delta::kContent, .choice = 0, .text = "a"});
  d.push_back({.kind = Delta::kFinish, .choice = 0});
  std::vector<json> all = events(written(*make_chat_writer(kInfo, false), d));
  std::vector<std::pair<int, std::string>> ends;
  for (const json& e : all) {
    if (e.is_object() && e["choices"][0]["finish_reason"].is_string())
      ends.emplace_back(e["choices"][0]["index"], e["choices"][0]["finish_reason"]);
  }
  EXPECT_THAT(ends,
              ElementsAre(std::pair{1, std::string("length")}, std::pair{0, std::string("stop")}));
}

TEST(ChatWriter, WholeResponsesHaveTheSameParts) {
  json r = json::parse(chat_response(kInfo, collect_answers(answer_deltas(), 1), kUsage, false));
  EXPECT_EQ(r["object"], "chat.completion");
  EXPECT_EQ(r["choices"][0]["message"], json::parse(R"({"role":"assistant","content":"4",
      "reasoning_content":"We \"add\"\n","tool_calls":[{"index":0,"id":"call_00_x","type":"function",
      "function":{"name":"f","arguments":"{\"a\":1}"}}]})"));
  EXPECT_TRUE(r["choices"][0]["logprobs"].is_null());
}

TEST(ChatWriter, LogProbabilitiesNameBytes) {
  std::vector<Delta> d;
  TokenLogprob t{7, "\xc3", -0.5, {{"a", -0.25}, {"\n", -INFINITY}}};
  d.push_back({.kind = Delta::kContent, .text = "", .logprobs = {t}});
  d.push_back({.kind = Delta::kFinish});
  json content =
      events(written(*make_chat_writer(kInfo, false), d))[1]["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(content[0]["token"], "\xef\xbf\xbd");
  EXPECT_EQ(content[0]["bytes"], json::array({195}));
  EXPECT_EQ(content[0]["top_logprobs"][1]["logprob"], -9999.0);
}

TEST(ChatWriter, AnErrorEndsTheStreamWithItsReason) {
  std::vector<json> all = events(written(*make_chat_writer(kInfo, false), {}, Error("a", "b")));
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0]["error"]["message"], "a: b");
}

TEST(CompletionWriter, EchoCarriesThePromptsLogProbabilities) {
  std::vector<Delta> d;
  d.push_back({.kind = Delta::kContent, .text = "c", .logprobs = {{3, "c", -3, {{"c", -3}}}}});
  d.push_back({.kind = Delta::kFinish, .finish = FinishReason::kLength});
  Echo echo{"ab", {{1, "a", 0, {}}, {2, "b", -2, {{"b", -2}}}}};
  json r = json::parse(completion_response(kInfo, collect_answers(d, 1), {echo}, kUsage, true));
  json c = r["choices"][0];
  EXPECT_EQ(c["text"], "abc");
  EXPECT_EQ(c["logprobs"], json::parse(R"({"tokens":["a","b","c"],"token_logprobs":[null,-2,-3],
      "top_logprobs":[null,{"b":-2},{"c":-3}],"text_offset":[0,1,2]})"));
  EXPECT_EQ(c["finish_reason"], "length");
}

TEST(CompletionWriter, OffsetsCountCharactersOfTheTextThatIsShown) {
  std::vector<Delta> d;
  d.push_back({.kind = Delta::kContent, .text = "é", .logprobs = {{3, "é", -3, {}}}});
  d.push_back({.kind = Delta::kContent, .text = "c", .logprobs = {{4, "c", -3, {}}}});
  d.push_back({.kind = Delta::kFinish, .finish = FinishReason::kLength});
  Echo echo{"ü", {{0, "<begin>", 0, {}, false}, {1, "ü", -2, {}}}};
  json r = json::parse(completion_response(kInfo, collect_answers(d, 1), {echo}, kUsage, true));
  EXPECT_EQ(r["choices"][0]["logprobs"]["text_offset"], json({0, 0, 1, 2}));
  std::vector<json> all = events(written(*make_completion_writer(kInfo, false, {"ü"}), d));
  std::vector<json> offsets;
  for (const json& e : all) {
    if (e.is_object() && e["choices"][0]["logprobs"].is_object())
      offsets.push_back(e["choices"][0]["logprobs"]["text_offset"]);
  }
  EXPECT_THAT(offsets, ElementsAre(json({1}), json({2})));
}

// Anthropic's API has no reason to stop for it.
TEST(MessagesWriter, AnAnswerThatTookTooLongEndsWithAnError) {
  std::vector<Delta> d = answer_deltas();
  d.back().finish = FinishReason::kInsufficientResource;
  std::vector<json> all = events(written(*make_messages_writer(kInfo, 100), d));
  EXPECT_EQ(all.back()["type"], "error");
  EXPECT_EQ(all.back()["error"]["type"], "overloaded_error");
}

TEST(MessagesWriter, BlocksAreOpenedAndClosedInOrder) {
  std::vector<json> all = events(written(*make_messages_writer(kInfo, 100), answer_deltas()));
  std::vector<std::string> types;
  for (const json& e : all) types.push_back(e["type"]);
  EXPECT_THAT(types, ElementsAre("message_start", "content_block_start", "content_block_delta",
                                 "content_block_delta", "content_block_stop", "content_block_start",
                                 "content_block_delta", "content_block_stop", "content_block_start",
                                 "content_block_delta", "content_block_delta", "content_block_stop",
                                 "message_delta", "message_stop"));
  EXPECT_EQ(all[8]["content_block"]["type"], "tool_use");
  EXPECT_EQ(all[8]["index"], 2);
  EXPECT_EQ(all[12]["delta"]["stop_reason"], "tool_use");
  EXPECT_EQ(all[12]["usage"]["cache_read_input_tokens"], 64);
  EXPECT_EQ(all[12]["usage"]["input_tokens"], 36);
}

TEST(MessagesWriter, AWholeMessageHasTheSameBlocks) {
  json r = json::parse(messages_response(kInfo, collect_answers(answer_deltas(), 1)[0], kUsage));
  EXPECT_EQ(r["content"][0]["thinking"], "We \"add\"\n");
  EXPECT_EQ(r["content"][1]["text"], "4");
  EXPECT_EQ(r["content"][2]["input"], json::parse(R"({"a":1})"));
  EXPECT_EQ(r["stop_reason"], "tool_use");
}

TEST(ResponsesWriter, EventsAreNumberedAndEndWithTheWholeResponse) {
  ChatRequest request;
  std::vector<json> all = events(written(*make_responses_writer(kInfo, request), answer_deltas()));
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i]["sequence_number"], i);
  EXPECT_EQ(all.front()["type"], "response.created");
  EXPECT_EQ(all.back()["type"], "response.completed");
  json output = all.back()["response"]["output"];
  ASSERT_EQ(output.size(), 3u);
  EXPECT_EQ(output[0]["content"][0]["text"], "We \"add\"\n");
  EXPECT_EQ(output[1]["content"][0]["text"], "4");
  EXPECT_EQ(output[2]["arguments"], "{\"a\":1}");
  json whole = json::parse(
      responses_response(kInfo, request, collect_answers(answer_deltas(), 1)[0], kUsage));
  EXPECT_EQ(whole["output"].size(), 3u);
  EXPECT_EQ(whole["usage"]["output_tokens_details"]["reasoning_tokens"], 2);
}

// An agent must not run a call that was cut.
TEST(ResponsesWriter, TheLastItemOfACutAnswerIsIncomplete) {
  ChatRequest request;
  std::vector<Delta> d = answer_deltas();
  d.back().finish = FinishReason::kLength;
  json streamed = events(written(*make_responses_writer(kInfo, request), d)).back()["response"];
  json whole = json::parse(responses_response(kInfo, request, collect_answers(d, 1)[0], kUsage));
  for (const json& r : {streamed, whole}) {
    EXPECT_EQ(r["status"], "incomplete");
    EXPECT_EQ(r["output"][1]["status"], "completed");
    EXPECT_EQ(r["output"][2]["status"], "incomplete");
  }
  d.back().finish = FinishReason::kInsufficientResource;
  json late = events(written(*make_responses_writer(kInfo, request), d)).back();
  EXPECT_EQ(late["type"], "response.failed");
  EXPECT_EQ(late["response"]["error"]["code"], "server_error");
}

}  // namespace
}  // namespace wels
