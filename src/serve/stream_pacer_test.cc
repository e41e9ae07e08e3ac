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
  void run_for(milliseconds time) {
    io.restart();
    io.run_for(time);
  }
  boost::asio::io_context io;
  std::shared_ptr<Said> stream = std::make_shared<Said>();
};

TEST_F(PacerTest, TheFirstWordIsSentAtOnceAndTheNextOnesTogether) {
  StreamPacer pacer(io, 2);
  auto say = [&] {
    ++stream->waiting;
    pacer.wake(stream);
  };
  say();
  run_for(milliseconds(10));
  ASSERT_EQ(stream->said.size(), 1u);
  for (int i = 0; i < 5; ++i) say();
  run_for(milliseconds(10));
  EXPECT_EQ(stream->said.size(), 1u);  // not before the gap is over
  run_for(milliseconds(6000));
  ASSERT_EQ(stream->said.size(), 2u);
  EXPECT_EQ(stream->said[1].first, 5);
  EXPECT_GE(stream->said[1].second - stream->said[0].second, milliseconds(1990));
  EXPECT_FALSE(stream->listed());  // a tick found nothing: the next word wakes
  say();
  run_for(milliseconds(10));
  EXPECT_EQ(stream->said.size(), 3u);
}

TEST_F(PacerTest, WithoutAGapEverythingIsSentAsItComes) {
  StreamPacer pacer(io, 0);
  for (int i = 0; i < 5; ++i) {
    ++stream->waiting;
    pacer.wake(stream);
    run_for(milliseconds(5));
    EXPECT_EQ(stream->said.size(), static_cast<size_t>(i + 1));
  }
}

TEST_F(PacerTest, NothingIsLostWhoeverSpeaksWhen) {
  for (double gap : {0.0, 0.0005}) {
    StreamPacer pacer(io, gap);
    std::vector<std::shared_ptr<Said>> streams(3);
    for (auto& s : streams) s = std::make_shared<Said>();
    std::thread speaker([&] {
      for (int i = 0; i < 30000; ++i) {
        auto& s = streams[static_cast<size_t>(i % 3)];
        ++s->waiting;
        pacer.wake(s);
        if (i % 500 == 0) std::this_thread::sleep_for(milliseconds(1));
      }
    });
    auto all = [&] {
      int sum = 0;
      for (auto& s : streams) sum += s->all();
      return sum;
    };
    auto end = SteadyClock::now() + std::chrono::seconds(20);
    while (all() < 30000 && SteadyClock::now() < end) run_for(milliseconds(2));
    speaker.join();
    run_for(milliseconds(50));
    EXPECT_EQ(all(), 30000) << gap;
  }
}

}  // namespace
}  // namespace wels
