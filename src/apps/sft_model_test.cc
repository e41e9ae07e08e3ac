#include "apps/sft_model.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/test_folder.h"
#include "formats/hf_config.h"
#include "model/tiny_config_test.h"
#include "text/bpe_trainer.h"
#include "text/vocab_source.h"

namespace wels {
namespace {

// A base as `wels pretrain` leaves it states no chat template; the checkpoints of a fine-tuned one
// do, and their documents begin with bos.
TEST(SftModel, DocumentsBeginAsThoseOfItsCheckpointsWill) {
  TestFolder folder;
  const std::string& base = folder.path();
  static const std::vector<std::string_view> text{"the cat sat on the mat"};
  std::string vocab = write_tokenizer_json(train_bpe(text, deepseek_style_options(280)));
  write_file_atomic(base + "/tokenizer.json", vocab);
  write_file_atomic(base + "/config.json", to_hf_config(tiny_moe_config(280)));
  Tokenizer before = Tokenizer::load(base);
  ASSERT_NE(before.document_begin(), before.bos());

  SftModelFlags flags;
  flags.path = base;
  SftModel tuned = open_checkpoint(flags);
  std::string checkpoint = base + "/tuned";
  make_folder(checkpoint);
  for (const auto& [name, content] : tuned.files)
    write_file_atomic(checkpoint + "/" + name, content);
  Tokenizer after = Tokenizer::load(checkpoint);
  EXPECT_EQ(after.document_begin(), after.bos());
  EXPECT_EQ(tuned.tokenizer->document_begin(), after.document_begin());

  flags.lora.rank = 2;
  EXPECT_EQ(open_checkpoint(flags).tokenizer->document_begin(), after.document_begin());
  flags.lora.rank = 0;
  flags.chat_template = "none";
  EXPECT_EQ(open_checkpoint(flags).tokenizer->document_begin(), before.document_begin());
}

}  // namespace
}  // namespace wels
