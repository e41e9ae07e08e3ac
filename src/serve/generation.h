// Generation: one request of an API on its way through the engine. It knows text where the engine
// knows tokens: tokens become pieces of reasoning, answer and tool calls (deltas), stop strings end
// a choice, tokens are counted. The engine's thread puts deltas in, the I/O thread takes them out
// when the client has room; deltas that wait are joined, so what waits is never more than the text.
#pragma once
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "serve/inside.h"
#include "text/answer_parser.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace wels {

// A token as the APIs report it.
struct TokenLogprob {
  int32_t id = -1;
  std::string bytes;
  double logp = 0;
  struct Other {
    std::string bytes;
    double logp;
  };
  std::vector<Other> top;
  bool shown = true;  // its bytes are in the text
};

enum class FinishReason { kStop, kLength, kToolCalls, kInsufficientResource, kError };
const char* finish_name(FinishReason reason);

struct Delta {
  enum Kind { kReasoning, kContent, kToolName, kToolArguments, kFinish } kind;
  int choice = 0;
  std::string text = {};
  int call = -1;             // number of the tool call
  std::string call_id = {};  // kToolName
  std::vector<TokenLogprob> logprobs = {};
  FinishReason finish = FinishReason::kStop;  // kFinish
  std::string stop_string = {};               // kFinish: the one that was found
};

struct Usage {
  int64_t prompt = 0, cached = 0, completion = 0, reasoning = 0;
};

// What may follow the answer so far, as GenerateRequest::mask.
using TokenMask = std::function<std::span<const uint64_t>(std::span<const int32_t> answer)>;

struct GenerationJob {
  std::vector<std::vector<int32_t>> prompts = {};
  int n = 1;  // answers to each; choice i answers prompt i / n
  int64_t max_tokens = 0;
  SamplingParams sampling = {};  // of the first choice; the others have other seeds
  std::vector<int32_t> stop_ids = {};
  std::vector<std::string> stop = {};
  std::string scope = {};
  bool chat = true;              // the answer has parts; else it is all content
  bool thinking = false;         // the prompt ended inside the reasoning
  bool tools = false;            // the answer may have tool calls
  bool keep_stop_token = false;  // the token that ends the answer is one of it (for scores)
  std::function<TokenMask()> make_mask = {};
  int prompt_logprobs = -1;
  bool mean_hidden = false;
  int64_t cache_unit = 64;  // tokens in steps of which usage reports the cache
  Reuse reuse = Reuse::kAny;
  Speculate speculate = Speculate::kNone;
  std::chrono::steady_clock::time_point start_by = {}, end_by = {};  // else it is given up
  const std::atomic<bool>* abandon = nullptr;                        // true: everything is given up
  std::string trace_id = {};  // not empty: the first choice is traced (inside.h), by this name
  std::atomic<int64_t>* cpu_ns = nullptr;  // as ApiOptions::engine_cpu_ns
};

// Tokens of one choice → deltas.
class ChoiceDecoder {
 public:
  // shown: special tokens whose text counts (markers of tool calls and reasoning).
  ChoiceDecoder(const Tokenizer& tokenizer, const std::vector<int32_t>& shown,
                const GenerationJob& job, int choice);
  // False: the choice has ended, by a stop string or after its tool calls.
  bool push(const SampledToken& token, std::vector<Delta>& out);
  void finish(std::vector<Delta>& out);
  int64_t reasoning_tokens() const { return reasoning_tokens_; }
  bool was_thinking() const { return was_thinking_; }  // before the last token
  int calls() const { return parser_.calls(); }
  const std::string& stop_found() const { return stop_.found(); }

 private:
  void add(std::vector<AnswerPiece>& pieces, std::vector<Delta>& out);
  void add_logprobs(std::vector<Delta>& out);
  Tokenizer tokenizer_;
  const std::vector<int32_t>& shown_;
  StreamDecoder decoder_;
  AnswerParser parser_;
  StopStrings stop_;
  bool chat_, logprobs_;
  int choice_;
  bool was_thinking_ = false;
  int64_t reasoning_tokens_ = 0;
  int calls_given_ = 0;
  std::vector<TokenLogprob> held_;  // of tokens whose text is held back
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(const Tokenizer& tokenizer, const std::vector<int32_t>& shown, GenerationJob job);

  // The engine's requests, one a choice. Call once; the generation lives until they have ended.
  std::vector<GenerateRequest> requests();
  const GenerationJob& job() const { return job_; }

  // started: the first choice has its first token, or has ended without. changed: something can be
  // taken. ended: the last choice has ended; whoever is told settles what is to be settled and then
  // calls complete(), which lets take() see the end. All on the engine's thread (changed: also on
  // that of complete); set before requests().
  void on_started(std::function<void()> started) { started_call_ = std::move(started); }
  void on_changed(std::function<void()> changed) { changed_ = std::move(changed); }
  void on_ended(std::function<void()> ended) { ended_ = std::move(ended); }
  void complete();
  void cancel() { cancelled_ = true; }  // any thread
  bool cancelled() const { return cancelled_; }
  bool started() const { return started_; }
  // The engine refused a choice.
  void fail(int choice, const Error& error);

  // Moves what waits to `out`; true: that was the last. Any one thread.
  bool take(std::vector<Delta>& out);

  size_t choices() const { return decoders_.size(); }
  const std::vector<int32_t>& prompt_of(int choice) const {
    return job_.prompts[static_cast<size_t>(choice / job_.n)];
  }
  // Once it has ended:
  Usage usage() const;
  std::optional<Error> error() const;
  const GenerateResult& result(int choice) const { return results_[static_cast<size_t>(choice)]; }
  Trace take_trace() { return std::move(trace_); }  // with trace_id

 private:
  bool token(int choice, const SampledToken& t);
  void finished(int choice, GenerateResult r);
  void append(std::vector<Delta>& deltas);  // and leaves them empty
  void join(std::vector<Delta>& deltas);
  void start();
  bool given_up();

  Tokenizer tokenizer_;
  GenerationJob job_;
  std::vector<ChoiceDecoder> decoders_;
  std::vector<GenerateResult> results_;
  std::vector<bool> stopped_;
  std::function<void()> started_call_, changed_, ended_;
  std::atomic<bool> cancelled_{false}, started_{false};
  size_t left_ = 0;
  std::vector<Delta> made_;  // by the token at hand; kept for its memory
  mutable std::mutex mutex_;
  std::vector<Delta> waiting_, last_;
  bool complete_ = false;
  std::optional<Error> error_;
  Trace trace_;
};

}  // namespace wels
