#include "text/bpe_trainer.h"

#include <gmock/gmock.h>

#include <map>

#include "base/error.h"
#include "base/rng.h"
#include "base/threads.h"
#include "text/test_files.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace wels {
namespace {

using Ids = std::vector<int32_t>;

// The definition, step by step and without any index: count all pairs, take the best, replace it
// everywhere.
std::vector<std::string> merges_by_definition(std::string_view text, const BpeTrainerOptions& o,
                                              size_t symbols) {
  VocabSource bytes;
  for (int b = 0; b < 256; ++b)
    bytes.tokens.push_back({bytes_to_text(std::string(1, static_cast<char>(b))), b});
  bytes.steps = o.steps;
  std::map<std::string, int> order;  // symbol → number
  std::map<uint32_t, std::string> by_char;
  for (int b = 0; b < 256; ++b)
    by_char[byte_to_char(static_cast<uint8_t>(b))] = std::string(1, static_cast<char>(b));
  for (auto& [c, s] : by_char) order.emplace(s, static_cast<int>(order.size()));
  std::vector<std::vector<std::string>> words;
  for (auto piece : Tokenizer(bytes).pieces(text)) {
    words.emplace_back();
    for (char c : piece) words.back().emplace_back(1, c);
  }
  std::vector<std::string> merges;
  while (order.size() < symbols) {
    std::map<std::pair<int, int>, int64_t> counts;
    std::map<int, std::string> text_of;
    for (auto& w : words) {
      for (size_t i = 0; i + 1 < w.size(); ++i) {
        text_of[order[w[i]]] = w[i];
        text_of[order[w[i + 1]]] = w[i + 1];
        ++counts[{order[w[i]], order[w[i + 1]]}];
      }
    }
    std::pair<int, int> best;
    int64_t most = o.min_count - 1;
    for (auto& [pair, count] : counts) {
      if (count > most) std::tie(best, most) = std::pair(pair, count);
    }
    if (most < o.min_count) break;
    std::string a = text_of[best.first], b = text_of[best.second];
    std::string line = bytes_to_text(a) + " " + bytes_to_text(b);
    if (std::find(merges.begin(), merges.end(), line) == merges.end()) merges.push_back(line);
    order.emplace(a + b, static_cast<int>(order.size()));
    for (auto& w : words) {
      std::vector<std::string> joined;
      for (size_t i = 0; i < w.size(); ++i) {
        bool here = i + 1 < w.size() && w[i] == a && w[i + 1] == b;
        joined.push_back(here ? a + b : w[i]);
        i += here;
      }
      w = joined;
    }
  }
  return merges;
}

std::vector<std::string> merge_texts(const VocabSource& s) {
  std::vector<std::string> out;
  for (const auto& m : s.merges)
    out.push_back(m.text.substr(0, m.left_size) + " " + m.text.substr(m.left_size));
  return out;
}

std::string toy_text(uint64_t seed, size_t words) {
  Rng rng(seed);
  std::string out;
  for (size_t i = 0; i < words; ++i) {
    for (uint64_t n = 1 + rng.below(7); n > 0; --n) out += "aab"[rng.below(3)];
    out += rng.below(9) ? " " : "\nb";
  }
  return out;
}

TEST(BpeTrainer, FollowsTheDefinition) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    std::string text = toy_text(seed, 400);
    std::string_view view = text;
    BpeTrainerOptions o;
    o.vocab_size = 256 + 60;
    VocabSource got = train_bpe({&view, 1}, o);
    EXPECT_EQ(merge_texts(got), merges_by_definition(text, o, 316)) << seed;
  }
}

TEST(BpeTrainer, ResultDoesNotDependOnThreadsOrOnHowTextIsHandedOver) {
  std::string text;
  for (uint64_t seed = 0; seed < 20; ++seed) text += toy_text(seed, 20000);
  ASSERT_GT(text.size(), size_t{1} << 20) << "long enough to be cut into chunks";
  std::string_view view = text;
  auto options = deepseek_style_options(500);
  int threads = thread_count();
  std::vector<std::string> written;
  for (int n : {1, 2, 5}) {
    set_thread_count(n);
    written.push_back(write_tokenizer_json(train_bpe({&view, 1}, options)));
  }
  set_thread_count(threads);
  EXPECT_EQ(written[0], written[1]);
  EXPECT_EQ(written[0], written[2]);
}

