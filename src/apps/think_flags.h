// The flags of thinking at test time, which eval, generate and chat share.
#pragma once
#include <CLI/CLI.hpp>

#include "rl/rephrase.h"
#include "rl/think_bounds.h"

namespace wels {

inline void add_think_flags(CLI::App* sub, ThinkBounds& bounds) {
  sub->add_option("--think-budget", bounds.most, "tokens of a thought, then it is ended")
      ->check(CLI::NonNegativeNumber);
  sub->add_option(
         "--think-min", bounds.least,
         "tokens of a thought before which it goes on with --think-again instead of ending")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--think-again", bounds.again, "the words")->capture_default_str();
}

inline void add_rephrase_flag(CLI::App* sub, int64_t& count, const std::string& then) {
  sub->add_option("--rephrase", count,
                  "the model first says the question in so many other ways, which are " + then)
      ->check(CLI::Range(int64_t{0}, kMostAngles));
}

}  // namespace wels
