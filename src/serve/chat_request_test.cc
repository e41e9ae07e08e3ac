#include "serve/chat_request.h"

#include <gmock/gmock.h>

#include "serve/anthropic.h"
#include "serve/api_error.h"
#include "serve/responses.h"

namespace wels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string ask(const std::string& more) {
  return R"({"model":"deepseek-chat","messages":[{"role":"user","content":"hi"}])" + more + "}";
}

template <class Fn>
std::string refusal(Fn fn) {
  try {
    fn();
  } catch (const ApiError& e) {
    EXPECT_EQ(e.response().status, 400);
    return e.message();
  }
  return "not refused";
}
std::string chat_refusal(const std::string& body) {
  return refusal([&] { parse_chat_request(body, true); });
}

TEST(ChatRequest, EveryFieldIsRead) {
  ChatRequest r = parse_chat_request(
      ask(R"(,"max_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":3,"min_p":0.1,"typical_p":0.8,"seed":11,"n":2,
      "presence_penalty":1,"frequency_penalty":-1,"stop":["a","b"],"stream":true,
      "stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":4,
      "logit_bias":{"5":-100,"6":2},"user_id":"u",
      "thinking":{"type":"enabled","budget_tokens":9},
      "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}],
      "tool_choice":{"type":"function","function":{"name":"f"}}, "unknown": [1])"),
      false);
  const GenerationOptions& o = r.options;
  EXPECT_EQ(o.max_tokens, 7);
  EXPECT_EQ(o.temperature, 0.5);
  EXPECT_EQ(o.top_p, 0.9);
  EXPECT_EQ(o.top_k, 3);
  EXPECT_EQ(o.min_p, 0.1);
  EXPECT_EQ(o.typical_p, 0.8);
  EXPECT_EQ(o.seed, 11u);
  EXPECT_EQ(o.n, 2);
  EXPECT_EQ(o.presence_penalty, 1);
  EXPECT_EQ(o.frequency_penalty, -1);
  EXPECT_THAT(o.stop, ElementsAre("a", "b"));
  EXPECT_TRUE(o.stream && o.include_usage);
  EXPECT_EQ(o.top_logprobs, 4);
  EXPECT_LT(o.logit_bias.at(5), -1e20f);
  EXPECT_EQ(o.logit_bias.at(6), 2);
  EXPECT_EQ(o.user_id, "u");
  EXPECT_EQ(r.thinking, true);
  EXPECT_EQ(r.thinking_budget, 9);
  EXPECT_EQ(r.tools.at(0).parameters, R"({"type":"object"})");
  EXPECT_EQ(r.tool_choice.kind, ToolChoice::kNamed);
}

TEST(ChatRequest, ConversationsWithToolsAreRead) {
  ChatRequest r = parse_chat_request(
      R"({"model":"m","messages":[{"role":"developer","content":[{"type":"text","text":"a"},
      {"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[{"id":"1","type":"function",
      "function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"out"},
      {"role":"assistant","content":"beg","prefix":true,"reasoning_content":"why"}]})",
      true);
  EXPECT_EQ(r.messages[0].role, "system");
  EXPECT_EQ(r.messages[0].content, "ab");
  EXPECT_EQ(r.messages[1].tool_calls.at(0).name, "f");
  EXPECT_FALSE(r.messages[1].content);
  EXPECT_EQ(r.messages[2].content, "out");
  EXPECT_TRUE(r.messages[3].prefix);
  EXPECT_EQ(r.messages[3].reasoning, "why");
}

TEST(ChatRequest, ValuesOutOfRangeAreRefusedInDeepSeeksWords) {
  EXPECT_EQ(chat_refusal(ask(R"(,"temperature":2.5)")),
            "Invalid temperature value, the valid range of temperature is [0, 2]");
  EXPECT_EQ(
      chat_refusal(ask(",\"user_id\":\"" + std::string(513, 'x') + "\"")),
      "Invalid 'user_id': string too long. Expected a string with maximum length 512, but got a "
      "string with length 513 instead");
  EXPECT_THAT(chat_refusal(ask(R"(,"top_p":-0.1)")), HasSubstr("top_p"));
  EXPECT_THAT(chat_refusal(ask(R"(,"n":0)")), HasSubstr("range of n"));
  EXPECT_THAT(chat_refusal(ask(R"(,"top_logprobs":3)")), HasSubstr("logprobs must be true"));
  EXPECT_THAT(chat_refusal(ask(R"(,"logprobs":true,"top_logprobs":21)")), HasSubstr("[0, 20]"));
  EXPECT_THAT(
      chat_refusal(ask(
          R"(,"stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])")),
      HasSubstr("at most 16"));
  EXPECT_THAT(chat_refusal(ask(R"(,"logit_bias":{"x":1})")), HasSubstr("'x' is no token id"));
  EXPECT_THAT(chat_refusal(ask(R"(,"stream_options":{"include_usage":true})")),
              HasSubstr("stream = true"));
  EXPECT_THAT(chat_refusal(ask(R"(,"tool_choice":"required")")), HasSubstr("without tools"));
  EXPECT_THAT(chat_refusal(ask(R"(,"tools":[{"type":"function","function":{"name":"a b"}}])")),
              HasSubstr("^[a-zA-Z0-9_-]{1,64}$"));
}

