// The server in this process, spoken to in raw bytes: framing, order, limits, abuse, load.
#include <gmock/gmock.h>

#include <future>
#include <regex>

#include "serve/fixture_test.h"
#include "serve/load_client.h"

namespace wels {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

// With logit biases of its own (`more`) an answer may end early.
std::string chat(const std::string& more = "", const std::string& model = "deepseek-chat") {
  bool biased = more.find("logit_bias") != std::string::npos;
  return R"({"model":")" + model +
         R"(","messages":[{"role":"user","content":"the fox"}],"max_tokens":12,)" + R"("seed":5)" +
         (biased ? "" : ",\"logit_bias\":" + endless_bias().dump()) + more + "}";
}

std::vector<json> events(const std::string& body) {
  std::vector<json> out;
  for (size_t at = 0; at < body.size();) {
    size_t end = body.find("\n\n", at);
    std::string line = body.substr(at, end - at);
    if (line.starts_with("data: ") && line != "data: [DONE]")
      out.push_back(json::parse(line.substr(6)));
    at = end == std::string::npos ? body.size() : end + 2;
  }
  return out;
}

std::string text_of(const std::vector<json>& chunks, const char* field = "content") {
  std::string out;
  for (const json& c : chunks) {
    if (c["choices"].empty()) continue;
    const json& delta = c["choices"][0]["delta"];
    if (delta.contains(field) && delta[field].is_string()) out += delta[field].get<std::string>();
  }
  return out;
}

struct ServerTest : testing::Test {
  TestServer server;
  RawClient client{server.port};
};

