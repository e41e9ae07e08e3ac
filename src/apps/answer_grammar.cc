#include "apps/answer_grammar.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/file.h"
#include "serve/answer_mask.h"

namespace wels {

void GrammarFlags::add(CLI::App* sub) {
  auto named = [](const std::string& value) { return value.empty() ? "needs a file" : ""; };
  auto* gbnf = sub->add_option("--grammar", grammar, "a GBNF file that the answer must match");
  auto* json_schema =
      sub->add_option("--json-schema", schema,
                      "a file with a JSON schema that the answer must fit, or the schema ({...})");
  gbnf->check(named);
  json_schema->check(named);
  auto* object = sub->add_flag("--json", json, "the answer is a JSON object");
  gbnf->excludes(json_schema)->excludes(object);
  json_schema->excludes(object);
}

std::string schema_text(const GrammarFlags& f) {
  return f.schema.starts_with('{') ? f.schema : read_file(f.schema);
}

std::shared_ptr<const Grammar> make_grammar(const GrammarFlags& f) {
  if (!f.any()) return nullptr;
  return std::make_shared<Grammar>(!f.grammar.empty()  ? Grammar::from_gbnf(read_file(f.grammar))
                                   : !f.schema.empty() ? Grammar::from_json_schema(schema_text(f))
                                                       : Grammar::json_object());
}

AnswerMaskFn hold_to_grammar(std::shared_ptr<const Grammar> grammar, const Tokenizer& tokenizer,
                             int64_t vocab_size, std::vector<int32_t> stop_ids, bool thinking) {
  if (stop_ids.empty())
    throw Error("--grammar", "the model has no token that ends a text",
                "an answer that is held to a grammar could not end");
  std::vector<std::string> tokens(static_cast<size_t>(vocab_size));
  for (int32_t t = 0; t < std::min<int64_t>(tokenizer.vocab_size(), vocab_size); ++t) {
    if (!tokenizer.is_special(t)) tokens[static_cast<size_t>(t)] = tokenizer.token_bytes(t);
  }
  for (int32_t t : stop_ids) tokens[static_cast<size_t>(t)].clear();
  auto plan = std::make_shared<AnswerPlan>(AnswerPlan{tokenizer, vocab_size});
  plan->thinking = thinking;
  plan->parts = {{{}, std::move(grammar)}};
  plan->stop_ids = std::move(stop_ids);
  plan->tree = std::make_shared<TokenTree>(tokens);
  auto mask = std::make_shared<AnswerMask>(std::move(plan));
  return [mask](std::span<const int32_t> answer) { return mask->mask(answer); };
}

std::string cut_note(const AnswerMaskFn& mask, const GenerateResult& r, int32_t stop_id,
                     const std::string& raise) {
  using Finish = GenerateResult::Finish;
  if (!mask || (r.finish != Finish::kLength && r.finish != Finish::kContext)) return "";
  std::span<const uint64_t> allowed = mask(r.tokens);
  bool complete =
      !allowed.empty() && (allowed[static_cast<size_t>(stop_id >> 6)] >> (stop_id & 63) & 1);
  if (complete) return "";
  return fmt::format("the answer was cut after {} tokens, before its format was complete; {}",
                     r.tokens.size(),
                     r.finish == Finish::kLength ? raise : "shorten what comes before it");
}

}  // namespace wels