TEST(ChatRequest, EffortsHaveOpenAIsNames) {
  auto effort = [](const char* name) {
    return parse_chat_request(ask(std::string(R"(,"reasoning_effort":")") + name + "\""), false)
        .effort;
  };
  EXPECT_EQ(effort("minimal"), ReasoningEffort::kLow);
  EXPECT_EQ(effort("medium"), ReasoningEffort::kHigh);
  EXPECT_EQ(effort("ultra"), ReasoningEffort::kMax);
  EXPECT_THAT(chat_refusal(ask(R"(,"reasoning_effort":"some")")),
              HasSubstr("unknown variant `some`"));
}

TEST(ChatRequest, StrictToolsMustNameAllTheirProperties) {
  auto tools = [](const char* strict, const char* schema) {
    return ask(std::string(R"(,"tools":[{"type":"function","function":{"name":"f","strict":)") +
               strict + R"(,"parameters":)" + schema + "}}]");
  };
  const char* good = R"({"type":"object","properties":{"a":{"type":"array","items":{"type":"object",
      "properties":{"b":{"type":"string"}},"required":["b"]}}},"required":["a"]})";
  const char* bad = R"({"type":"object","properties":{"a":{"type":"array","items":{"type":"object",
      "properties":{"b":{"type":"string"}},"required":[]}}},"required":["a"]})";
  EXPECT_TRUE(parse_chat_request(tools("true", good), true).strict_tools);
  EXPECT_FALSE(parse_chat_request(tools("false", bad), true).strict_tools);
  EXPECT_THAT(chat_refusal(tools("true", bad)),
              HasSubstr("'f': parameters.a.items must list all its properties"));
  EXPECT_THAT(chat_refusal(tools("true", R"({"properties":{},"additionalProperties":true})")),
              HasSubstr("additionalProperties"));
}

TEST(ChatRequest, MessagesThatAreNoneAreRefused) {
  auto messages = [](const std::string& m) {
    return chat_refusal(R"({"model":"m","messages":)" + m + "}");
  };
  EXPECT_THAT(messages("[]"), HasSubstr("Empty input messages"));
  EXPECT_THAT(messages("{}"), HasSubstr("invalid type: map, expected a sequence"));
  EXPECT_THAT(messages(R"([{"content":"x"}])"), HasSubstr("missing field `role`"));
  EXPECT_THAT(messages(R"([{"role":"king","content":"x"}])"), HasSubstr("unknown variant `king`"));
  EXPECT_THAT(messages(R"([{"role":"user"}])"), HasSubstr("missing field `content`"));
  EXPECT_THAT(messages(R"([{"role":"tool","content":"x"}])"), HasSubstr("tool_call_id"));
  EXPECT_THAT(messages(R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])"),
              HasSubstr("unknown variant `image_url`"));
  EXPECT_THAT(chat_refusal(R"({"messages":[{"role":"user","content":"x"}]})"),
              HasSubstr("missing field `model`"));
}

TEST(ChatRequest, JsonObjectNeedsTheWordInThePrompt) {
  EXPECT_THAT(chat_refusal(ask(R"(,"response_format":{"type":"json_object"})")),
              HasSubstr("must contain the word 'json'"));
  ChatRequest r = parse_chat_request(
      R"({"model":"m","messages":[{"role":"user","content":"as JSON"}],"response_format":{"type":"json_object"}})",
      false);
  EXPECT_EQ(r.format.kind, ResponseFormat::kJsonObject);
  r = parse_chat_request(
      ask(R"(,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":
      {"type":"object","properties":{"z":{"type":"string"},"a":{"type":"string"}}}}})"),
      false);
  EXPECT_THAT(r.format.schema,
              HasSubstr(R"({"z":{"type":"string"},"a")"));  // in the client's order
}