TEST_F(ServerTest, AnswersAndStreamsTheSameText) {
  RawClient::Response whole = client.post("/chat/completions", chat());
  ASSERT_EQ(whole.status, 200) << whole.body;
  json w = whole.json();
  EXPECT_EQ(w["usage"]["completion_tokens"], 12);
  EXPECT_EQ(w["choices"][0]["finish_reason"], "length");
  RawClient::Response stream = client.post("/v1/chat/completions", chat(R"(,"stream":true)"));
  EXPECT_THAT(stream.head, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(stream.body, testing::EndsWith("data: [DONE]\n\n"));
  std::vector<json> chunks = events(stream.body);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(text_of(chunks), w["choices"][0]["message"]["content"]);
  EXPECT_EQ(chunks.back()["usage"]["completion_tokens"], 12);
}

TEST_F(ServerTest, ReasoningThatTheTemplateOpenedIsSeparated) {
  std::string r = chat(R"(,"stream":true,"thinking_budget":5)", "deepseek-reasoner");
  std::vector<json> chunks = events(client.post("/chat/completions", r).body);
  EXPECT_EQ(chunks[0]["choices"][0]["delta"],
            json::parse(R"({"role":"assistant","content":null,"reasoning_content":""})"));
  EXPECT_FALSE(text_of(chunks, "reasoning_content").empty());
  bool content = false;
  for (const json& c : chunks) {
    const json& d = c["choices"][0]["delta"];
    if (d["content"].is_string() && !d.contains("role")) content = true;
    if (content) {
      EXPECT_TRUE(d["reasoning_content"].is_null()) << "reasoning after content";
    }
  }
  json usage = chunks.back()["usage"];
  EXPECT_EQ(usage["completion_tokens"], 12);
  EXPECT_EQ(usage["completion_tokens_details"]["reasoning_tokens"], 6);  // five and </think>
}

TEST_F(ServerTest, ASecondTurnFindsTheFirstInTheCacheButNotThatOfAnotherUser) {
  std::string text(600, 'x');
  auto ask = [&](const std::string& user) {
    json m{{"model", "deepseek-chat"}, {"max_tokens", 2}, {"user_id", user}};
    m["messages"] = json::array({{{"role", "user"}, {"content", text}}});
    json u = client.post("/chat/completions", m.dump()).json()["usage"];
    EXPECT_EQ(u["prompt_tokens"],
              u["prompt_cache_hit_tokens"].get<int>() + u["prompt_cache_miss_tokens"].get<int>());
    return u["prompt_cache_hit_tokens"].get<int>();
  };
  EXPECT_EQ(ask("a"), 0);
  int hit = ask("a");
  EXPECT_GT(hit, 0);
  EXPECT_EQ(hit % 64, 0);
  EXPECT_EQ(ask("b"), 0);
}

TEST_F(ServerTest, SeedsStopsChoicesAndLogProbabilities) {
  json a =
      client.post("/chat/completions", chat(R"(,"n":2,"logprobs":true,"top_logprobs":3)")).json();
  json b =
      client.post("/chat/completions", chat(R"(,"n":2,"logprobs":true,"top_logprobs":3)")).json();
  ASSERT_EQ(a["choices"].size(), 2u) << a;
  EXPECT_EQ(a["choices"][1], b["choices"][1]);
  EXPECT_NE(a["choices"][0]["message"], a["choices"][1]["message"]);
  EXPECT_EQ(a["choices"][0]["logprobs"]["content"].size(), 12u);
  EXPECT_EQ(a["choices"][0]["logprobs"]["content"][0]["top_logprobs"].size(), 3u);
  EXPECT_EQ(a["usage"]["completion_tokens"], 24);
  // A piece of the answer as a stop string.
  std::string said = a["choices"][0]["message"]["content"];
  std::string stop = said.substr(said.size() / 2, 2);
  if (stop.size() == 2 && static_cast<unsigned char>(stop[0]) < 0x80 &&
      static_cast<unsigned char>(stop[1]) < 0x80) {
    json s = client.post("/chat/completions", chat(",\"stop\":" + json(stop).dump())).json();
    EXPECT_EQ(s["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(s["choices"][0]["message"]["content"], said.substr(0, said.find(stop)));
  }
  // A token that always wins.
  int32_t token = server.tokenizer.encode("x").at(0);
  json biased = client
                    .post("/chat/completions",
                          chat(",\"logit_bias\":{\"" + std::to_string(token) + "\":100}"))
                    .json();
  EXPECT_EQ(biased["choices"][0]["message"]["content"], "xxxxxxxxxxxx");
}

TEST_F(ServerTest, JsonSchemasHold) {
  std::string schema =
      R"(,"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":
      {"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}}})";
  std::string body = chat(schema);
  body.replace(body.find("\"max_tokens\":12"), 15, "\"max_tokens\":100");
  json r = client.post("/chat/completions", body).json();
  EXPECT_EQ(r["choices"][0]["finish_reason"], "stop") << r;
  EXPECT_TRUE(
      json::parse(r["choices"][0]["message"]["content"].get<std::string>())["ok"].is_boolean());
  body.replace(body.find("deepseek-chat"), 13, "deepseek-reasoner");
  body.insert(body.size() - 1, R"(,"thinking":{"type":"enabled","budget_tokens":4})");
  r = client.post("/chat/completions", body).json();
  EXPECT_TRUE(
      json::parse(r["choices"][0]["message"]["content"].get<std::string>())["ok"].is_boolean())
      << r;
}

TEST_F(ServerTest, GrammarsHold) {
  const std::string grammar = R"(,"grammar":"root ::= \"yes\" | \"no\" | [0-9]{3}")";
  std::string pattern = "yes|no|[0-9]{3}";
  json r = client.post("/chat/completions", chat(grammar)).json();
  EXPECT_EQ(r["choices"][0]["finish_reason"], "stop") << r;
  EXPECT_TRUE(std::regex_match(r["choices"][0]["message"]["content"].get<std::string>(),
                               std::regex(pattern)))
      << r;
  r = client
          .post("/completions",
                R"({"model":"deepseek-chat","prompt":"a","max_tokens":12)" + grammar + "}")
          .json();
  EXPECT_TRUE(std::regex_match(r["choices"][0]["text"].get<std::string>(), std::regex(pattern)))
      << r;
  for (const char* wrong : {R"(,"grammar":"root")", R"(,"grammar":1)", R"(,"typical_p":2)",
                            R"(,"grammar":"root ::= (\"a\"?){10000}")"})
    EXPECT_EQ(client.post("/chat/completions", chat(wrong)).status, 400) << wrong;
}

TEST_F(ServerTest, RequiredToolsAreCalledWithArgumentsOfTheirSchema) {
  std::string tools =
      R"(,"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object",
      "properties":{"deep":{"type":"boolean"}},"required":["deep"],"additionalProperties":false}}},
      {"type":"function","function":{"name":"wait","parameters":{"type":"object","properties":{"n":
      {"type":"boolean"}},"required":["n"],"additionalProperties":false}}}],"tool_choice":)";
  auto ask = [&](const std::string& choice, const char* more) {
    std::string body = chat(tools + choice + more);
    body.replace(body.find("\"max_tokens\":12"), 15, "\"max_tokens\":200");
    return client.post("/chat/completions", body);
  };
  json r = ask(R"({"type":"function","function":{"name":"wait"}})", "").json();
  ASSERT_TRUE(r.contains("choices")) << r;
  json m = r["choices"][0]["message"];
  EXPECT_EQ(r["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_TRUE(m["content"].is_null());
  EXPECT_EQ(m["tool_calls"][0]["function"]["name"], "wait");
  EXPECT_THAT(m["tool_calls"][0]["id"].get<std::string>(),
              testing::MatchesRegex("call_00_[a-zA-Z0-9]{24}"));
  EXPECT_TRUE(json::parse(m["tool_calls"][0]["function"]["arguments"].get<std::string>())["n"]
                  .is_boolean());
  std::vector<json> chunks = events(ask("\"required\"", R"(,"stream":true)").body);
  std::string name, arguments;
  for (const json& c : chunks) {
    const json& d = c["choices"][0]["delta"];
    if (!d.contains("tool_calls")) continue;
    const json& f = d["tool_calls"][0]["function"];
    if (f.contains("name")) name = f["name"];
    arguments += f["arguments"].get<std::string>();
  }
  EXPECT_TRUE(name == "look" || name == "wait") << name;
  EXPECT_TRUE(json::parse(arguments)[name == "look" ? "deep" : "n"].is_boolean());
  EXPECT_EQ(chunks.back()["choices"][0]["finish_reason"], "tool_calls");
}

TEST_F(ServerTest, CallsOfStrictToolsKeepToTheirSchemaWhenTheModelMakesThem) {
  // The model is talked into a call; what follows is its own.
  std::string begin = std::to_string(*server.tokenizer.find("<｜tool▁calls▁begin｜>"));
  std::string body = chat(
      R"(,"logit_bias":{")" + begin +
      R"(":100},"tools":[{"type":"function","function":{"name":"look","strict":true,"parameters":
      {"type":"object","properties":{"deep":{"type":"boolean"}},"required":["deep"],
      "additionalProperties":false}}}])");
  body.replace(body.find("\"max_tokens\":12"), 15, "\"max_tokens\":200");
  json r = client.post("/beta/chat/completions", body).json();
  ASSERT_TRUE(r.contains("choices")) << r;
  json call = r["choices"][0]["message"]["tool_calls"][0]["function"];
  EXPECT_EQ(call["name"], "look");
  EXPECT_TRUE(json::parse(call["arguments"].get<std::string>())["deep"].is_boolean());
}

