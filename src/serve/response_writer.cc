#include "serve/response_writer.h"

#include <fmt/format.h>
#include <sys/random.h>

#include "base/check.h"

namespace wels {
namespace {

class EventSource : public BodySource {
 public:
  EventSource(std::shared_ptr<Generation> generation, std::unique_ptr<EventWriter> writer)
      : generation_(std::move(generation)), writer_(std::move(writer)) {}

  bool pull(std::string& out) override {
    if (!begun_) writer_->begin(out);
    begun_ = true;
    bool complete = generation_->take(deltas_);
    writer_->write(deltas_, out);
    if (complete) writer_->end(generation_->usage(), generation_->error(), out);
    return !complete;
  }
  std::string keep_alive() override { return writer_->keep_alive(); }

 private:
  std::shared_ptr<Generation> generation_;
  std::unique_ptr<EventWriter> writer_;
  std::vector<Delta> deltas_;  // kept for its memory
  bool begun_ = false;
};

}  // namespace

std::shared_ptr<BodySource> make_event_source(std::shared_ptr<Generation> generation,
                                              std::unique_ptr<EventWriter> writer) {
  return std::make_shared<EventSource>(std::move(generation), std::move(writer));
}

std::vector<Answer> collect_answers(std::vector<Delta> deltas, size_t choices) {
  std::vector<Answer> out(choices);
  for (Delta& d : deltas) {
    Answer& a = out[static_cast<size_t>(d.choice)];
    auto& logprobs = d.kind == Delta::kReasoning ? a.reasoning_logprobs : a.content_logprobs;
    std::move(d.logprobs.begin(), d.logprobs.end(), std::back_inserter(logprobs));
    switch (d.kind) {
      case Delta::kReasoning:
        a.reasoning += d.text;
        break;
      case Delta::kContent:
        a.content += d.text;
        break;
      case Delta::kToolName:
        a.calls.push_back({d.call_id, d.text, ""});
        break;
      case Delta::kToolArguments:
        a.calls.back().arguments += d.text;
        break;
      case Delta::kFinish:
        a.finish = d.finish;
        a.stop_string = d.stop_string;
    }
  }
  return out;
}

std::string new_uuid() {
  uint8_t r[16];
  CHECK(::getrandom(r, sizeof r, 0) == ssize_t{sizeof r});
  r[6] = static_cast<uint8_t>((r[6] & 0x0f) | 0x40);
  r[8] = static_cast<uint8_t>((r[8] & 0x3f) | 0x80);
  std::string out;
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    fmt::format_to(std::back_inserter(out), "{:02x}", r[i]);
  }
  return out;
}

}  // namespace wels
