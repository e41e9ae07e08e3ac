#include "serve/stream_pacer.h"

#include <gtest/gtest.h>

#include <thread>

namespace wels {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

// What is to be said is a number; a pump says all of it.
struct Said : PacedStream {
  bool pump() override {
    int n = waiting.exchange(0);
    if (n > 0) said.push_back({n, SteadyClock::now()});
    return n > 0;
  }
  int all() const {
    int sum = 0;
    for (const auto& [n, when] : said) sum += n;
    return sum;
  }
  std::atomic<int> waiting{0};
  std::vector<std::pair<int, SteadyClock::time_point>> said;
};

struct PacerTest : testing::Test {
  void say(StreamPacer& pacer) {
    ++stream->waiting;
    pacer.wake(stream);
  }
  // Does the next thing, for which it waits.
  void next() {
    io.restart();
    ASSERT_EQ(io.run_one(), 1u);
  }
  boost::asio::io_context io;
  std::shared_ptr<Said> stream = std::make_shared<Said>();
};

TEST_F(PacerTest, TheFirstWordIsSentAtOnceAndTheNextOnesTogether) {
  StreamPacer pacer(io, 0.1);
  say(pacer);
  next();
  ASSERT_EQ(stream->said.size(), 1u);
  for (int i = 0; i < 5; ++i) say(pacer);
  next();  // the tick
  ASSERT_EQ(stream->said.size(), 2u);
  EXPECT_EQ(stream->said[1].first, 5);
  EXPECT_GE(stream->said[1].second - stream->said[0].second, milliseconds(99));
  EXPECT_TRUE(stream->listed());
  next();
  EXPECT_EQ(stream->said.size(), 2u);
  EXPECT_FALSE(stream->listed());  // a tick found nothing: the next word wakes
  say(pacer);
  next();
  EXPECT_EQ(stream->said.size(), 3u);
}

TEST_F(PacerTest, WithoutAGapEverythingIsSentAsItComes) {
  StreamPacer pacer(io, 0);
  for (int i = 0; i < 5; ++i) {
    say(pacer);
    next();
    EXPECT_EQ(stream->said.size(), static_cast<size_t>(i + 1));
    EXPECT_FALSE(stream->listed());
  }
}

TEST_F(PacerTest, NothingIsLostWhoeverSpeaksWhen) {
  for (double gap : {0.0, 0.0005}) {
    StreamPacer pacer(io, gap);
    std::vector<std::shared_ptr<Said>> streams(3);
    for (auto& s : streams) s = std::make_shared<Said>();
    std::atomic<bool> spoken{false};
    std::thread speaker([&] {
      for (int i = 0; i < 30000; ++i) {
        auto& s = streams[static_cast<size_t>(i % 3)];
        ++s->waiting;
        pacer.wake(s);
        if (i % 500 == 0) std::this_thread::sleep_for(milliseconds(1));
      }
      spoken = true;
    });
    auto run = [&] {
      io.restart();
      io.run();  // until no stream is looked at any more
    };
    while (!spoken) run();
    speaker.join();
    run();
    int sum = 0;
    for (auto& s : streams) sum += s->all();
    EXPECT_EQ(sum, 30000) << gap;
  }
}

}  // namespace
}  // namespace wels
