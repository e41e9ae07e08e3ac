#include "serve/model_pool.h"

#include <gmock/gmock.h>

#include "base/threads.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string question(const std::string& model, int tokens, bool stream = false) {
  json q = {{"model", model},
            {"messages", json::array({{{"role", "user"}, {"content", "the fox"}}})},
            {"max_tokens", tokens},
            {"seed", 5},
            {"temperature", 0},
            {"logit_bias", endless_bias()}};
  if (stream) q["stream"] = true;
  return q.dump();
}

bool becomes(const std::function<bool()>& fn) {
  for (int i = 0; i < 1000 && !fn(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return fn();
}

TEST(ModelPool, AModelIsLoadedWhenSomebodyAsks) {
  TestServer server({.names = {"one", "two"}});
  RawClient c(server.port);
  json list = c.get("/models").json();
  ASSERT_EQ(list["data"].size(), 4u);
  EXPECT_EQ(list["data"][3]["id"], "two");
  EXPECT_EQ(c.get("/models/two").status, 200);
  EXPECT_EQ(server.models->loaded(), 1);
  auto r = c.post("/chat/completions", question("two", 4));
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.json()["model"], "two");
  EXPECT_EQ(r.json()["usage"]["completion_tokens"], 4);
  EXPECT_EQ(server.models->loaded(), 2);
  auto unknown = c.post("/chat/completions", question("three", 4));
  EXPECT_EQ(unknown.status, 400);
  EXPECT_THAT(unknown.body, HasSubstr("deepseek-chat, deepseek-reasoner, one or two"));
}

TEST(ModelPool, StreamsShowSignsOfLifeWhileTheirModelIsLoaded) {
  std::atomic<bool> go{true};
  TestServer server({.limits = {.keep_alive_s = 0.2}, .names = {"one", "two"}, .on_load = [&] {
                       while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(5));
                     }});
  go = false;
  RawClient c(server.port), d(server.port);
  std::string body = question("two", 3, true), plain = question("two", 3);
  c.send(
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  std::string head = c.until(": keep-alive\n\n");
  EXPECT_THAT(head, HasSubstr("text/event-stream"));
  // Others are not held up by the load.
  EXPECT_EQ(d.post("/chat/completions", question("one", 2)).status, 200);
  d.send(
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(plain.size()) + "\r\n\r\n" + plain);
  go = true;
  EXPECT_THAT(c.until("data: [DONE]"), HasSubstr("chat.completion.chunk"));
  EXPECT_EQ(d.response().json()["usage"]["completion_tokens"], 3);
  // Answered, nobody holds the model any more.
  EXPECT_TRUE(becomes([&] { return server.models->users("two") == 0; }));
}

TEST(ModelPool, TheOneThatWasUsedLongestAgoMakesRoom) {
  TestServer server({.names = {"one", "two", "three"}, .fit = 2});
  RawClient c(server.port);
  EXPECT_EQ(c.post("/chat/completions", question("two", 2)).status, 200);
  EXPECT_EQ(c.post("/chat/completions", question("one", 2)).status, 200);
  EXPECT_EQ(c.post("/chat/completions", question("three", 2)).status, 200);
  EXPECT_EQ(server.models->loaded(), 2);
  EXPECT_EQ(server.models->find("two"), nullptr);
  EXPECT_NE(server.models->find("one"), nullptr);
  // Tokens of the model that is gone still count.
  EXPECT_TRUE(becomes([&] { return server.models->stats().timing.new_tokens == 6; }));
}

TEST(ModelPool, WhereAllAreInUseTheRequestIsRefused) {
  TestServer server({.names = {"one", "two"}, .fit = 1});
  {
    ModelPool::Pin held = server.models->find("one");
    RawClient c(server.port);
    auto r = c.post("/chat/completions", question("two", 2));
    EXPECT_EQ(r.status, 503);
    EXPECT_THAT(r.body, HasSubstr("no memory for two"));
    std::string stream = c.post("/chat/completions", question("two", 2, true)).body;
    EXPECT_THAT(stream, HasSubstr("data: {\"error\""));
    EXPECT_EQ(c.post("/chat/completions", question("one", 2)).status, 200);
  }
  RawClient c(server.port);
  EXPECT_EQ(c.post("/chat/completions", question("two", 2)).status, 200);
}

TEST(ModelPool, IdleModelsAreUnloadedAndComeBack) {
  TestServer server({.names = {"one", "two"}, .idle_s = 0.3});
  EXPECT_TRUE(becomes([&] { return server.models->loaded() == 0; }));
  RawClient c(server.port);
  EXPECT_EQ(c.get("/ui/config.json").json()["context"], 1024);
  auto r = c.post("/chat/completions", question("deepseek-chat", 40));
  EXPECT_EQ(r.json()["usage"]["completion_tokens"], 40);
}

TEST(ModelPool, AModelThatCannotBeLoadedFailsItsRequestsAlone) {
  int loads = 0;
  TestServer server({.names = {"one", "two"}, .on_load = [&] {
                       if (++loads == 2) throw Error("two", "is damaged");
                     }});
  RawClient c(server.port);
  auto r = c.post("/chat/completions", question("two", 2));
  EXPECT_EQ(r.status, 500);
  EXPECT_THAT(r.body, testing::Not(HasSubstr("damaged")));
  EXPECT_EQ(c.post("/chat/completions", question("one", 2)).status, 200);
  EXPECT_EQ(c.post("/chat/completions", question("two", 2)).status, 200);  // tried again
}

TEST(ModelPool, AModelThatIsLoadedLaterComputesWithTheThreadsThatWereSet) {
  int before = thread_count();
  std::atomic<int> seen{0}, in_engine{0};
  set_thread_count(before + 2);
  TestServer server({.names = {"one", "two"}, .on_load = [&] { seen = thread_count(); }});
  set_thread_count(before);
  RawClient c(server.port);
  EXPECT_EQ(c.post("/chat/completions", question("two", 2)).status, 200);
  EXPECT_EQ(seen, before + 2);
  ModelPool::Pin pin = server.models->find("two");
  pin->engine->post([&](Engine&) { in_engine = thread_count(); });
  pin->engine->drain();
  EXPECT_EQ(in_engine, before + 2);
}

TEST(ModelPool, StoppingLoadsNothingMoreAndTellsWhoeverWaits) {
  std::atomic<int> loads{0}, pins{0}, failures{0}, asked{0};
  std::atomic<bool> go{false};
  TestServer server({.names = {"one", "two", "three"}, .on_load = [&] {
                       if (++loads < 2) return;
                       while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                     }});
  auto ask = [&](const char* name, std::function<void()> also = {}) {
    ++asked;
    server.models->load(name, [&, also](ModelPool::Pin pin, std::exception_ptr failed) {
      EXPECT_NE(pin == nullptr, failed == nullptr);
      ++(pin ? pins : failures);
      if (also) also();
    });
  };
  ask("two");
  ask("three");
  EXPECT_TRUE(becomes([&] { return loads == 2; }));
  std::thread stopper([&] { server.models->stop(); });
  // Who asks after that is answered at once.
  bool at_once = false;
  EXPECT_TRUE(becomes([&] {
    auto self = std::this_thread::get_id();
    ask("three", [&, self] { at_once = at_once || std::this_thread::get_id() == self; });
    return at_once;
  }));
  go = true;
  stopper.join();
  EXPECT_EQ(loads, 2);
  EXPECT_EQ(pins, 1);  // the load under way came to its end
  EXPECT_EQ(pins + failures, asked);
}

TEST(ModelPool, ARequestWhoseModelIsBeingLoadedLetsGoOfItWhenTheServerStops) {
  TestServer server({.names = {"one", "two"}, .on_load = [n = std::make_shared<int>(0)] {
                       if (++*n > 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
                     }});
  RawClient c(server.port);
  std::string body = question("two", 3, true);
  c.send(
      "POST /chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
      "Content-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  c.until("\r\n\r\n");
  c.close();
  server.stop();
  EXPECT_EQ(server.models->users("two"), 0);
}

}  // namespace
}  // namespace wels