TEST(ChatRequest, AGrammarGoesWithNothingElseThatHoldsTheAnswer) {
  std::string grammar = R"(,"grammar":"root ::= \"x\"")";
  std::string tools = R"(,"tools":[{"type":"function","function":{"name":"look","parameters":
      {"type":"object","properties":{},"required":[],"additionalProperties":false},"strict":)";
  EXPECT_EQ(parse_chat_request(ask(grammar + tools + "false}}]"), false).options.grammar,
            "root ::= \"x\"");
  EXPECT_NO_THROW(
      parse_chat_request(ask(grammar + tools + R"(true}}],"tool_choice":"none")"), false));
  for (const std::string& with :
       {tools + R"(false}}],"tool_choice":"required")",
        tools + R"(false}}],"tool_choice":{"type":"function","function":{"name":"look"}})",
        tools + "true}}]", std::string(R"(,"response_format":{"type":"json_schema","json_schema":
        {"name":"x","schema":{"type":"object"}}})")})
    EXPECT_THAT(chat_refusal(ask(grammar + with)), HasSubstr("Invalid grammar: it can't be set"))
        << with;
}

TEST(CompletionRequest, PromptsMayBeTextsOrTokensOneOrMany) {
  auto prompts = [](const std::string& p) {
    return parse_completion_request(R"({"model":"m","prompt":)" + p + "}").prompts;
  };
  EXPECT_EQ(std::get<std::string>(prompts("\"a\"").at(0)), "a");
  EXPECT_EQ(std::get<std::string>(prompts(R"(["a","b"])").at(1)), "b");
  EXPECT_THAT(std::get<std::vector<int32_t>>(prompts("[1,2]").at(0)), ElementsAre(1, 2));
  EXPECT_THAT(std::get<std::vector<int32_t>>(prompts("[[1],[2,3]]").at(1)), ElementsAre(2, 3));
  for (const char* bad : {"[]", "[-1]", "[1.5]", "3", "[[1],\"a\",{}]", "[4294967296]"})
    EXPECT_NE(refusal([&] { prompts(bad); }), "not refused") << bad;
}

TEST(MessagesRequest, BlocksBecomeMessages) {
  ChatRequest r = parse_messages_request(
      R"({"model":"claude-x","max_tokens":5,"system":[{"type":"text","text":"s","cache_control":{}}],
      "messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"t"},
      {"type":"text","text":"a"},{"type":"tool_use","id":"1","name":"f","input":{"x":1}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"r"}]},
      {"type":"text","text":"go on"}]}],
      "tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"any"},
      "stop_sequences":["x"],"thinking":{"type":"enabled","budget_tokens":1024}})",
      false);
  ASSERT_EQ(r.messages.size(), 5u);
  EXPECT_EQ(r.messages[0].content, "s");
  EXPECT_EQ(r.messages[2].content, "a");
  EXPECT_EQ(r.messages[2].tool_calls.at(0).arguments, R"({"x":1})");
  EXPECT_EQ(r.messages[3].role, "tool");
  EXPECT_EQ(r.messages[3].content, "r");
  EXPECT_EQ(r.messages[4].content, "go on");
  EXPECT_EQ(r.tool_choice.kind, ToolChoice::kRequired);
  EXPECT_EQ(r.thinking_budget, 1024);
  EXPECT_THAT(r.options.stop, ElementsAre("x"));
  EXPECT_THAT(refusal([&] {
                parse_messages_request(
                    R"({"model":"m","messages":[{"role":"user","content":"q"}]})", false);
              }),
              HasSubstr("missing field `max_tokens`"));
  EXPECT_THAT(
      refusal([&] {
        parse_messages_request(
            R"({"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"image"}]}]})",
            false);
      }),
      HasSubstr("unsupported content block `image`"));
}

TEST(MessagesRequest, UnknownChoicesAreRefusedAndEffortIsRead) {
  auto parse = [](const std::string& more) {
    return parse_messages_request(
        R"({"model":"m","max_tokens":5,"messages":[{"role":"user","content":"q"}],)" + more + "}",
        false);
  };
  EXPECT_EQ(parse(R"("output_config":{"effort":"low"})").effort, ReasoningEffort::kLow);
  EXPECT_EQ(parse(R"("thinking":{"type":"adaptive"})").thinking, true);
  for (const char* wrong : {R"("output_config":{"effort":"zzz"})",
                            R"("tool_choice":{"type":"foo"})", R"("thinking":{"type":"foo"})"})
    EXPECT_THAT(refusal([&] { parse(wrong); }), HasSubstr("unknown variant")) << wrong;
}

