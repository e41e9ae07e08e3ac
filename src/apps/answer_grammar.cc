#include "apps/answer_grammar.h"

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"

namespace wels {

void GrammarFlags::add(CLI::App* sub) {
  auto* gbnf = sub->add_option("--grammar", grammar, "a GBNF file that the answer must match");
  auto* json_schema =
      sub->add_option("--json-schema", schema, "a JSON schema that the answer must fit");
  auto* object = sub->add_flag("--json", json, "the answer is a JSON object");
  gbnf->excludes(json_schema)->excludes(object);
  json_schema->excludes(object);
}

std::shared_ptr<AnswerGrammar> AnswerGrammar::make(const GrammarFlags& flags,
                                                   const Tokenizer& tokenizer, int64_t vocab_size,
                                                   std::vector<int32_t> stop_ids) {
  if (flags.grammar.empty() && flags.schema.empty() && !flags.json) return nullptr;
  if (stop_ids.empty())
    throw Error("--grammar", "the model has no token that ends a text",
                "an answer that is held to a grammar could not end");
  auto grammar = std::make_shared<Grammar>(
      !flags.grammar.empty()  ? Grammar::from_gbnf(read_file(flags.grammar))
      : !flags.schema.empty() ? Grammar::from_json_schema(read_file(flags.schema))
                              : Grammar::json_object());
  std::vector<std::string> tokens(static_cast<size_t>(vocab_size));
  for (int32_t t = 0; t < std::min<int64_t>(tokenizer.vocab_size(), vocab_size); ++t) {
    if (!tokenizer.is_special(t)) tokens[static_cast<size_t>(t)] = tokenizer.token_bytes(t);
  }
  for (int32_t t : stop_ids) tokens[static_cast<size_t>(t)].clear();
  return std::shared_ptr<AnswerGrammar>(new AnswerGrammar(
      std::move(grammar), std::make_shared<TokenTree>(tokens), std::move(stop_ids)));
}

std::span<const uint64_t> AnswerGrammar::mask(std::span<const int32_t> answer) {
  CHECK(answer.size() >= followed_);
  for (; followed_ < answer.size(); ++followed_) CHECK(matcher_.accept(answer[followed_]));
  std::span<const uint64_t> allowed = matcher_.allowed();
  mask_.assign(allowed.begin(), allowed.end());
  if (matcher_.can_end()) {
    for (int32_t t : stop_ids_) mask_[static_cast<size_t>(t >> 6)] |= uint64_t{1} << (t & 63);
  }
  return mask_;
}

}  // namespace wels
