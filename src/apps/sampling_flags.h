// The sampling and speculation flags of generate and chat.
#pragma once
#include <CLI/CLI.hpp>

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/draft.h"
#include "engine/sampler.h"

namespace wels {

// "123=-5"; -100 means never, as in OpenAI's API.
inline void add_logit_bias(SamplingParams& p, const std::string& text) {
  int32_t id = -1;
  float bias = 0;
  size_t at = text.find('=');
  bool good = at != std::string::npos && CLI::detail::lexical_cast(text.substr(0, at), id) &&
              CLI::detail::lexical_cast(text.substr(at + 1), bias) && id >= 0 && bias >= -100 &&
              bias <= 100;
  if (!good) throw CLI::ValidationError("--logit-bias", "\"" + text + "\" is no ID=BIAS, as 42=-5");
  p.logit_bias[id] = bias <= -100 ? -1e30f : bias;
}

inline void add_sampling_flags(CLI::App* sub, SamplingParams& p) {
  sub->add_option("--temperature", p.temperature, "0: always the most probable token")
      ->capture_default_str();
  sub->add_option("--top-k", p.top_k, "keep the k most probable (0: off)")->capture_default_str();
  sub->add_option("--top-p", p.top_p, "keep the most probable up to this share (1: off)")
      ->capture_default_str();
  sub->add_option("--typical-p", p.typical_p,
                  "keep the tokens that surprise as usual, up to this share (1: off)")
      ->capture_default_str();
  sub->add_option("--min-p", p.min_p,
                  "drop what is less probable than this times the most probable")
      ->capture_default_str();
  sub->add_option("--repetition-penalty", p.repetition_penalty,
                  "divides the logits of tokens seen (1: off)")
      ->capture_default_str();
  sub->add_option("--presence-penalty", p.presence_penalty, "subtracted from tokens seen")
      ->capture_default_str();
  sub->add_option("--frequency-penalty", p.frequency_penalty, "subtracted per occurrence")
      ->capture_default_str();
  sub->add_option("--seed", p.seed, "of the random numbers")->capture_default_str();
  sub->add_option_function<std::vector<std::string>>(
         "--logit-bias",
         [&p](const std::vector<std::string>& all) {
           for (const std::string& one : all) add_logit_bias(p, one);
         },
         "ID=BIAS adds to a token's logit, -100 (never) to 100 (may be repeated)")
      ->type_name("ID=BIAS");
  sub->add_option("--logprobs", p.top_logprobs,
                  "then list the answer's tokens with their log-probabilities and those of the "
                  "so many most probable ones, on stderr")
      ->check(CLI::Range(0, 20));
}

// Throws Error where a bias is of no token of the model.
inline void check_logit_bias(const SamplingParams& p, int64_t vocab_size) {
  for (auto [id, bias] : p.logit_bias) {
    if (id >= vocab_size)
      throw Error("--logit-bias", "the model has no token " + std::to_string(id),
                  "its last one is " + std::to_string(vocab_size - 1));
  }
}

inline void add_speculate_flag(CLI::App* sub, Speculate& value) {
  std::map<std::string, Speculate> names;
  for (const SpeculateName& n : speculate_names()) names[n.name] = n.value;
  sub->add_option(
         "--speculate", value,
         "who drafts tokens that the model then checks, for speed alone: none, mtp (its own "
         "module) or ngram (the text so far)")
      ->transform(CLI::CheckedTransformer(names))
      ->default_str("none");
}

}  // namespace wels