TEST(BpeTrainer, WritesWhatTheLoaderReads) {
  std::string text =
      toy_text(1, 3000) + "héllo wörld 中文中文 <｜User｜> \"quoted\\\" \t\x01\x7f\n";
  std::string_view view = text;
  VocabSource source = train_bpe({&view, 1}, deepseek_style_options(340));
  EXPECT_EQ(source.bos, 0);
  Tokenizer trained(source), loaded = Tokenizer::from_json(write_tokenizer_json(source));
  EXPECT_EQ(loaded.vocab_size(), 340);
  EXPECT_EQ(loaded.bos(), 0);
  EXPECT_EQ(loaded.eos(), 1);
  EXPECT_EQ(loaded.pad(), 2);
  EXPECT_EQ(loaded.find("<｜tool▁sep｜>"), 339);
  EXPECT_EQ(loaded.encode(text), trained.encode(text));
  EXPECT_EQ(loaded.decode(loaded.encode(text)), text);
  EXPECT_LT(loaded.encode(text).size(), text.size() / 2);
  EXPECT_THAT(loaded.encode("a<think>"), testing::ElementsAre(testing::_, *loaded.find("<think>")));
  std::string any;
  for (int b = 0; b < 256; ++b) any += static_cast<char>(b);
  EXPECT_EQ(loaded.decode(loaded.encode(any)), any);
}

TEST(BpeTrainer, StopsWhenNoPairIsLeft) {
  std::string_view view = "abab abab";
  BpeTrainerOptions o;
  o.vocab_size = 10000;
  VocabSource s = train_bpe({&view, 1}, o);
  EXPECT_THAT(merge_texts(s), testing::ElementsAre("a b", "ab ab"));
  EXPECT_EQ(Tokenizer(s).vocab_size(), 258);
}

TEST(BpeTrainer, RespectsTheLongestToken) {
  std::string text(100000, 'a');
  std::string_view view = text;
  BpeTrainerOptions o;
  o.vocab_size = 300;
  o.max_token_bytes = 16;
  for (const auto& t : train_bpe({&view, 1}, o).tokens) EXPECT_LE(t.text.size(), 16u);
}

TEST(BpeTrainer, RefusesWhatCannotBe) {
  std::string_view empty;
  EXPECT_THROW(train_bpe({&empty, 1}, deepseek_style_options(1000)), Error);
  EXPECT_THROW(train_bpe(std::span<const std::string_view>(), deepseek_style_options(1000)), Error);
  EXPECT_THROW(train_characters({&empty, 1}), Error);
  std::string_view some = "text";
  EXPECT_THROW(train_bpe({&some, 1}, deepseek_style_options(270)), Error);
}

TEST(BpeTrainer, CharacterModeHasOneTokenPerCharacter) {
  std::string_view view = "hello wörld\n中\xFF";
  VocabSource s = train_characters({&view, 1});
  Tokenizer t = Tokenizer::from_json(write_tokenizer_json(s));
  EXPECT_EQ(t.vocab_size(), 12);
  EXPECT_EQ(t.encode(view).size(), 14u);
  EXPECT_EQ(t.decode(t.encode(view)), view);
  EXPECT_EQ(t.encode("\n d"), (Ids{0, 1, 2})) << "in order of code points";
  EXPECT_EQ(t.encode("ö"), Ids{9});
  EXPECT_THROW(t.encode("ü"), Error);
}

TEST(BpeTrainer, TinyShakespeareHas65Characters) {
  const char* folder = std::getenv("WELS_DATA");
  std::string path = std::string(folder ? folder : "../shared/data") + "/tinyshakespeare.txt";
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) GTEST_SKIP() << path << " is not there (set WELS_DATA)";
  std::string text = read_file(path);
  std::string_view view = text;
  Tokenizer t(train_characters({&view, 1}));
  EXPECT_EQ(t.vocab_size(), 65);
  auto ids = t.encode(text);
  EXPECT_EQ(ids.size(), text.size());
  EXPECT_EQ(t.decode(ids), text);
}

}  // namespace
}  // namespace wels
