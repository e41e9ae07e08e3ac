// How well a model predicts texts: `wels eval MODEL TEXT`, and every command that compares models
// on held-out text.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "apps/loaded_model.h"

namespace wels {

// What was read of the texts.
struct ReadText {
  int64_t bytes = 0;
  bool stopped = false;
};

// The texts' documents as tokens, in windows of `sequence` that start afresh: window(ids) with the
// token before the first that is predicted (at a document's beginning `before`, the tokenizer's
// document_begin; none: the first token is not predicted). encode: a piece of a document. Holds one
// piece and one window. stop: asked after each; true ends it early; may be empty.
ReadText each_window(const std::vector<std::string>& files, std::optional<int32_t> before,
                     int64_t sequence, const std::function<bool()>& stop,
                     const std::function<std::vector<int32_t>(std::string_view)>& encode,
                     const std::function<void(std::span<const int32_t>)>& window);

struct TextEvaluation {
  double bits_per_byte = 0, nats_per_token = 0;
  int64_t tokens = 0;
  ReadText read;
};

// sequence: tokens of a window; 0: 1024, or the model's longest. Throws Error where the model has
// no tokenizer or its log-probabilities are not finite, and as CorpusReader does.
TextEvaluation evaluate_text(LoadedModel& m, const std::vector<std::string>& files,
                             int64_t sequence, const std::function<bool()>& stop = {});

// Throws Error where more is asked for than the longest.
int64_t window_length(int64_t asked, int64_t longest);

}  // namespace wels
