// The sampling and speculation flags of generate and chat.
#pragma once
#include <CLI/CLI.hpp>

#include <map>
#include <string>

#include "engine/draft.h"
#include "engine/sampler.h"

namespace wels {

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