TEST_F(ServerTest, EchoScoresAPromptAsTheModelDoes) {
  std::vector<int32_t> ids = server.tokenizer.encode("the lazy dog");
  json body{{"model", "tiny"}, {"prompt", ids},   {"echo", true},
            {"logprobs", 2},   {"max_tokens", 1}, {"temperature", 0}};
  json c = client.post("/v1/completions", body.dump()).json()["choices"][0];
  json l = c["logprobs"];
  ASSERT_EQ(l["token_logprobs"].size(), ids.size() + 1) << c;
  EXPECT_TRUE(l["token_logprobs"][0].is_null());
  EXPECT_THAT(c["text"].get<std::string>(), StartsWith("the lazy dog"));
  // Each token asked for by itself has the same log-probability.
  for (size_t i = 1; i < ids.size(); ++i) {
    json one{{"model", "tiny"},
             {"prompt", std::vector<int32_t>(ids.begin(), ids.begin() + static_cast<long>(i))},
             {"max_tokens", 1},
             {"logprobs", 1},
             {"temperature", 0},
             {"logit_bias", {{std::to_string(ids[i]), 100}}}};
    json got = client.post("/completions", one.dump()).json()["choices"][0]["logprobs"];
    EXPECT_NEAR(got["token_logprobs"][0].get<double>(), l["token_logprobs"][i].get<double>(), 1e-3);
  }
  body["prompt"] = {"the cat", "the dog"};
  body["max_tokens"] = 0;
  json both = client.post("/completions", body.dump()).json();
  EXPECT_EQ(both["choices"].size(), 2u) << both;
  EXPECT_EQ(both["choices"][1]["text"], "the dog");
}

