#include "train/pretrain.h"

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/test_folder.h"
#include "data/prepare.h"
#include "model/tiny_config_test.h"
#include "text/bpe_trainer.h"

namespace wels {
namespace {

// Bytes that a run of two steps holds when it ends, its largest buffers among them.
int64_t bytes_of_run(int64_t micro_batch_tokens) {
  TestFolder f;
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "line " + std::to_string(i) + "\n";
  std::string_view views[] = {text};
  std::string json = write_tokenizer_json(train_characters(views));
  Tokenizer tokenizer = Tokenizer::from_json(json, "tokenizer.json");
  TextEncoder encoder = text_encoder(tokenizer);
  PrepareOptions options;
  options.split.share = 0.5;
  Prepared shards = prepare({f.file("a.txt", text)}, encoder, f / "tokens", options);
  TokenShard train(shards.train, encoder.vocab, encoder.hash),
      validation(shards.validation, encoder.vocab, encoder.hash);
  auto dev = make_device("ref");
  Model model(tiny_dense_config(tokenizer.vocab_size()));
  model.init(DType::kF32, 1, true);
  PretrainSettings s;
  s.out = f / "run";
  s.schedule.steps = 2;
  s.sequence_length = 16;
  s.batch_tokens = 32;
  s.micro_batch_tokens = micro_batch_tokens;
  s.eval_sequences = 64;
  s.quiet = true;
  int64_t held = 0;
  pretrain({.dev = *dev,
            .model = model,
            .tokenizer = tokenizer,
            .tokenizer_json = json,
            .train = train,
            .validation = validation,
            .sample = {},
            .report = [&](int64_t) { held = host_bytes(); }},
           s);
  return held;
}

TEST(Pretrain, AnEvaluationTakesNoMoreRowsAtOnceThanAStep) {
  EXPECT_EQ(bytes_of_run(1 << 20), bytes_of_run(32));
}

}  // namespace
}  // namespace wels
