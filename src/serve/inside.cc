#include "serve/inside.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "serve/json_text.h"

namespace wels {

void Trace::ask(GenerateRequest& r) {
  prompt_tokens = static_cast<int64_t>(r.prompt.size());
  r.trace_from = std::max<int64_t>(prompt_tokens - kPromptTokens, 0);
  r.trace_rows = kTokens;
  prompt.assign(r.prompt.begin() + r.trace_from, r.prompt.end());
}

void Trace::add(const SampledToken& t, bool thinking) {
  if (static_cast<int64_t>(prompt.size() + answer.size()) < kTokens)
    answer.push_back({t.id, static_cast<float>(t.logp), t.draft, thinking});
}

void Trace::finish(GenerateResult& r) {
  experts = std::move(r.experts);
  experts.shrink_to_fit();
  drafted = r.drafted;
  accepted = r.accepted;
}

namespace {

// [[3,7],[0,15]] of row `row`; null where it is not known.
void append_experts(std::string& out, const Trace& t, size_t row, size_t layers, size_t k) {
  size_t n = layers * k, at = row * n;
  if (n == 0 || t.experts.size() < at + n || t.experts[at] < 0) {
    out += "null";
    return;
  }
  for (size_t l = 0; l < layers; ++l)
    fmt::format_to(std::back_inserter(out), "{}[{}]", l == 0 ? "[" : ",",
                   fmt::join(t.experts.begin() + static_cast<long>(at + l * k),
                             t.experts.begin() + static_cast<long>(at + (l + 1) * k), ","));
  out += ']';
}

}  // namespace

std::string trace_json(const std::string& id, const Trace& t, const ModelConfig& c,
                       const Tokenizer& tokenizer) {
  std::vector<int64_t> layers;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    if (c.is_moe_layer(l)) layers.push_back(l);
  }
  bool moe = !layers.empty();
  size_t k = moe ? static_cast<size_t>(c.num_experts_per_tok) : 0;
  std::string out =
      fmt::format(R"({{"id":{},"model":{},"layers":[{}],"experts":{},"chosen":{},"shared":{},)"
                  R"("prompt_tokens":{},"tokens":[)",
                  json_string(id), json_string(t.model), fmt::join(layers, ","),
                  moe ? c.n_routed_experts : 0, k, moe ? c.n_shared_experts : 0, t.prompt_tokens);
  StreamDecoder decoder(tokenizer, false);
  size_t row = 0;
  auto token = [&](std::string text, const char* part, const std::string& logp, int8_t draft) {
    if (row > 0) out += ',';
    out += "{\"text\":";
    append_json_string(out, text);
    fmt::format_to(std::back_inserter(out), R"(,"part":"{}","logp":{},"experts":)", part, logp);
    append_experts(out, t, row, layers.size(), k);
    out += draft < 0 ? R"(,"draft":null})" : draft ? R"(,"draft":true})" : R"(,"draft":false})";
    ++row;
  };
  for (int32_t p : t.prompt) token(decoder.push(p), "prompt", "null", -1);
  for (const Trace::Token& a : t.answer) {
    std::string logp = std::isfinite(a.logp) ? fmt::format("{:.6g}", a.logp) : "null";
    token(decoder.push(a.id), a.thinking ? "reasoning" : "answer", logp, a.draft);
  }
  return out + fmt::format(R"(],"mtp":{{"drafted":{},"accepted":{}}}}})", t.drafted, t.accepted);
}

void Traces::add(const std::string& id, const std::string& account, Trace trace) {
  std::lock_guard lock(mutex_);
  kept_.push_back({id, account, std::make_shared<const Trace>(std::move(trace))});
  if (kept_.size() > kKept) kept_.pop_front();
}

std::shared_ptr<const Trace> Traces::find(const std::string& id, const std::string& account) const {
  std::lock_guard lock(mutex_);
  for (const Entry& e : kept_) {
    if (e.id == id && e.account == account) return e.trace;
  }
  return nullptr;
}

}  // namespace wels
