// What the page's inside view shows of an answer: the experts that each token used in every MoE
// block, how probable it was, and whether speculation proposed it.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/request.h"
#include "formats/model_config.h"
#include "text/tokenizer.h"

namespace wels {

// Of one choice. Filled on the engine's thread.
struct Trace {
  static constexpr int64_t kPromptTokens = 1024, kTokens = 4096;  // the prompt's last, and of all
  struct Token {
    int32_t id;
    float logp;     // as it was drawn
    int8_t draft;   // as SampledToken::draft
    bool thinking;  // part of the reasoning
  };
  std::string model;
  int64_t prompt_tokens = 0;
  std::vector<int32_t> prompt;  // its last tokens
  std::vector<Token> answer;
  std::vector<int16_t> experts;  // as GenerateResult::experts, of prompt and answer
  int64_t drafted = 0, accepted = 0;

  void ask(GenerateRequest& r);
  void add(const SampledToken& t, bool thinking);
  void finish(GenerateResult& r);  // takes its experts
};

std::string trace_json(const std::string& id, const Trace& trace, const ModelConfig& config,
                       const Tokenizer& tokenizer);

// The last traces, each for the account that asked.
class Traces {
 public:
  static constexpr size_t kKept = 64;
  void add(const std::string& id, const std::string& account, Trace trace);
  // Null: there is none, or it is another's.
  std::shared_ptr<const Trace> find(const std::string& id, const std::string& account) const;

 private:
  struct Entry {
    std::string id, account;
    std::shared_ptr<const Trace> trace;
  };
  mutable std::mutex mutex_;
  std::deque<Entry> kept_;
};

}  // namespace wels
