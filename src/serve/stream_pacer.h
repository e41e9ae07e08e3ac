// StreamPacer: when streams are sent. Waking the I/O thread and writing to a socket cost far more
// than the text of a token, so whoever makes text says so at any rate, and
//  - all streams that are woken while the I/O thread has not come yet are one wake-up,
//  - a stream that was just sent is looked at again at the next tick, `gap` later, without anybody
//    waking it. If there is something it is sent and the stream stays; if not, the next wake()
//    reaches it at once, so a slow stream is never kept waiting for a tick.
#pragma once
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

namespace wels {

class PacedStream {
 public:
  virtual ~PacedStream() = default;
  // On the I/O thread: sends what is there. False: there is nothing, and nothing is being sent.
  virtual bool pump() = 0;
  // It will be pumped without being woken.
  bool listed() const { return listed_; }

 private:
  friend class StreamPacer;
  std::atomic<bool> listed_{false};
};

class StreamPacer {
 public:
  // gap_s 0: no ticks, everything is sent as it comes.
  StreamPacer(boost::asio::io_context& io, double gap_s);
  // From any thread: the stream is pumped after this.
  void wake(std::shared_ptr<PacedStream> stream);

 private:
  using Streams = std::vector<std::shared_ptr<PacedStream>>;
  void pump_woken();
  void tick();
  void pump(Streams& streams);

  boost::asio::io_context& io_;
  std::chrono::steady_clock::duration gap_;
  boost::asio::steady_timer timer_;
  bool ticking_ = false;
  Streams hot_;       // sent since the last tick
  Streams now_;       // being pumped; kept for its memory
  std::mutex mutex_;  // of:
  Streams woken_;
};

}  // namespace wels