TEST_F(ServerTest, PrefixesAndMiddlesAreGoneOnWith) {
  std::string beta =
      R"({"model":"deepseek-chat","max_tokens":4,"messages":[{"role":"user","content":"q"},
      {"role":"assistant","content":"the quick","prefix":true}],"logit_bias":)" +
      endless_bias().dump() + "}";
  json r = client.post("/beta/chat/completions", beta).json();
  EXPECT_EQ(r["usage"]["completion_tokens"], 4) << r;
  json t = client.post("/tokenize", R"({"messages":[{"role":"user","content":"q"}]})").json();
  EXPECT_GT(r["usage"]["prompt_tokens"], t["count"]);
  json fim{{"model", "deepseek-chat"},
           {"prompt", "the quick"},
           {"suffix", "the dog"},
           {"max_tokens", 3}};
  json f = client.post("/beta/completions", fim.dump()).json();
  EXPECT_EQ(f["object"], "text_completion") << f;
  EXPECT_EQ(
      f["usage"]["prompt_tokens"].get<size_t>(),
      server.tokenizer.encode("the quick").size() + server.tokenizer.encode("the dog").size() + 3);
}

TEST_F(ServerTest, EmbeddingsAreMeansOfLengthOne) {
  json r =
      client.post("/v1/embeddings", R"({"model":"tiny","input":["the cat","the dog"]})").json();
  ASSERT_EQ(r["data"].size(), 2u) << r;
  auto a = r["data"][0]["embedding"].get<std::vector<double>>();
  EXPECT_EQ(a.size(), 32u);
  double square = 0;
  for (double v : a) square += v * v;
  EXPECT_NEAR(square, 1, 1e-4);
  json b =
      client.post("/embeddings", R"({"model":"tiny","input":"the cat","encoding_format":"base64"})")
          .json();
  EXPECT_EQ(b["data"][0]["embedding"].get<std::string>().size(), 172u);  // 128 bytes
  EXPECT_EQ(b["usage"]["prompt_tokens"],
            r["usage"]["prompt_tokens"].get<int>() - server.model->document("the dog").size());
}

TEST_F(ServerTest, OtherApisAnswer) {
  json m =
      client
          .post(
              "/anthropic/v1/messages",
              R"({"model":"claude-3","max_tokens":6,"messages":[{"role":"user","content":"hi"}]})")
          .json();
  int said = m["usage"]["output_tokens"];
  EXPECT_LE(said, 6);
  EXPECT_EQ(m["stop_reason"], said == 6 ? "max_tokens" : "end_turn") << m;
  json n = client
               .post("/anthropic/v1/messages/count_tokens",
                     R"({"model":"x","messages":[{"role":"user","content":"hi"}]})")
               .json();
  EXPECT_EQ(n["input_tokens"], m["usage"]["input_tokens"]);
  json e = client.post("/anthropic/v1/messages", "{}").json();
  EXPECT_EQ(e["type"], "error");
  json r =
      client.post("/responses", R"({"model":"tiny","input":"hi","max_output_tokens":5})").json();
  said = r["usage"]["output_tokens"];
  EXPECT_LE(said, 5);
  EXPECT_EQ(r["status"], said == 5 ? "incomplete" : "completed") << r;
}

