// --grammar, --json-schema and --json: an answer that is held to a grammar, behind its thought.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/token_mask.h"
#include "text/tokenizer.h"

namespace wels {

struct GrammarFlags {
  std::string grammar, schema;  // files; the schema itself where it begins with {
  bool json = false;
  bool any() const { return json || !grammar.empty() || !schema.empty(); }
  void add(CLI::App* sub);
};

// The schema's text. Throws Error: an unreadable file.
std::string schema_text(const GrammarFlags& flags);
// What they ask for; null: nothing. Throws Error: an unreadable file, a grammar that cannot be.
std::shared_ptr<const Grammar> make_grammar(const GrammarFlags& flags);

// As GenerateRequest::mask.
using AnswerMaskFn = std::function<std::span<const uint64_t>(std::span<const int32_t> answer)>;

// Holds one answer to the grammar. vocab_size: of the model, tokens that the tokenizer does not
// know never come. stop_ids: what ends an answer. thinking: it begins within a thought, which is
// free. Throws Error: no stop token.
AnswerMaskFn hold_to_grammar(std::shared_ptr<const Grammar> grammar, const Tokenizer& tokenizer,
                             int64_t vocab_size, std::vector<int32_t> stop_ids, bool thinking);

// What to say of an answer that a limit cut before its grammar, mask, was complete; empty: nothing.
// raise: how the limit is raised.
std::string cut_note(const AnswerMaskFn& mask, const GenerateResult& r, int32_t stop_id,
                     const std::string& raise);

}  // namespace wels
