// The client of endpoint teachers (distill/endpoint.h, libcurl) against the real server.
#include <gmock/gmock.h>

#include <atomic>
#include <filesystem>

#include "base/file.h"
#include "distill/endpoint.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

using testing::HasSubstr;

EndpointSettings asks(int port, const std::string& model) {
  EndpointSettings s{.url = "http://127.0.0.1:" + std::to_string(port) + "/v1", .model = model};
  s.temperature = 0;
  s.max_tokens = 6;
  s.parallel = 2;
  s.attempts = 3;
  return s;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(EndpointAtServer, GivesTheAnswersThatTheServerGivesAnybody) {
  TestServer server;
  EndpointAnswers source(asks(server.port, "tiny"), http_client("", 30),
                         [](double) { return false; });
  source.require_model();
  std::vector<std::string> questions = {"the cat", "the lazy dog", "jumps \"over\"\n"};
  AnswerJournal journal;
  auto answers = source.ask(questions, 0, 2, journal);
  ASSERT_EQ(answers.size(), 3u);
  for (size_t i = 0; i < questions.size(); ++i) {
    ASSERT_EQ(answers[i].size(), 2u);
    RawClient client(server.port);
    nlohmann::json body = {{"model", "tiny"},
                           {"messages", {{{"role", "user"}, {"content", questions[i]}}}},
                           {"temperature", 0},
                           {"max_tokens", 6}};
    nlohmann::json reply = client.post("/v1/chat/completions", body.dump()).json();
    for (const GivenAnswer& a : answers[i]) {
      EXPECT_EQ(a.content, reply["choices"][0]["message"]["content"]);
      EXPECT_EQ(a.tokens, reply["usage"]["completion_tokens"].get<int64_t>());
      EXPECT_EQ(a.ended, reply["choices"][0]["finish_reason"] == "stop");
    }
  }
}

TEST(EndpointAtServer, AModelThatItDoesNotHaveIsRefusedWithItsList) {
  TestServer server;
  EndpointAnswers source(asks(server.port, "huge"), http_client("", 30),
                         [](double) { return false; });
  EXPECT_THAT(error_of([&] { source.require_model(); }),
              testing::AllOf(HasSubstr("has no model huge"), HasSubstr("tiny")));
}

TEST(EndpointAtServer, WaitsAsLongAsABusyServerAsks) {
  TestServerOptions options;
  options.api.queue_limit = 0;  // always: 503, Retry-After: 2
  TestServer server(options);
  std::vector<double> waits;
  EndpointSettings s = asks(server.port, "tiny");
  s.first_wait_s = 0.5;
  s.parallel = 1;
  EndpointAnswers source(s, http_client("", 30), [&](double seconds) {
    waits.push_back(seconds);
    return true;
  });
  source.require_model();  // the list needs no engine
  std::vector<std::string> question = {"the cat"};
  AnswerJournal journal;
  EXPECT_THAT(error_of([&] { source.ask(question, 0, 1, journal); }),
              testing::AllOf(HasSubstr("failed 3 times"), HasSubstr("503")));
  EXPECT_EQ(waits, (std::vector<double>{2, 2}));
}

TEST(EndpointAtServer, GoesOnWhenTheServerHasComeBack) {
  std::optional<TestServer> server(std::in_place);
  int port = server->port;
  std::atomic<int> waited{0};
  std::mutex mutex;
  EndpointAnswers source(asks(port, "tiny"), http_client("", 30), [&](double) {
    std::lock_guard lock(mutex);
    if (++waited > 1 && !server) {
      TestServerOptions again;
      again.port = port;
      server.emplace(again);
    }
    return true;
  });
  std::vector<std::string> questions = {"the cat", "the dog"};
  AnswerJournal journal, of_another_run;
  auto before = source.ask(questions, 0, 1, journal);
  server.reset();
  auto after = source.ask(questions, 0, 1, of_another_run);
  EXPECT_GE(waited, 2);
  ASSERT_EQ(after.size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(before[i][0].content, after[i][0].content);
}

TEST(EndpointAtServer, NobodyThereIsSaidAsWhatItIs) {
  int port = 0;
  {
    TestServer server;
    port = server.port;
  }
  EndpointSettings s = asks(port, "tiny");
  s.attempts = 1;
  EndpointAnswers source(s, http_client("", 30), [](double) { return true; });
  EXPECT_THAT(error_of([&] { source.require_model(); }), HasSubstr("failed 1 times"));
}

}  // namespace
}  // namespace wels