TEST_F(ServerTest, SmallRoutes) {
  json models = client.get("/models").json();
  EXPECT_EQ(models["data"].size(), 3u);
  EXPECT_EQ(client.get("/v1/models/tiny").json()["id"], "tiny");
  EXPECT_EQ(client.get("/models/other").status, 404);
  EXPECT_EQ(client.get("/models/t%69ny").json()["id"], "tiny");
  EXPECT_EQ(client.get("/models/tiny%").status, 404);
  EXPECT_EQ(client.get("http://localhost/v1/models/tiny").json()["id"], "tiny");
  EXPECT_EQ(client.get("/health").json()["status"], "ok");
  EXPECT_EQ(client.get("/user/balance").json()["is_available"], true);
  EXPECT_THAT(client.get("/metrics").body,
              HasSubstr("wels_requests_total{route=\"/models\",status=\"200\"} 1"));
  json api = client.get("/openapi.json").json();
  EXPECT_TRUE(api["paths"].contains("/chat/completions"));
  EXPECT_EQ(client.post("/tokenize", R"({"prompt":"the cat"})")
                .json()["tokens"]
                .get<std::vector<int32_t>>(),
            server.tokenizer.encode("the cat"));
}

TEST_F(ServerTest, WrongRequestsGetDeepSeeksStatuses) {
  EXPECT_EQ(client.get("/nowhere").status, 404);
  EXPECT_EQ(client.get("/chat/completions").status, 405);
  EXPECT_EQ(client.get("/../etc/passwd").status, 404);
  EXPECT_EQ(client.get("/%2e%2e/models").status, 404);
  EXPECT_EQ(client.get("//models").status, 404);
  EXPECT_EQ(client.post("/chat/completions", "").status, 400);
  EXPECT_EQ(client.post("/chat/completions", "{\"a\"").status, 400);
  EXPECT_EQ(client.post("/chat/completions", std::string(5000, '[')).status, 400);
  EXPECT_EQ(client.post("/chat/completions", "\"\xff\xfe\"").status, 400);
  RawClient::Response r = client.post("/chat/completions", "{}");
  EXPECT_EQ(r.json()["error"]["message"],
            "Failed to deserialize the JSON body into the target type: missing field `messages` at "
            "line 1 column 2");
  r = client.post("/chat/completions", chat("", "gpt-4"));
  EXPECT_EQ(r.json()["error"]["message"],
            "The supported API model names are deepseek-chat, deepseek-reasoner or tiny, but you "
            "passed gpt-4.");
  r = client.post("/chat/completions", chat(R"(,"max_tokens":2000)").replace(0, 0, ""));
  EXPECT_EQ(r.status, 400);  // the key comes twice
  std::string list = R"({"model":"tiny","n":100,"max_tokens":1,"prompt":[[1])";
  for (int i = 0; i < 100; ++i) list += ",[1]";
  EXPECT_THAT(client.post("/completions", list + "]}").body, HasSubstr("more than 2048 answers"));
  std::string too_long = chat();
  too_long.replace(too_long.find(":12"), 3, ":2000");
  EXPECT_THAT(client.post("/chat/completions", too_long).body,
              HasSubstr("maximum context length is 1024 tokens"));
  RawClient plain(server.port);
  plain.send(
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
      "text/plain\r\nContent-Length: 0\r\n\r\n");
  r = plain.response();
  EXPECT_EQ(r.status, 415);
  EXPECT_EQ(r.body.size(), 54u);
  RawClient foreign(server.port);
  foreign.send("GET /models HTTP/1.1\r\nHost: evil.example\r\n\r\n");
  EXPECT_EQ(foreign.response().status, 403);
}

