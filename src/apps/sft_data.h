// What `wels sft` learns from: files of chats or texts, or generated tasks; and the vocabulary of a
// new model, learned from the same examples.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/task_examples.h"
#include "data/examples.h"
#include "tasks/task.h"

namespace wels {

struct SftDataFlags {
  std::vector<std::string> files;
  std::string task, overlong = "cut";
  double p_cot = 0.2, p_stop = 0, held_out = 0.02;
  void add(CLI::App* sub);  // all but the files
};

// Training and held-out examples. With a mixture the sources refer to it.
struct SftData {
  std::unique_ptr<TaskMixture> mixture;
  std::unique_ptr<ExampleSource> train, held_out;
  std::string about;  // one line
};
// seed: of generated examples. Throws Error for neither or both kinds of data, and what is wrong
// with them.
SftData open_sft_data(const SftDataFlags& f, const Tokenizer& tokenizer,
                      std::optional<ChatTemplate> chat_template, int64_t longest, uint64_t seed);

// tokenizer.json of a byte-level BPE vocabulary of `vocab` tokens at most, learned from the data's
// texts (of files the first 64 MB), DeepSeek's markers in it; every digit is a token of its own, so
// that numbers are written the same wherever they stand.
std::string learn_tokenizer(const SftDataFlags& f, int64_t vocab, uint64_t seed);

}  // namespace wels
