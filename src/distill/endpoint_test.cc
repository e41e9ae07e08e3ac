#include "distill/endpoint.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/progress.h"
#include "base/signal.h"

namespace wels {
namespace {

using nlohmann::json;

// An endpoint that answers from a list, then with its usual completion.
struct Fake {
  std::mutex mutex;
  std::vector<HttpReply> next;
  std::vector<std::string> urls, bodies;
  std::vector<double> waits;
  std::string model = "r1", content = "42", reasoning, field = "reasoning_content", filtered;

  HttpReply reply(const std::string& url, const std::string& body) {
    std::lock_guard lock(mutex);
    urls.push_back(url);
    bodies.push_back(body);
    if (!next.empty()) {
      HttpReply r = next.front();
      next.erase(next.begin());
      return r;
    }
    if (!filtered.empty() && body.find(filtered) != std::string::npos)
      return {400, "content filter", "", 0};
    json message = {{"role", "assistant"}, {"content", content}};
    if (!reasoning.empty()) message[field] = reasoning;
    json j = {{"choices", {{{"message", message}, {"finish_reason", "stop"}}}},
              {"usage", {{"completion_tokens", 7}}}};
    if (!model.empty()) j["model"] = model;
    return {200, j.dump(), "", 0};
  }
  AnswerJournal journal;  // of the tests that ask for it; ask() has one of its own
  EndpointAnswers source(int64_t attempts = 4, int parallel = 2) {
    EndpointSettings s{.url = "http://host/v1/", .model = "r1"};
    s.attempts = attempts;
    s.parallel = parallel;
    return {s, [this](const std::string& u, const std::string& b) { return reply(u, b); },
            [this](double seconds) { return waits.push_back(seconds), true; }};
  }
  std::vector<std::vector<GivenAnswer>> ask(int64_t questions, int64_t tries) {
    std::vector<std::string> q(static_cast<size_t>(questions), "what?");
    AnswerJournal nothing;
    return source().ask(q, 0, tries, nothing);
  }
};

TEST(Endpoint, EveryTryIsAskedForAndItsAnswerRead) {
  Fake f;
  f.reasoning = "six times seven";
  auto out = f.ask(3, 2);
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(f.urls, std::vector<std::string>(6, "http://host/v1/chat/completions"));
  json body = json::parse(f.bodies[0]);
  EXPECT_EQ(body["model"], "r1");
  EXPECT_EQ(body["messages"][0]["content"], "what?");
  for (const auto& tries : out) {
    ASSERT_EQ(tries.size(), 2u);
    EXPECT_EQ(tries[1].content, "<think>six times seven</think>42");
    EXPECT_EQ(tries[1].answer, "42");
    EXPECT_EQ(tries[1].tokens, 7);
    EXPECT_TRUE(tries[1].ended);
  }
}

TEST(Endpoint, FailuresThatMayPassAreTriedAgainWithLongerWaits) {
  Fake f;
  f.next = {{503, "busy", "", 0}, {0, "", "connection refused", 0}, {200, "<html>", "", 0}};
  EXPECT_EQ(f.ask(1, 1)[0][0].answer, "42");
  EXPECT_EQ(f.waits, (std::vector<double>{1, 2, 4}));
  f.waits.clear();
  f.next = {{429, "slow down", "", 30}};
  f.ask(1, 1);
  EXPECT_EQ(f.waits, (std::vector<double>{30}));
}

TEST(Endpoint, WhatWillNotPassIsAnErrorAtOnce) {
  for (int status : {401, 403, 404}) {
    Fake f;
    f.next = {{status, "no", "", 0}};
    EXPECT_THROW(f.ask(1, 1), Error);
    EXPECT_EQ(f.urls.size(), 1u);
  }
  Fake dead;
  dead.next.assign(4, {0, "", "connection refused", 0});
  EXPECT_THROW(dead.ask(1, 1), Error);
  EXPECT_EQ(dead.urls.size(), 4u);
}

TEST(Endpoint, AQuestionThatIsRefusedIsSkippedWithItsOtherTries) {
  Fake f;
  f.filtered = "bad";
  EndpointAnswers source = f.source();
  std::vector<std::string> q = {"good", "bad", "good", "bad", "good"};
  auto out = source.ask(q, 0, 30, f.journal);
  EXPECT_LE(std::count_if(f.bodies.begin(), f.bodies.end(),
                          [](const std::string& b) { return b.find("bad") != std::string::npos; }),
            4);  // two requests at a time
  for (size_t i = 0; i < q.size(); ++i) {
    for (const GivenAnswer& a : out[i]) EXPECT_EQ(a.refused, q[i] == "bad");
  }
  f.bodies.clear();  // another run asks nothing again
  EXPECT_EQ(f.source().ask(q, 0, 30, f.journal)[1][7].refused, true);
  EXPECT_TRUE(f.bodies.empty());
}

TEST(Endpoint, QuestionsRefusedOneAfterAnotherEndTheRunWithTheServersText) {
  Fake f;
  f.filtered = "bad";
  std::vector<std::string> q(20, "bad");
  q[3] = "good";
  try {
    f.source().ask(q, 0, 2, f.journal);
    ADD_FAILURE() << "all are refused";
  } catch (const Error& e) {
    std::string text = e.what();
    EXPECT_NE(text.find("refused 8 questions in a row, at last: status 400: content filter"),
              std::string::npos)
        << text;
  }
  EXPECT_NE(f.journal.find(3, "good", 0), nullptr);
  EXPECT_EQ(f.journal.find(12, "bad", 0), nullptr);  // it was perhaps not the question: asked again
}

TEST(Endpoint, TheLastQuestionsOfABlockAreRefusedForGoodIfAPlainOneIsNot) {
  Fake f;
  f.filtered = "bad";
  std::vector<std::string> q = {"good", "good", "bad"};
  // One request at a time: a good answer that came behind the bad one would end the doubt.
  EXPECT_TRUE(f.source(4, 1).ask(q, 0, 2, f.journal)[2][1].refused);
  EXPECT_TRUE(std::any_of(f.bodies.begin(), f.bodies.end(), [](const std::string& b) {
    return json::parse(b)["messages"][0]["content"] == "What is 1 + 1?";
  }));
  ASSERT_NE(f.journal.find(2, "bad", 1), nullptr);
  Fake broken;  // takes nothing
  broken.filtered = "model";
  try {
    broken.source().ask(q, 0, 2, broken.journal);
    ADD_FAILURE() << "all are refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("status 400: content filter; check --teacher-url"),
              std::string::npos)
        << e.what();
  }
  for (int64_t i = 0; i < 3; ++i)
    EXPECT_EQ(broken.journal.find(i, q[static_cast<size_t>(i)], 0), nullptr);
}

TEST(Endpoint, WhatWasAnsweredBeforeAFailureIsNotAskedAgain) {
  Fake f;
  f.next = {{200, R"({"model": "r1", "choices": [{"message": {"content": "41"}}]})", "", 0},
            {404, "gone", "", 0}};
  EndpointSettings s{.url = "http://host/v1", .model = "r1"};
  s.parallel = 1;
  EndpointAnswers source(
      s, [&](const std::string& u, const std::string& b) { return f.reply(u, b); },
      [](double) { return true; });
  std::vector<std::string> q(3, "what?");
  EXPECT_THROW(source.ask(q, 0, 1, f.journal), Error);
  auto out = source.ask(q, 0, 1, f.journal);
  EXPECT_EQ(f.urls.size(), 4u);
  EXPECT_EQ(out[0][0].answer, "41");
  EXPECT_EQ(out[2][0].answer, "42");
}

TEST(Endpoint, NothingIsAskedBehindASignal) {
  Fake f;
  testing::internal::CaptureStderr();
  StopSignal stop;
  EndpointSettings s{.url = "http://host/v1", .model = "r1"};
  s.parallel = 1;
  EndpointAnswers source(
      s,
      [&](const std::string& u, const std::string& b) {
        if (f.urls.size() == 1) ::raise(SIGINT);
        return f.reply(u, b);
      },
      [](double) { return true; });
  std::vector<std::string> q(5, "what?");
  EXPECT_THROW(source.ask(q, 0, 1, f.journal), Interrupted);
  EXPECT_EQ(f.urls.size(), 2u);
  EXPECT_NE(f.journal.find(1, "what?", 0), nullptr);  // what it said is kept
  testing::internal::GetCapturedStderr();
}

// Somebody who takes connections and never answers.
TEST(Endpoint, AReplyThatHangsDoesNotHoldUpASignal) {
  int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  auto* address = reinterpret_cast<sockaddr*>(&at);
  ASSERT_EQ(::bind(server, address, size), 0);
  ASSERT_EQ(::listen(server, 4), 0);
  ASSERT_EQ(::getsockname(server, address, &size), 0);
  testing::internal::CaptureStderr();
  StopSignal stop;
  std::jthread signal([] {
    ::usleep(300'000);
    ::kill(::getpid(), SIGINT);
  });
  double t0 = monotonic_seconds();
  HttpReply r = http_client("", 60)("http://127.0.0.1:" + std::to_string(ntohs(at.sin_port)), "{}");
  EXPECT_LT(monotonic_seconds() - t0, 20);
  EXPECT_EQ(r.status, 0);
  testing::internal::GetCapturedStderr();
  ::close(server);
}

TEST(Endpoint, ThoughtsAreReadFromTheNewerFieldToo) {
  Fake f;
  f.field = "reasoning";
  f.reasoning = "six times seven";
  EXPECT_EQ(f.ask(1, 1)[0][0].content, "<think>six times seven</think>42");
}

TEST(Endpoint, OneThatLiesAboutItsModelIsRefused) {
  Fake f;
  for (const char* other : {"another", "r1-mini", "r1-mini-0528", "r1-", "r1-05281", "r1-2025-5-28",
                            "r1-202a0528", "r10", "hub/r1-mini", "mini/ar1"}) {
    f.model = other;
    EXPECT_THROW(f.ask(1, 1), Error) << other;
  }
  // A dated version of what was asked for, a hub's name before it, or nothing said.
  for (const char* same :
       {"r1", "r1-2025-05-28", "r1-20250528", "r1-0528", "hub/r1", "hub/r1-0528", ""}) {
    f.model = same;
    EXPECT_NO_THROW(f.ask(1, 1)) << same;
  }
}

TEST(Endpoint, TheListOfModelsMustHoldTheOneAskedFor) {
  Fake f;
  f.next = {{200, R"({"data": [{"id": "v3"}, {"id": "r1"}]})", "", 0}};
  EXPECT_NO_THROW(f.source().require_model());
  f.next = {{200, R"({"data": [{"id": "v3"}]})", "", 0}};
  EXPECT_THROW(f.source().require_model(), Error);
  f.next = {{404, "", "", 0}};
  EXPECT_NO_THROW(f.source().require_model());
  f.next = {{400, "no such path", "", 0}};
  try {
    f.source().require_model();
    ADD_FAILURE() << "400 is no list";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("check --teacher-url"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace wels