TEST_F(ServerTest, PagesOfThisMachineMayCallOthersMayNot) {
  EXPECT_THAT(client.get("/models", "Origin: http://localhost:5173\r\n").head,
              HasSubstr("Access-Control-Allow-Origin: http://localhost:5173"));
  EXPECT_THAT(client.get("/models", "Origin: https://evil.example\r\n").head,
              testing::Not(HasSubstr("Access-Control")));
  client.send(
      "OPTIONS /chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://127.0.0.1\r\n\r\n");
  RawClient::Response r = client.response();
  EXPECT_EQ(r.status, 204);
  EXPECT_THAT(r.head, HasSubstr("Access-Control-Allow-Headers"));
  client.send(
      "OPTIONS /chat/completions HTTP/1.1\r\nHost: LOCALHOST.\r\nOrigin: http://127.0.0.1\r\n"
      "Access-Control-Request-Headers: authorization,x-stainless-lang\r\n\r\n");
  EXPECT_THAT(client.response().head,
              HasSubstr("Access-Control-Allow-Headers: authorization,x-stainless-lang"));
}

TEST_F(ServerTest, BrokenHttpEndsItsConnectionOnly) {
  for (const char* bad :
       {"\r\n\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01 hello\r\n\r\n",
        "POST /completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: "
        "2\r\n\r\n",
        "GET /models HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n"}) {
    RawClient c(server.port);
    c.send(bad);
    std::string got = c.all();
    EXPECT_TRUE(got.empty() || got.starts_with("HTTP/1.1 4")) << bad << got;
  }
  RawClient many(server.port);
  std::string flood = "GET /models HTTP/1.1\r\nHost: localhost\r\n";
  for (int i = 0; i < 2000; ++i) flood += "X-" + std::to_string(i) + ": aaaaaaaaaaaaaaaa\r\n";
  many.send(flood + "\r\n");
  EXPECT_THAT(many.all(), StartsWith("HTTP/1.1 431"));
  RawClient huge(server.port);
  huge.send(
      "POST /completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
      "application/json\r\nContent-Length: "
      "104857600\r\n\r\n");
  EXPECT_THAT(huge.all(), StartsWith("HTTP/1.1 413"));
  EXPECT_EQ(client.get("/health").status, 200);
}

TEST_F(ServerTest, RequestsMayBePipelinedAndComeInPieces) {
  client.send(
      "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /models HTTP/1.1\r\nHost: "
      "localhost\r\n\r\n");
  EXPECT_EQ(client.response().json()["status"], "ok");
  EXPECT_EQ(client.response().json()["object"], "list");
  std::string body = chat();
  std::string text =
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; "
      "charset=utf-8\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
  client.send(text);
  EXPECT_THAT(client.until("\r\n\r\n"), StartsWith("HTTP/1.1 100"));
  for (size_t i = 0; i < body.size(); i += 10) {
    std::string piece = body.substr(i, 10);
    client.send((piece.size() < 10 ? std::to_string(piece.size()) : "a") + "\r\n" + piece + "\r\n");
  }
  client.send("0\r\n\r\n");
  EXPECT_EQ(client.response().status, 200);
  RawClient old(server.port);
  old.send(
      "POST /chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: "
      "application/json\r\nContent-Length: " +
      std::to_string(chat(R"(,"stream":true)").size()) + "\r\n\r\n" + chat(R"(,"stream":true)"));
  std::string all = old.all();
  EXPECT_THAT(all, StartsWith("HTTP/1.0 200"));
  EXPECT_THAT(all, testing::EndsWith("data: [DONE]\n\n"));
  EXPECT_THAT(all, testing::Not(HasSubstr("chunked")));
}

// The engine takes five milliseconds more for a step until `end` is set.
void slow_down(EngineThread& engine, std::shared_ptr<std::atomic<bool>> end) {
  engine.post([&engine, end](Engine&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!*end) slow_down(engine, end);
  });
}

