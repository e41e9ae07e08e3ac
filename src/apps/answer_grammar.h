// --grammar, --json-schema and --json: an answer that is held to a grammar.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/token_mask.h"
#include "text/tokenizer.h"

namespace wels {

struct GrammarFlags {
  std::string grammar, schema;  // files
  bool json = false;
  void add(CLI::App* sub);
};

// What may follow an answer so far, for GenerateRequest::mask.
class AnswerGrammar {
 public:
  // The flags' grammar over the tokenizer's vocabulary; null: they ask for none. vocab_size: of the
  // model, tokens that the tokenizer does not know never come. stop_ids: what ends an answer.
  // Throws Error: an unreadable file, a grammar that cannot be, no stop token.
  static std::shared_ptr<AnswerGrammar> make(const GrammarFlags& flags, const Tokenizer& tokenizer,
                                             int64_t vocab_size, std::vector<int32_t> stop_ids);
  // Asked for every token in order; valid until the next call.
  std::span<const uint64_t> mask(std::span<const int32_t> answer);

 private:
  AnswerGrammar(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTree> tree,
                std::vector<int32_t> stop_ids)
      : matcher_(std::move(grammar), std::move(tree)), stop_ids_(std::move(stop_ids)) {}
  GrammarMatcher matcher_;
  std::vector<int32_t> stop_ids_;
  std::vector<uint64_t> mask_;
  size_t followed_ = 0;
};

}  // namespace wels
