// Training examples: conversations and texts as tokens (text/chat_training.h), from files or made
// as they are asked for; their order, and how several share a micro-batch.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_record.h"
#include "tensor/batch.h"
#include "text/chat_training.h"

namespace wels {

// Where examples come from. Example i is the same whenever it is asked for; several threads may ask
// at once.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  virtual int64_t size() const = 0;  // -1: as many as are asked for
  virtual TrainingTokens example(int64_t i) const = 0;
  // Changes when any example does: a run goes on only with what it began with.
  virtual uint64_t hash() const = 0;
};

// Examples in memory, 5 bytes a token.
class StoredExamples : public ExampleSource {
 public:
  void add(const TrainingTokens& tokens);
  int64_t size() const override { return static_cast<int64_t>(begins_.size()) - 1; }
  TrainingTokens example(int64_t i) const override;
  uint64_t hash() const override { return hash_; }
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }

 private:
  std::vector<int32_t> ids_;
  std::vector<uint8_t> learned_;
  std::vector<int64_t> begins_{0};
  uint64_t hash_ = 0;
};

struct ChatDataOptions {
  std::optional<ChatTemplate> chat_template;  // none: plain texts, for base models
  int64_t longest = 4096;                     // tokens of an example
  bool cut = true;         // longer ones lose their end; false: they are left out
  double held_out = 0.02;  // share of the questions, by hash
};

struct ChatDataStats {
  int64_t records = 0, tokens = 0, learned = 0;     // of the examples that are used, both parts
  int64_t cut = 0, too_long = 0, nothing_left = 0;  // nothing_left: cut before what is learned
  std::string summary() const;  // "1,200 examples, 84k tokens, 31k of them learned; 3 cut"
};

struct ChatData {
  StoredExamples train, held_out;
  ChatDataStats stats;
};

// Reads JSONL files (data/chat_record.h says what lines may be) and encodes them on all threads.
// Throws Error naming file and line for what cannot be used, and where nothing is left to train on.
ChatData read_chat_data(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                        const ChatDataOptions& options);

// Whether a question is among the share that is held out.
bool in_held_out_share(uint64_t question_hash, double share);

// Number of the example that is drawn as the i-th of a run: i itself of an endless source; of n
// examples each once an epoch, every epoch in an order of its own.
int64_t drawn_example(int64_t i, int64_t n, uint64_t seed);

// Groups of items, each of at most `most` in sum (an item that is larger has its own): the largest
// first, each into the fullest group that has room. Items of a group ascend.
std::vector<std::vector<int64_t>> best_fit(const std::vector<int64_t>& sizes, int64_t most);

// Appends an example of at least two tokens as a segment of its own, a row for each token but the
// last. Targets: the next token where it is learned, else -1.
void append_example(const TrainingTokens& tokens, Batch& batch, std::vector<int32_t>& targets);

}  // namespace wels
