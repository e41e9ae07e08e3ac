// What a generation becomes for its client: whole responses and events of a stream, one writer for
// each API. Plain text in, text out; the socket is elsewhere.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serve/generation.h"
#include "serve/http.h"

namespace wels {

// What is said about every response.
struct ResponseInfo {
  std::string id;  // uuid
  std::string model;
  int64_t created = 0;  // seconds since 1970
  std::string fingerprint;
};

// One choice put together again.
struct Answer {
  std::string reasoning, content;
  struct Call {
    std::string id, name, arguments;
  };
  std::vector<Call> calls;
  std::vector<TokenLogprob> reasoning_logprobs, content_logprobs;
  FinishReason finish = FinishReason::kStop;
  std::string stop_string;
};
// Of all choices.
std::vector<Answer> collect_answers(std::vector<Delta> deltas, size_t choices);

// Events of a stream. write() and end() append to `out`.
class EventWriter {
 public:
  virtual ~EventWriter() = default;
  virtual void begin(std::string& out) {}
  virtual void write(const std::vector<Delta>& deltas, std::string& out) = 0;
  // After everything; error: nothing more could be generated.
  virtual void end(const Usage& usage, const std::optional<Error>& error, std::string& out) = 0;
  virtual std::string keep_alive() { return ": keep-alive\n\n"; }
};

// A generation as a body that is pulled. `writer` makes its text.
std::shared_ptr<BodySource> make_event_source(std::shared_ptr<Generation> generation,
                                              std::unique_ptr<EventWriter> writer);

// --- /chat/completions (chat_writer.cc) ---

std::string usage_json(const Usage& usage);
std::string chat_response(const ResponseInfo& info, const std::vector<Answer>& answers,
                          const Usage& usage, bool logprobs);
// include_usage: a chunk of its own with usage at the end, as stream_options asks for; else the
// last chunk has it.
std::unique_ptr<EventWriter> make_chat_writer(ResponseInfo info, bool include_usage);

// --- /completions (completion_writer.cc) ---

// What echo shows of one prompt: its text, and its tokens' log-probabilities where asked for.
struct Echo {
  std::string text;
  std::vector<TokenLogprob> tokens;  // logp of the first has no meaning
};
std::string completion_response(const ResponseInfo& info, const std::vector<Answer>& answers,
                                const std::vector<Echo>& echoes, const Usage& usage, bool logprobs);
// echoes: the prompts' texts by choice; empty: none.
std::unique_ptr<EventWriter> make_completion_writer(ResponseInfo info, bool include_usage,
                                                    std::vector<std::string> echoes);

std::string new_uuid();  // version 4

}  // namespace wels