TEST(Server, AClientWhoLeavesEndsItsRequest) {
  TestServer server({.context = 4096});
  auto end = std::make_shared<std::atomic<bool>>(false);
  slow_down(*server.engine, end);  // nobody has 3900 tokens soon
  RawClient client(server.port);
  std::string body = chat(R"(,"stream":true)");
  body.replace(body.find(":12"), 3, ":3900");
  for (bool stream : {true, false}) {
    RawClient c(server.port);
    std::string b = stream ? body : body.substr(0, body.find(",\"stream\"")) + "}";
    c.send(
        "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(b.size()) + "\r\n\r\n" + b);
    if (stream) c.until("\"content\":\"");
    for (int i = 0; i < 10'000 && server.engine->stats().running == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    c.close();
    EXPECT_TRUE(server.idle());
  }
  *end = true;
  EXPECT_THAT(client.get("/metrics").body, HasSubstr("wels_cancelled_total 2"));
  EXPECT_LT(server.engine->stats().timing.new_tokens, 7000);
}

TEST_F(ServerTest, StreamsOfManyClientsAreComplete) {
  // 200 at once: a quarter reads slowly, a quarter leaves, the rest must have every token.
  std::string body = chat(R"(,"stream":true)");
  body.replace(body.find(":12"), 3, ":60");
  std::string want = text_of(events(client.post("/chat/completions", body).body));
  std::string long_body = body;  // nobody has all of it before the second event
  long_body.replace(long_body.find(":60"), 3, ":900");
  std::vector<LoadClient> clients;
  for (int i = 0; i < 200; ++i) {
    const std::string& b = i % 4 == 0 ? long_body : body;
    clients.push_back({.bodies = {b, b},
                       .bytes_per_s = i % 4 == 1 ? 20000.0 : 0.0,
                       .leaves_after = i % 4 == 0 ? 2 : -1});
  }
  int whole = 0, left = 0;
  for (const LoadStream& s : run_load({.port = server.port}, clients)) {
    left += s.left;
    whole += s.done && s.text == want && s.completion_tokens == 60;
  }
  EXPECT_EQ(whole, 300);
  EXPECT_EQ(left, 100);
  EXPECT_TRUE(server.idle());
}

TEST(Server, SlowHeadersAreCutOffAndTheQueueIsBounded) {
  TestServerOptions o;
  o.limits.header_s = 0.3;
  o.limits.keep_alive_s = 0.2;
  o.api.queue_limit = 4;
  o.cache_tokens = 1024;
  TestServer server(o);
  RawClient slow(server.port);
  auto begun = std::chrono::steady_clock::now();
  slow.send("GET /models HTTP/1.1\r\nHo");
  EXPECT_EQ(slow.all(), "");
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5));
  // While the engine does nothing all wait for a first token; those beyond the queue are refused.
  std::promise<void> go;
  server.engine->post([held = go.get_future().share()](Engine&) { held.wait(); });
  std::string text(900, 'y');
  std::vector<std::unique_ptr<RawClient>> clients;
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port));
    std::string body =
        R"({"model":"tiny","stream":true,"max_tokens":100,"messages":[{"role":"user","content":")" +
        std::to_string(i) + text + "\"}]}";
    clients.back()->send(
        "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  RawClient watch(server.port);
  auto all_refused = [&] {
    return watch.get("/metrics").body.find(R"(status="503"} 8)") != std::string::npos;
  };
  for (int i = 0; i < 3000 && !all_refused(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  go.set_value();
  for (auto& c : clients) {
    RawClient::Response r = c->response();
    if (r.status == 503) {
      ++refused;
      EXPECT_THAT(r.head, HasSubstr("Retry-After: "));
    } else {
      EXPECT_THAT(r.body, testing::EndsWith("data: [DONE]\n\n"));
    }
  }
  EXPECT_EQ(refused, 8);
}

TEST(Server, AnAnswerThatTakesLongHasOneHead) {
  TestServerOptions o;
  o.limits.keep_alive_s = 0.05;
  o.names = {"one", "two"};  // the first is there when it begins
  o.on_load = [] { std::this_thread::sleep_for(std::chrono::milliseconds(800)); };
  TestServer server(o);
  RawClient client(server.port);
  RawClient::Response r = client.post("/chat/completions", chat("", "two"));
  EXPECT_THAT(r.body, StartsWith("\n\n"));  // more than one sign of life
  EXPECT_THAT(r.body, testing::Not(HasSubstr("HTTP/1.1")));
  EXPECT_EQ(r.json()["usage"]["completion_tokens"], 12);
  EXPECT_EQ(client.get("/health").status, 200);  // on the same connection
}

TEST(Server, ARequestThatTakesLongToReadStopsNobodyFromAskingForHealth) {
  TestServer server;
  RawClient slow(server.port), other(server.port);
  std::string keys;
  for (int i = 0; i < 200'000; ++i) keys += ",\"k" + std::to_string(i) + "\":1";
  std::string body = chat(R"(,"x":{"k":1)" + keys + "}");
  slow.send(
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  EXPECT_EQ(other.get("/health").json()["status"], "ok");
  EXPECT_EQ(slow.response().json()["usage"]["completion_tokens"], 12);
}

TEST(Server, InTheStyleOf2026NamesThinkUnlessToldOtherwise) {
  TestServerOptions o;
  o.style = ApiStyle::k2026;
  TestServer server(o);
  RawClient client(server.port);
  json names = client.get("/models").json()["data"];
  EXPECT_EQ(names[0]["id"], "deepseek-flash");
  auto reasoned = [&](const char* model, const std::string& more) {
    json r = client.post("/chat/completions", chat(more, model)).json();
    EXPECT_TRUE(r.contains("usage")) << r;
    json details = r["usage"].value("completion_tokens_details", json::object());
    return details.value("reasoning_tokens", 0) > 0;
  };
  EXPECT_TRUE(reasoned("deepseek-flash", ""));
  EXPECT_TRUE(reasoned("tiny", R"(,"reasoning_effort":"max")"));
  EXPECT_FALSE(reasoned("deepseek-chat", ""));
  EXPECT_FALSE(reasoned("deepseek-flash", R"(,"thinking":{"type":"disabled"})"));
  json scored =
      client.post("/chat/completions", chat(R"(,"logprobs":true)", "deepseek-flash")).json();
  EXPECT_FALSE(scored["choices"][0]["logprobs"]["reasoning_content"].empty()) << scored;
  // The cache is reported in units of 128.
  std::string text(100, 'x');
  for (int i = 0; i < 40; ++i) text += " " + std::to_string(i);
  json m{{"model", "deepseek-flash"}, {"max_tokens", 2}};
  m["messages"] = json::array({{{"role", "user"}, {"content", text}}});
  client.post("/chat/completions", m.dump());
  json u = client.post("/chat/completions", m.dump()).json()["usage"];
  int all = u["prompt_tokens"], hit = u["prompt_cache_hit_tokens"];
  EXPECT_GE(all, 192);
  EXPECT_EQ(hit, (all - 1) / 128 * 128) << u;
}

TEST(Server, RequestsUnderWayAreAnsweredBeforeItStops) {
  TestServer server;
  RawClient client(server.port), idle(server.port);
  std::string body = chat(R"(,"stream":true)");
  body.replace(body.find(":12"), 3, ":300");
  client.send(
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
      "application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  client.until("data: ");
  std::thread stopper([&] { server.stop(); });
  EXPECT_THAT(client.all(), HasSubstr("data: [DONE]"));
  EXPECT_EQ(idle.all(), "");
  stopper.join();
  EXPECT_FALSE(RawClient(server.port).connected());
}

TEST(Server, RequestsThatTakeTooLongAreGivenUp) {
  TestServerOptions o;
  o.api.request_s = 0.005;
  TestServer server(o);
  RawClient client(server.port);
  std::string body = chat();
  body.replace(body.find(":12"), 3, ":1000");
  json r = client.post("/chat/completions", body).json();
  EXPECT_EQ(r["choices"][0]["finish_reason"], "insufficient_system_resource") << r;
  o.api.request_s = 1e-6;  // nothing is generated
  TestServer none(o);
  RawClient other(none.port);
  body = R"({"model":"tiny","max_tokens":1000,"messages":[{"role":"user","content":"hi"}]})";
  RawClient::Response m = other.post("/anthropic/v1/messages", body);
  EXPECT_EQ(m.status, 503);
  EXPECT_EQ(m.json()["error"]["type"], "overloaded_error") << m.body;
  r = other.post("/responses", R"({"model":"tiny","max_output_tokens":1000,"input":"hi"})").json();
  EXPECT_EQ(r["status"], "failed") << r;
  EXPECT_EQ(r["error"]["code"], "server_error");
}

}  // namespace
}  // namespace wels
