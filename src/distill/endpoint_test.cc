#include "distill/endpoint.h"

#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace wels {
namespace {

using nlohmann::json;

// An endpoint that answers from a list, then with its usual completion.
struct Fake {
  std::mutex mutex;
  std::vector<HttpReply> next;
  std::vector<std::string> urls, bodies;
  std::vector<double> waits;
  std::string model = "r1", content = "42", reasoning;

  HttpReply reply(const std::string& url, const std::string& body) {
    std::lock_guard lock(mutex);
    urls.push_back(url);
    bodies.push_back(body);
    if (!next.empty()) {
      HttpReply r = next.front();
      next.erase(next.begin());
      return r;
    }
    json message = {{"role", "assistant"}, {"content", content}};
    if (!reasoning.empty()) message["reasoning_content"] = reasoning;
    json j = {{"model", model},
              {"choices", {{{"message", message}, {"finish_reason", "stop"}}}},
              {"usage", {{"completion_tokens", 7}}}};
    return {200, j.dump(), "", 0};
  }
  EndpointAnswers source(int64_t attempts = 4) {
    EndpointSettings s{.url = "http://host/v1/", .model = "r1"};
    s.attempts = attempts;
    s.parallel = 2;
    return {s, [this](const std::string& u, const std::string& b) { return reply(u, b); },
            [this](double seconds) { return waits.push_back(seconds), true; }};
  }
  std::vector<std::vector<GivenAnswer>> ask(int64_t questions, int64_t tries) {
    std::vector<std::string> q(static_cast<size_t>(questions), "what?");
    return source().ask(q, 0, tries);
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
  for (int status : {400, 401, 404}) {
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

TEST(Endpoint, OneThatLiesAboutItsModelIsRefused) {
  Fake f;
  f.model = "another";
  EXPECT_THROW(f.ask(1, 1), Error);
  f.model = "r1-2025-05-28";  // a dated version of what was asked for
  EXPECT_NO_THROW(f.ask(1, 1));
}

TEST(Endpoint, TheListOfModelsMustHoldTheOneAskedFor) {
  Fake f;
  f.next = {{200, R"({"data": [{"id": "v3"}, {"id": "r1"}]})", "", 0}};
  EXPECT_NO_THROW(f.source().require_model());
  f.next = {{200, R"({"data": [{"id": "v3"}]})", "", 0}};
  EXPECT_THROW(f.source().require_model(), Error);
  f.next = {{404, "", "", 0}};
  EXPECT_NO_THROW(f.source().require_model());
}

}  // namespace
}  // namespace wels