// Every way of asking has the same rules.
TEST(Requests, OfOtherApisKeepTheChatsRules) {
  auto messages = [](const std::string& more, const char* content = "\"q\"") {
    return refusal([&] {
      parse_messages_request(
          R"({"model":"m","max_tokens":5,"messages":[{"role":"assistant","content":)" +
              std::string(content) + "}]," + more + "}",
          false);
    });
  };
  auto responses = [](const std::string& more, const char* input = "\"q\"") {
    return refusal([&] {
      parse_responses_request(R"({"model":"m","input":)" + std::string(input) + "," + more + "}");
    });
  };
  std::string user = "\"user_id\":\"" + std::string(513, 'x') + "\"", stops = "\"a\"";
  for (int i = 0; i < 16; ++i) stops += ",\"a\"";
  EXPECT_THAT(messages("\"metadata\":{" + user + "}"), HasSubstr("string too long"));
  EXPECT_THAT(responses(user), HasSubstr("string too long"));
  EXPECT_THAT(
      refusal([&] { parse_embedding_request(R"({"model":"m","input":"q",)" + user + "}"); }),
      HasSubstr("string too long"));
  EXPECT_THAT(messages("\"stop_sequences\":[" + stops + "]"),
              HasSubstr("Invalid stop_sequences: at most 16 strings are allowed, got 17"));
  const char* named = R"("tools":[{"type":"function","name":"f","input_schema":{}}],)"
                      R"("tool_choice":{"type":"tool","name":"g"})";
  for (auto& refused : {messages(named), responses(named)})
    EXPECT_THAT(refused, HasSubstr("Invalid tool_choice: no tool 'g'"));
  EXPECT_THAT(messages(R"("tool_choice":{"type":"any"})"), HasSubstr("without tools"));
  EXPECT_THAT(responses(R"("tool_choice":"required")"), HasSubstr("without tools"));
  for (const char* range : {R"("temperature":2.5)", R"("top_p":-0.1)"}) {
    EXPECT_THAT(messages(range), HasSubstr("the valid range of"));
    EXPECT_THAT(responses(range), HasSubstr("the valid range of"));
  }
  EXPECT_THAT(messages(R"("top_p":1)", R"([{"type":"tool_use","id":"1","name":"a b"}])"),
              HasSubstr("Invalid function name 'a b'"));
  EXPECT_THAT(responses(R"("top_p":1)", R"([{"type":"function_call","name":""}])"),
              HasSubstr("Invalid function name ''"));
}

TEST(ResponsesRequest, WhatCannotBeHonouredIsRefused) {
  auto parse = [](const std::string& more) {
    return parse_responses_request(R"({"model":"m","input":"q",)" + more + "}");
  };
  ChatRequest r = parse(
      R"("user_id":"u","reasoning":{"effort":"low"},"tools":[{"type":"function","name":"f",
      "strict":true,"parameters":{"type":"object","properties":{"a":{}},"required":["a"]}}])");
  EXPECT_EQ(r.options.user_id, "u");
  EXPECT_EQ(r.effort, ReasoningEffort::kLow);
  EXPECT_TRUE(r.strict_tools);
  EXPECT_EQ(parse(R"("reasoning":{"effort":"none"})").thinking, false);
  for (auto [wrong, why] : {std::pair{R"("tool_choice":"foo")", "unknown variant `foo`"},
                            {R"("text":{"format":{"type":"foo"}})", "unknown variant `foo`"},
                            {R"("text":{"format":{"type":"json_object"}})", "the word 'json'"},
                            {R"("reasoning":{"effort":"zzz"})", "reasoning.effort"},
                            {R"("tools":[{"type":"function","name":"f","strict":true,
                                "parameters":{"properties":{"a":{}}}}])",
                             "must list all its properties"}})
    EXPECT_THAT(refusal([&, body = wrong] { parse(body); }), HasSubstr(why)) << wrong;
}

TEST(ResponsesRequest, ItemsBecomeMessages) {
  ChatRequest r = parse_responses_request(
      R"({"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text","text":"q"}]},
      {"type":"reasoning","id":"x","summary":[]},{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
      {"type":"function_call","call_id":"2","name":"g","arguments":"{}"},
      {"type":"function_call_output","call_id":"1","output":"o"}],"max_output_tokens":3,
      "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}}}})");
  ASSERT_EQ(r.messages.size(), 4u);
  EXPECT_EQ(r.messages[0].content, "i");
  EXPECT_EQ(r.messages[2].tool_calls.size(), 2u);
  EXPECT_EQ(r.messages[3].role, "tool");
  EXPECT_EQ(r.format.schema, R"({"type":"object"})");
  EXPECT_THAT(refusal([&] {
                parse_responses_request(R"({"model":"m","input":"x","previous_response_id":"r"})");
              }),
              HasSubstr("Nothing is stored here"));
}

}  // namespace
}  // namespace wels
