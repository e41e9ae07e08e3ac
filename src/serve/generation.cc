#include "serve/generation.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>

#include "base/check.h"
#include "serve/cpu_meter.h"

namespace wels {
namespace {

// call_00_ and 24 letters or digits.
std::string new_call_id(int number) {
  static constexpr std::string_view kLetters =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  uint8_t random[24];
  CHECK(::getrandom(random, sizeof random, 0) == ssize_t{sizeof random});
  std::string id = fmt::format("call_{:02}_", number);
  for (uint8_t r : random) id += kLetters[r % kLetters.size()];
  return id;
}

bool contains(const std::vector<int32_t>& list, int32_t id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

}  // namespace

const char* finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
    default:
      return "insufficient_system_resource";
  }
}

ChoiceDecoder::ChoiceDecoder(const Tokenizer& tokenizer, const std::vector<int32_t>& shown,
                             const GenerationJob& job, int choice)
    : tokenizer_(tokenizer),
      shown_(shown),
      decoder_(tokenizer, false),
      parser_({.thinking = job.thinking, .tools = job.tools}),
      stop_(job.stop),
      chat_(job.chat),
      logprobs_(job.sampling.top_logprobs >= 0),
      choice_(choice) {}

void ChoiceDecoder::add_logprobs(std::vector<Delta>& out) {
  if (held_.empty()) return;
  Delta::Kind kind = was_thinking_ ? Delta::kReasoning : Delta::kContent;
  if (out.empty() || (out.back().kind != Delta::kReasoning && out.back().kind != Delta::kContent))
    out.push_back({.kind = kind, .choice = choice_});
  auto& list = out.back().logprobs;
  std::move(held_.begin(), held_.end(), std::back_inserter(list));
  held_.clear();
}

void ChoiceDecoder::add(std::vector<AnswerPiece>& pieces, std::vector<Delta>& out) {
  for (AnswerPiece& p : pieces) {
    switch (p.kind) {
      case AnswerPiece::kReasoning:
        out.push_back({.kind = Delta::kReasoning, .choice = choice_, .text = std::move(p.text)});
        break;
      case AnswerPiece::kContent: {
        std::string shown = stop_.push(p.text);
        if (!shown.empty())
          out.push_back({.kind = Delta::kContent, .choice = choice_, .text = std::move(shown)});
        break;
      }
      case AnswerPiece::kToolName: {
        int number = ++calls_given_ - 1;
        out.push_back({.kind = Delta::kToolName,
                       .choice = choice_,
                       .text = std::move(p.text),
                       .call = number,
                       .call_id = new_call_id(number)});
        break;
      }
      case AnswerPiece::kToolArguments:
        out.push_back({.kind = Delta::kToolArguments,
                       .choice = choice_,
                       .text = std::move(p.text),
                       .call = calls_given_ - 1});
    }
  }
}

bool ChoiceDecoder::push(const SampledToken& token, std::vector<Delta>& out) {
  was_thinking_ = chat_ && parser_.thinking();
  reasoning_tokens_ += was_thinking_;
  if (logprobs_) {
    TokenLogprob t{token.id, std::string(tokenizer_.token_bytes(token.id)), token.plain_logp, {}};
    for (auto [id, logp] : token.top)
      t.top.push_back({std::string(tokenizer_.token_bytes(id)), logp});
    held_.push_back(std::move(t));
  }
  std::vector<AnswerPiece> pieces;
  if (!tokenizer_.is_special(token.id) || (chat_ && contains(shown_, token.id))) {
    std::string text = decoder_.push(token.id);
    if (chat_) {
      parser_.push(text, pieces);
    } else if (!text.empty()) {
      pieces.push_back({AnswerPiece::kContent, std::move(text)});
    }
  }
  add(pieces, out);
  if (stop_.stopped()) return false;
  if (!stop_.holds()) add_logprobs(out);
  return !parser_.calls_ended();
}

void ChoiceDecoder::finish(std::vector<Delta>& out) {
  if (stop_.stopped()) return;
  std::vector<AnswerPiece> pieces;
  std::string rest = decoder_.finish();
  if (chat_) {
    parser_.push(rest, pieces);
    parser_.finish(pieces);
  } else if (!rest.empty()) {
    pieces.push_back({AnswerPiece::kContent, std::move(rest)});
  }
  add(pieces, out);
  std::string shown = stop_.finish();
  if (!shown.empty())
    out.push_back({.kind = Delta::kContent, .choice = choice_, .text = std::move(shown)});
  add_logprobs(out);
}

Generation::Generation(const Tokenizer& tokenizer, const std::vector<int32_t>& shown,
                       GenerationJob job)
    : tokenizer_(tokenizer), job_(std::move(job)) {
  int choices = static_cast<int>(job_.prompts.size()) * job_.n;
  for (int i = 0; i < choices; ++i) decoders_.emplace_back(tokenizer_, shown, job_, i);
  results_.resize(decoders_.size());
  stopped_.resize(decoders_.size());
  left_ = decoders_.size();
}

bool Generation::given_up() {
  if (cancelled_ || (job_.abandon && *job_.abandon)) return true;
  auto now = std::chrono::steady_clock::now();
  return now >= job_.end_by || (!started_ && now >= job_.start_by);
}

