#include "serve/inside.h"

#include <gmock/gmock.h>

#include "serve/fixture_test.h"

namespace wels {
namespace {

using nlohmann::json;

json question(const std::string& text, int tokens) {
  return {{"model", "deepseek-chat"},
          {"messages", json::array({{{"role", "user"}, {"content", text}}})},
          {"max_tokens", tokens},
          {"inside", true},
          {"logit_bias", endless_bias()}};
}

TEST(Inside, AnAnswerTellsItsExpertsTokenByToken) {
  TestServer server;
  RawClient c(server.port);
  json q = question("the quick brown fox", 12);
  q["logprobs"] = true;
  json answer = c.post("/chat/completions", q.dump()).json();
  std::string id = answer["id"];
  json t = c.get("/ui/inside/" + id).json();
  EXPECT_EQ(t["id"], id);
  EXPECT_EQ(t["model"], "tiny");
  EXPECT_EQ(t["layers"], json::array({1}));
  EXPECT_EQ(t["experts"], 4);
  EXPECT_EQ(t["chosen"], 2);
  EXPECT_EQ(t["shared"], 1);
  size_t prompt = answer["usage"]["prompt_tokens"], all = prompt + 12;
  ASSERT_EQ(t["tokens"].size(), all);
  std::string text;
  for (size_t i = 0; i < all; ++i) {
    const json& token = t["tokens"][i];
    EXPECT_EQ(token["part"], i < prompt ? "prompt" : "answer");
    EXPECT_EQ(token["logp"].is_null(), i < prompt);
    EXPECT_TRUE(token["draft"].is_null());
    if (i < prompt) text += token["text"];
    if (i + 1 == all) {
      EXPECT_TRUE(token["experts"].is_null());
      continue;
    }
    ASSERT_EQ(token["experts"].size(), 1u);
    ASSERT_EQ(token["experts"][0].size(), 2u);
    EXPECT_LT(token["experts"][0][0].get<int>(), 4);
  }
  EXPECT_THAT(text, testing::HasSubstr("the quick brown fox"));
}

TEST(Inside, OnlyWhatWasWatchedIsKnown) {
  TestServer server;
  RawClient c(server.port);
  json q = question("the dog", 3);
  q.erase("inside");
  std::string id = c.post("/chat/completions", q.dump()).json()["id"];
  EXPECT_EQ(c.get("/ui/inside/" + id).status, 404);
  EXPECT_EQ(c.get("/ui/inside/").status, 404);
  EXPECT_EQ(c.get("/ui/inside/../../etc/passwd").status, 404);
  q["inside"] = 1;
  EXPECT_EQ(c.post("/chat/completions", q.dump()).status, 400);
}

TEST(Inside, TheThoughtIsAPartOfItsOwnAndTheStreamsEndComesAfterTheTrace) {
  TestServer server;
  RawClient c(server.port);
  json q = question("the dog", 6);
  q["model"] = "deepseek-reasoner";
  q["stream"] = true;
  std::string stream = c.post("/chat/completions", q.dump()).body;
  size_t at = stream.find("\"id\":\"") + 6;
  std::string id = stream.substr(at, stream.find('"', at) - at);
  json t = c.get("/ui/inside/" + id).json();
  EXPECT_EQ(t["tokens"].back()["part"], "reasoning");
}

TEST(Inside, TheLastOnesAreKeptEachForItsAccount) {
  Traces traces;
  for (size_t i = 0; i < Traces::kKept + 1; ++i) traces.add(std::to_string(i), "7", {});
  EXPECT_EQ(traces.find("0", "7"), nullptr);
  EXPECT_NE(traces.find("1", "7"), nullptr);
  EXPECT_EQ(traces.find("1", "8"), nullptr);
  EXPECT_EQ(traces.find("1", ""), nullptr);
}

TEST(Inside, LongTextsAreCut) {
  Trace t;
  GenerateRequest r;
  r.prompt.assign(5000, 3);
  t.ask(r);
  EXPECT_EQ(r.trace_from, 5000 - Trace::kPromptTokens);
  for (int i = 0; i < 10000; ++i) t.add({}, false);
  EXPECT_EQ(static_cast<int64_t>(t.prompt.size() + t.answer.size()), Trace::kTokens);
}

}  // namespace
}  // namespace wels
