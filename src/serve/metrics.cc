#include "serve/metrics.h"

#include <fmt/format.h>

namespace wels {
namespace {

void head(std::string& out, const char* name, const char* help, const char* type) {
  out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

void value(std::string& out, const char* name, const char* help, const char* type, double v) {
  head(out, name, help, type);
  out += fmt::format("{} {}\n", name, v);
}

}  // namespace

void Histogram::add(double seconds) {
  std::lock_guard lock(mutex_);
  size_t i = 0;
  while (i < kBounds.size() && seconds > kBounds[i]) ++i;
  ++counts_[i];
  sum_ += seconds;
}

void Histogram::write(std::string& out, const char* name, const char* help) const {
  head(out, name, help, "histogram");
  std::lock_guard lock(mutex_);
  int64_t below = 0;
  for (size_t i = 0; i < kBounds.size(); ++i) {
    below += counts_[i];
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, kBounds[i], below);
  }
  below += counts_.back();
  out +=
      fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, below, sum_);
}

void Metrics::answered(const std::string& route, int status) {
  std::lock_guard lock(mutex_);
  ++requests_[{route, status}];
}

void Metrics::used(const Usage& usage) {
  std::lock_guard lock(mutex_);
  used_.prompt += usage.prompt;
  used_.cached += usage.cached;
  used_.completion += usage.completion;
  used_.reasoning += usage.reasoning;
}

std::string Metrics::text(const EngineThread::Stats& e, int64_t connections) const {
  std::string out;
  head(out, "wels_requests_total", "Requests answered, by route and status.", "counter");
  std::unique_lock lock(mutex_);
  for (const auto& [key, n] : requests_)
    out += fmt::format("wels_requests_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first,
                       key.second, n);
  Usage u = used_;
  lock.unlock();
  auto counter = [&](const char* name, const char* help, double v) {
    value(out, name, help, "counter", v);
  };
  auto gauge = [&](const char* name, const char* help, double v) {
    value(out, name, help, "gauge", v);
  };
  auto number = [](int64_t v) { return static_cast<double>(v); };
  counter("wels_prompt_tokens_total", "Tokens of prompts.", number(u.prompt));
  counter("wels_prompt_cache_hit_tokens_total", "Tokens of prompts found in the cache.",
          number(u.cached));
  counter("wels_completion_tokens_total", "Tokens generated for answers.", number(u.completion));
  counter("wels_reasoning_tokens_total", "Of them, reasoning.", number(u.reasoning));
  counter("wels_cancelled_total", "Requests whose client left.", number(cancelled));
  counter("wels_engine_steps_total", "Forward passes.", number(e.steps));
  counter("wels_engine_preempted_total", "Sequences that gave up their pages.",
          number(e.timing.preempted));
  counter("wels_engine_prefill_seconds_total", "Steps with rows of prompts.", e.timing.prefill_s);
  counter("wels_engine_decode_seconds_total", "Steps without.", e.timing.decode_s);
  counter("wels_engine_draft_tokens_total", "Tokens drafted.", number(e.timing.drafted));
  counter("wels_engine_accepted_tokens_total", "Drafts accepted.", number(e.timing.accepted));
  gauge("wels_requests_active", "Requests being answered.", number(active));
  gauge("wels_requests_queued", "Of them, without a first token.", number(queued));
  gauge("wels_sequences_running", "Sequences in the engine's batch.", number(e.running));
  gauge("wels_sequences_waiting", "Sequences that wait for pages.", number(e.waiting));
  gauge("wels_cache_free_tokens", "Tokens for which the KV cache has room.",
        number(e.available_tokens));
  gauge("wels_connections", "Open connections.", number(connections));
  first_token_s.write(out, "wels_first_token_seconds", "From a request to its first token.");
  request_s.write(out, "wels_request_seconds", "From a request to the end of its answer.");
  return out;
}

}  // namespace wels