std::vector<GenerateRequest> Generation::requests() {
  std::vector<GenerateRequest> out;
  for (int i = 0; i < static_cast<int>(decoders_.size()); ++i) {
    GenerateRequest r;
    r.prompt = prompt_of(i);
    r.max_new_tokens = job_.max_tokens;
    r.sampling = job_.sampling;
    r.sampling.seed += static_cast<uint64_t>(i % job_.n) * 0x9e3779b97f4a7c15ull;
    if (!job_.keep_stop_token) r.stop_ids = job_.stop_ids;
    if (job_.make_mask) r.mask = job_.make_mask();
    r.scope = job_.scope;
    r.reuse = job_.reuse;
    r.speculate = job_.speculate;
    r.prompt_logprobs = i % job_.n == 0 ? job_.prompt_logprobs : -1;
    r.mean_hidden = job_.mean_hidden;
    if (i == 0 && !job_.trace_id.empty()) trace_.ask(r);
    auto self = shared_from_this();
    r.on_token = [self, i](const SampledToken& t) { return self->token(i, t); };
    r.on_finish = [self, i](GenerateResult result) { self->finished(i, std::move(result)); };
    r.cancelled = [self] { return self->given_up(); };
    out.push_back(std::move(r));
  }
  return out;
}

void Generation::start() {
  if (!started_.exchange(true) && started_call_) started_call_();
}

bool Generation::token(int choice, const SampledToken& t) {
  CpuMeter meter(job_.cpu_ns);
  start();
  size_t i = static_cast<size_t>(choice);
  bool more = decoders_[i].push(t, made_);
  if (job_.keep_stop_token && contains(job_.stop_ids, t.id)) more = false;
  if (!more) stopped_[i] = true;
  if (choice == 0 && !job_.trace_id.empty()) trace_.add(t, decoders_[0].was_thinking());
  append(made_);
  return more;
}

void Generation::append(std::vector<Delta>& deltas) {
  if (deltas.empty()) return;
  {
    std::lock_guard lock(mutex_);
    join(deltas);
  }
  deltas.clear();
  if (changed_) changed_();
}

// Text joins what waits already, so that a client who reads slowly costs no more than the text.
void Generation::join(std::vector<Delta>& deltas) {
  for (Delta& d : deltas) {
    Delta* last = waiting_.empty() ? nullptr : &waiting_.back();
    bool joins = last && last->kind == d.kind && last->choice == d.choice && last->call == d.call &&
                 d.kind != Delta::kToolName && d.kind != Delta::kFinish;
    if (joins) {
      last->text += d.text;
      std::move(d.logprobs.begin(), d.logprobs.end(), std::back_inserter(last->logprobs));
    } else {
      waiting_.push_back(std::move(d));
    }
  }
}

void Generation::finished(int choice, GenerateResult r) {
  CpuMeter meter(job_.cpu_ns);
  start();
  size_t i = static_cast<size_t>(choice);
  std::vector<Delta> deltas;
  decoders_[i].finish(deltas);
  Delta end{.kind = Delta::kFinish, .choice = choice};
  using Finish = GenerateResult::Finish;
  end.stop_string = decoders_[i].stop_found();
  bool by_itself = r.finish == Finish::kStop || stopped_[i] || !end.stop_string.empty();
  if (by_itself) {
    end.finish = decoders_[i].calls() > 0 ? FinishReason::kToolCalls : FinishReason::kStop;
  } else if (r.finish == Finish::kLength || r.finish == Finish::kContext) {
    end.finish = FinishReason::kLength;
  } else {
    end.finish = r.error ? FinishReason::kError : FinishReason::kInsufficientResource;
  }
  deltas.push_back(std::move(end));
  bool last = --left_ == 0;
  {
    std::lock_guard lock(mutex_);
    if (r.error && !error_) error_ = r.error;
    if (i == 0 && !job_.trace_id.empty()) trace_.finish(r);
    results_[i] = std::move(r);
    if (last) last_ = std::move(deltas);
  }
  if (!last) return append(deltas);
  ended_ ? ended_() : complete();
}

void Generation::complete() {
  {
    std::lock_guard lock(mutex_);
    join(last_);
    complete_ = true;
  }
  if (changed_) changed_();
}

void Generation::fail(int choice, const Error& error) {
  GenerateResult r;
  r.finish = GenerateResult::Finish::kError;
  r.error = error;
  finished(choice, std::move(r));
}

bool Generation::take(std::vector<Delta>& out) {
  out.clear();
  std::lock_guard lock(mutex_);
  std::swap(out, waiting_);
  return complete_;
}

Usage Generation::usage() const {
  std::lock_guard lock(mutex_);
  Usage u;
  for (size_t i = 0; i < results_.size(); ++i) {
    if (i % static_cast<size_t>(job_.n) == 0) {  // a prompt is counted once
      u.prompt += static_cast<int64_t>(job_.prompts[i / static_cast<size_t>(job_.n)].size());
      u.cached += results_[i].cached_tokens / job_.cache_unit * job_.cache_unit;
    }
    u.completion += static_cast<int64_t>(results_[i].tokens.size());
    u.reasoning += decoders_[i].reasoning_tokens();
  }
  return u;
}

std::optional<Error> Generation::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

}  // namespace wels
