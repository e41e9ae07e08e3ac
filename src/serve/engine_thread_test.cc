#include "serve/engine_thread.h"

#include <gtest/gtest.h>

#include "base/threads.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

struct EngineThreadTest : testing::Test {
  EngineThreadTest() : model(tiny_dense_config(50)) { model.init(DType::kF32, 3, false); }
  std::unique_ptr<Device> dev = make_device("cpu");
  Model model;
};

TEST_F(EngineThreadTest, ComputesWithTheThreadsThatWereSet) {
  int before = thread_count(), seen = 0;
  set_thread_count(before + 2);
  EngineThread engine(*dev, model, DType::kF32, 64, {});
  set_thread_count(before);
  engine.post([&](Engine&) { seen = thread_count(); });
  engine.drain();
  EXPECT_EQ(seen, before + 2);
}

TEST_F(EngineThreadTest, DrainingWaitsForWhatStepsLeaveBehind) {
  EngineThread engine(*dev, model, DType::kF32, 64, {});
  bool said = false;
  engine.post([&](Engine&) {
    engine.after_step([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      said = true;
    });
  });
  engine.drain();
  EXPECT_TRUE(said);
}

TEST_F(EngineThreadTest, WorkAfterAStepMayAskForMore) {
  EngineThread engine(*dev, model, DType::kF32, 64, {});
  int ran = 0;
  engine.post([&](Engine&) {
    for (int i = 0; i < 3; ++i) {
      engine.after_step([&] {
        ++ran;
        for (int k = 0; k < 50; ++k) engine.after_step([&] { ++ran; });
      });
    }
  });
  engine.drain();
  EXPECT_EQ(ran, 153);
}

TEST_F(EngineThreadTest, WorkThatThrowsEndsItselfAlone) {
  EngineThread engine(*dev, model, DType::kF32, 64, {});
  std::string said;
  engine.post([&](Engine&) {
    engine.after_step([] { throw std::runtime_error("gone"); });
    engine.after_step([&] { said += "b"; });
    throw std::runtime_error("gone");
  });
  engine.post([&](Engine&) { said += "a"; });
  engine.drain();
  EXPECT_EQ(said, "ab");
}

TEST(ApiStop, WaitsForTheEnginesThread) {
  TestServer server;
  std::atomic<bool> said{false};
  server.engine->post([&](Engine&) {
    server.engine->after_step([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      said = true;
    });
  });
  server.stop();
  EXPECT_TRUE(said);
}

}  // namespace
}  // namespace wels
