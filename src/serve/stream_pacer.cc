#include "serve/stream_pacer.h"

#include <boost/asio/post.hpp>

namespace wels {

StreamPacer::StreamPacer(boost::asio::io_context& io, double gap_s)
    : io_(io),
      gap_(std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          std::chrono::duration<double>(gap_s))),
      timer_(io) {}

void StreamPacer::wake(std::shared_ptr<PacedStream> stream) {
  if (stream->listed_.exchange(true)) return;
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = woken_.empty();
    woken_.push_back(std::move(stream));
  }
  if (first) boost::asio::post(io_, [this] { pump_woken(); });
}

void StreamPacer::pump_woken() {
  {
    std::lock_guard lock(mutex_);
    std::swap(now_, woken_);
  }
  pump(now_);
}

void StreamPacer::tick() {
  ticking_ = false;
  std::swap(now_, hot_);
  pump(now_);
}

void StreamPacer::pump(Streams& streams) {
  bool paced = gap_.count() > 0;
  for (std::shared_ptr<PacedStream>& s : streams) {
    bool sent = s->pump();
    if (!sent || !paced) {
      // What came between that look and this line has woken nobody: look again.
      s->listed_ = false;
      sent = s->pump() && paced && !s->listed_.exchange(true);
    }
    if (sent) hot_.push_back(std::move(s));
  }
  streams.clear();
  if (hot_.empty() || ticking_) return;
  ticking_ = true;
  timer_.expires_after(gap_);
  timer_.async_wait([this](boost::system::error_code ec) {
    if (!ec) tick();
  });
}

}  // namespace wels
