#include "data/examples.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <numeric>
#include <set>

#include "base/test_folder.h"
#include "text/bpe_trainer.h"

namespace wels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tokenizer byte_tokenizer() {
  std::vector<std::string_view> documents = {"text"};
  return Tokenizer(train_bpe(documents, deepseek_style_options(275)));
}

std::string pairs(int n, int answer_length) {
  std::string out;
  for (int i = 0; i < n; ++i)
    out += fmt::format("{{\"question\":\"q{}\",\"answer\":\"{}\"}}\n", i,
                       std::string(static_cast<size_t>(answer_length), 'a'));
  return out;
}

TEST(ChatData, IsSplitByQuestionAndCounted) {
  TestFolder folder;
  Tokenizer tokenizer = byte_tokenizer();
  std::string file = folder.file("a.jsonl", pairs(500, 3));
  ChatDataOptions o;
  o.chat_template = ChatTemplate::kDeepSeekV31;
  o.held_out = 0.1;
  ChatData data = read_chat_data({file}, tokenizer, o);
  EXPECT_EQ(data.train.size() + data.held_out.size(), 500);
  EXPECT_NEAR(static_cast<double>(data.held_out.size()), 50, 25);
  EXPECT_EQ(data.stats.records, 500);
  EXPECT_EQ(data.stats.learned, 500 * 4) << "three characters and the end of the sentence";
  ChatData again = read_chat_data({file}, tokenizer, o);
  EXPECT_EQ(again.train.hash(), data.train.hash());
  o.held_out = 0;
  EXPECT_NE(read_chat_data({file}, tokenizer, o).train.hash(), data.train.hash());
}

TEST(ChatData, CutsOrLeavesOutWhatIsTooLong) {
  TestFolder folder;
  Tokenizer tokenizer = byte_tokenizer();
  std::string file = folder.file("a.jsonl", pairs(10, 3) + pairs(1, 50));
  ChatDataOptions o;
  o.chat_template = ChatTemplate::kDeepSeekV31;
  o.held_out = 0;
  o.longest = 20;
  ChatData cut = read_chat_data({file}, tokenizer, o);
  EXPECT_EQ(cut.stats.cut, 1);
  EXPECT_EQ(cut.train.size(), 11);
  EXPECT_EQ(cut.train.example(10).size(), 20);
  EXPECT_THAT(cut.stats.summary(), HasSubstr("1 cut to the longest length"));
  o.cut = false;
  ChatData skip = read_chat_data({file}, tokenizer, o);
  EXPECT_EQ(skip.stats.too_long, 1);
  EXPECT_EQ(skip.train.size(), 10);
  o.longest = 7;  // the prompt alone has 7
  o.cut = true;
  EXPECT_THAT(error_of([&] { read_chat_data({file}, tokenizer, o); }),
              HasSubstr("11 left out: nothing of what is learned"));
}

TEST(ChatData, SaysWhichLineIsWrong) {
  TestFolder folder;
  Tokenizer tokenizer = byte_tokenizer();
  std::string file =
      folder.file("a.jsonl", pairs(3, 3) +
                                 "{\"messages\":[{\"role\":\"robot\",\"content\":"
                                 "\"x\"},{\"role\":\"assistant\",\"content\":\"y\"}]}\n");
  ChatDataOptions o;
  o.chat_template = ChatTemplate::kDeepSeekV31;
  EXPECT_THAT(error_of([&] { read_chat_data({file}, tokenizer, o); }),
              HasSubstr("a.jsonl:4: messages[0]: role 'robot' is unknown"));
}

TEST(DrawnExample, EveryEpochHasEveryExampleOnceInAnOrderOfItsOwn) {
  std::vector<std::vector<int64_t>> epochs(2);
  for (int64_t i = 0; i < 200; ++i)
    epochs[static_cast<size_t>(i / 100)].push_back(drawn_example(i, 100, 7));
  EXPECT_NE(epochs[0], epochs[1]);
  for (const auto& epoch : epochs)
    EXPECT_EQ(std::set<int64_t>(epoch.begin(), epoch.end()).size(), 100u);
  EXPECT_NE(drawn_example(0, 1000000, 7), drawn_example(0, 1000000, 8));
  EXPECT_EQ(drawn_example(123, -1, 7), 123);
}

TEST(BestFit, FillsGroupsWithinTheLimit) {
  EXPECT_THAT(best_fit({5, 4, 3, 3, 2, 2, 1}, 10),
              ElementsAre(ElementsAre(0, 1, 6), ElementsAre(2, 3, 4, 5)));
  EXPECT_THAT(best_fit({20, 3}, 10), ElementsAre(ElementsAre(0), ElementsAre(1)));
  EXPECT_TRUE(best_fit({}, 10).empty());
}

TEST(AppendExample, MakesASegmentWhoseTargetsAreLearnedTokensOnly) {
  Batch batch;
  std::vector<int32_t> targets;
  append_example({{1, 2, 3, 4}, {0, 0, 1, 1}}, batch, targets);
  append_example({{5, 6}, {0, 1}}, batch, targets);
  EXPECT_THAT(batch.tokens, ElementsAre(1, 2, 3, 5));
  EXPECT_THAT(batch.pos, ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(targets, ElementsAre(-1, 3, 4, 6));
  ASSERT_EQ(batch.segments.size(), 2u);
  EXPECT_EQ(batch.segments[1].row_begin, 3);
}

}  // namespace
}  // namespace wels
