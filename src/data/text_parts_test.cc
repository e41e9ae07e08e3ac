// Parts of documents: nothing is lost, none is too long, what is held out is held out.
#include "data/text_parts.h"

#include <gmock/gmock.h>

#include "base/test_folder.h"
#include "base/error.h"
#include "base/file.h"
#include "data/corpus.h"
#include "data/examples.h"
#include "text/bpe_trainer.h"

namespace wels {
namespace {

const Tokenizer& tokenizer() {
  static const std::vector<std::string_view> text = {"the cat sat on the mat, the cat sat"};
  static const Tokenizer t(train_bpe(text, deepseek_style_options(300)));
  return t;
}

int64_t tokens_of(std::string_view text) {
  return static_cast<int64_t>(tokenizer().encode(text, AddedTokens::kAsText).size());
}

bool goes_on() { return true; }

TEST(CutText, PartsJoinToTheTextAndNoneIsTooLong) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "the cat sat on mat " + std::to_string(i * i) + "\n";
  text += std::string(300, 'x') + "一二三四五六七八九十一二三四五六七八九十 the end";
  for (int64_t longest : {1, 7, 30, 1000}) {
    std::string all;
    for (const std::string& part : cut_text(text, tokenizer(), longest)) {
      // A character of several tokens is not cut.
      EXPECT_LE(tokens_of(part), std::max<int64_t>(longest, 3)) << part;
      all += part;
    }
    EXPECT_EQ(all, text);
  }
}

TEST(CutText, EndsPartsAtLinesWhereTheyFit) {
  std::vector<std::string> parts = cut_text("the cat\nthe mat\nthe cat\n", tokenizer(),
                                            tokens_of("the cat\n") + tokens_of("the mat\n"));
  EXPECT_EQ(parts, (std::vector<std::string>{"the cat\nthe mat\n", "the cat\n"}));
}

struct TextParts : testing::Test {
  TestFolder folder;
  std::vector<TextPart> read(int64_t longest) {
    return read_text_parts(list_corpus({folder.path()}), tokenizer(), longest, goes_on);
  }
  void write(int n) {
    for (int i = 0; i < n; ++i) {
      std::string number = std::to_string(1000 + i);
      write_file_atomic(folder.path() + "/" + number + ".txt",
                        "the cat " + number + "\nsat on mat " + number + "\n");
    }
  }
};

TEST_F(TextParts, ADocumentEndsWithItsLastPartOnly) {
  write(3);
  std::vector<TextPart> parts = read(tokens_of("sat on mat 1000\n"));
  ASSERT_EQ(parts.size(), 6u);
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].ends, i % 2 == 1);
    EXPECT_EQ(parts[i].document, static_cast<int64_t>(i / 2));
  }
  EXPECT_EQ(json_lines_of({parts[1]}), "{\"text\":\"sat on mat 1000\\n\"}\n");
  EXPECT_EQ(json_lines_of({parts[0]}), "{\"text\":\"the cat 1000\\n\",\"ends\":false}\n");
}

TEST_F(TextParts, WholeDocumentsAreHeldOutWhereThereAreMany) {
  write(60);
  HeldOutParts h = hold_out(read(tokens_of("sat on mat 1000\n")), 0.2, "docs");
  std::set<int64_t> held;
  for (const TextPart& p : h.held_out) held.insert(p.document);
  EXPECT_GT(held.size(), 3u);
  EXPECT_LT(held.size(), 30u);
  for (const TextPart& p : h.train) EXPECT_FALSE(held.contains(p.document));
  EXPECT_EQ(h.train.size() + h.held_out.size(), 120u);
}

TEST_F(TextParts, TheEndIsHeldOutWhereThereAreFew) {
  write(3);
  HeldOutParts h = hold_out(read(tokens_of("sat on mat 1000\n")), 0.2, "docs");
  ASSERT_EQ(h.held_out.size(), 1u);
  EXPECT_EQ(h.held_out[0].text, "sat on mat 1002\n");
  EXPECT_EQ(h.train.size(), 5u);
  EXPECT_THROW(hold_out(read(1000).empty() ? std::vector<TextPart>() : std::vector<TextPart>(1),
                        0.2, "docs"),
               Error);
}

TEST_F(TextParts, ASampleIsSpreadOverTheCorpusAndTheSameEveryTime) {
  write(400);
  auto files = list_corpus({folder.path()});
  std::vector<TextPart> a = sample_text_parts(files, tokenizer(), 100, 3000, goes_on);
  EXPECT_GE(bytes_of(a), 3000);
  EXPECT_LT(bytes_of(a), 3100);
  int64_t first_half = 0;
  for (const TextPart& p : a) first_half += p.document < 200;
  EXPECT_GT(first_half, static_cast<int64_t>(a.size()) / 4);
  EXPECT_LT(first_half, static_cast<int64_t>(a.size()) * 3 / 4);
  EXPECT_EQ(json_lines_of(a),
            json_lines_of(sample_text_parts(files, tokenizer(), 100, 3000, goes_on)));
  int64_t all = bytes_of(sample_text_parts(files, tokenizer(), 100, 1'000'000, goes_on));
  EXPECT_EQ(all, bytes_of(read(100)));
}

TEST_F(TextParts, AreLearnedWithoutAnEndWhereTheTextGoesOn) {
  write_file_atomic(folder.path() + "/parts.jsonl",
                    "{\"text\": \"the cat\", \"ends\": false}\n{\"text\": \"the mat\"}\n");
  ChatData data = read_chat_data({folder.path() + "/parts.jsonl"}, tokenizer(), {.held_out = 0});
  EXPECT_NE(data.train.example(0).ids.back(), *tokenizer().eos());
  EXPECT_EQ(data.train.example(1).ids.back(), *tokenizer().eos());
}

}  // namespace
}  // namespace wels
