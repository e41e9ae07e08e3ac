// Divergence: how far a model's predictions are from a reference's over the same text; what people
// judge a quantisation by. KL(reference || model) = sum over the vocabulary of p · (log p - log q),
// p of the reference, q of the model, in nats, for every token of the text.
//
// Logits exist for kRows tokens at a time on either side. What stays of a token is its divergence,
// 4 bytes, for the quantiles; everything else is a sum.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace wels {

// Of one place in the text.
struct LogitDivergence {
  double kl = 0;                        // >= 0; NaN where a logit is not finite
  double reference_logp = 0, logp = 0;  // of `target`
  bool same_top = false;                // both hold the same token for the likeliest
};
// reference, model: logits of v tokens. Exactly 0 where both are equal; exponentials in f32 and
// sums in f64, so about 1e-7 of the mean difference of the logits.
LogitDivergence compare_logits(const float* reference, const float* model, int64_t v,
                               int32_t target);

// A mean over tokens and its standard error, as if tokens were independent.
struct TokenMean {
  double value = 0, standard_error = 0;
};

struct DivergenceReport {
  int64_t tokens = 0;
  double reference_perplexity = 0, perplexity = 0;
  TokenMean ratio;            // of the perplexities: model over reference
  TokenMean logp_difference;  // log q - log p of the text's own tokens
  // With KL only:
  TokenMean kl;
  double kl_median = 0, kl_99 = 0, kl_max = 0;
  TokenMean same_top;          // share of tokens
  double rms_probability = 0;  // root mean square of q - p of the text's own tokens
};

class Divergence {
 public:
  // Whose predictions they are. They outlive the Divergence.
  struct Side {
    Device& dev;
    Model& model;
    DType dtype;                      // of activations
    std::string name;                 // for messages
    std::optional<DType> cache = {};  // attends over a KV cache of this type
  };
  // with_kl false: perplexities only, which need no logits. (Logits are those of generating; where
  // the head is quantised they round its input to int8, which log-probabilities alone do not.) Both
  // vocabularies must be of one size (CHECK).
  Divergence(const Side& reference, const Side& model, bool with_kl);

  // One sequence from an empty context: ids[1..] are predicted. At least two tokens. Throws Error
  // where a side's log-probabilities are not finite.
  void add(std::span<const int32_t> ids);

  int64_t tokens() const { return tokens_; }
  DivergenceReport report() const;

  static constexpr int64_t kRows = 64;

 private:
  struct Sum {
    double sum = 0, squares = 0;
    void add(double x) {
      sum += x;
      squares += x * x;
    }
    TokenMean mean(int64_t n) const;
  };
  struct Half {
    Side side;
    Pool pool;
    std::vector<float> logits = {};
    double nats = 0;
  };
  Var hidden(Half& half, const Batch& batch);
  void load_logits(Half& half, const Var& h, int64_t begin, int64_t n);
  std::vector<float> token_logps(Half& half, const Var& h, std::span<const int32_t> targets);
  void take(const LogitDivergence& d);

  Half reference_, model_;
  bool with_kl_;
  int64_t tokens_ = 0, same_top_ = 0;
  Sum difference_, kl_;
  double probability_squares_ = 0;
  std::vector<float> kls_;
};

}  // namespace wels
