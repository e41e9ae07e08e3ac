#include "data/shards.h"

#include <gmock/gmock.h>

#include <cstring>
#include <fstream>

#include "base/test_folder.h"
#include "base/rng.h"
#include "base/threads.h"
#include "data/prepare.h"
#include "data/sample.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

using testing::HasSubstr;

constexpr int32_t kEnd = 256, kFimBegin = 257, kFimHole = 258, kFimEnd = 259;
constexpr int64_t kVocab = 260;

void encode_bytes(std::string_view text, std::vector<int32_t>& out) {
  for (char c : text) out.push_back(static_cast<uint8_t>(c));
}

TextEncoder byte_encoder() {
  return {encode_bytes, kVocab, 77, kEnd, kFimBegin, kFimHole, kFimEnd};
}

std::vector<int32_t> ids_of(const TokenShard& s, int64_t begin, int64_t end) {
  std::vector<int32_t> out;
  for (int64_t i = begin; i < end; ++i) out.push_back(s.token(i));
  return out;
}

// The shard's documents as text; ids from 256 on as <id>.
std::vector<std::string> texts_of(const std::string& path) {
  TokenShard s(path, kVocab, 77);
  std::vector<std::string> out;
  for (int64_t d = 0; d < s.documents(); ++d) {
    out.emplace_back();
    for (int32_t id : ids_of(s, s.document_begin(d), s.document_begin(d + 1))) {
      out.back() +=
          id < 256 ? std::string(1, static_cast<char>(id)) : "<" + std::to_string(id) + ">";
    }
  }
  return out;
}

std::vector<std::string> many_documents(int n, uint64_t seed = 0) {
  Rng rng(seed);
  std::vector<std::string> out;
  for (int i = 0; i < n; ++i)
    out.push_back("document " + std::to_string(i) + std::string(rng.below(400), 'x') + "\n");
  return out;
}

std::string joined(const std::vector<std::string>& documents) {
  std::string out;
  for (const auto& d : documents) out += (out.empty() ? "" : "<|doc|>\n") + d;
  return out;
}

TEST(TokenShard, HoldsWhatWasWrittenNarrowAndWide) {
  for (int64_t vocab : {300, 65536, 65537, 129280}) {
    TestFolder f;
    auto top = static_cast<int32_t>(vocab - 1);
    ShardWriter w(f / "s", vocab, 1);
    w.append(std::vector<int32_t>{5, top}, 4);
    w.append(std::vector<int32_t>{7}, 2);
    w.end_document();
    w.end_document();  // an empty one leaves no trace
    w.append(std::vector<int32_t>{0}, 1);
    w.end_document();
    w.finish(11, 22);
    TokenShard s(f / "s", vocab, 11);
    EXPECT_EQ(s.documents(), 2);
    EXPECT_EQ(ids_of(s, 0, s.tokens()), (std::vector<int32_t>{5, top, 7, 1, 0, 1}));
    EXPECT_EQ(s.document_begin(1), 4);
    EXPECT_EQ(s.text_bytes(), 7);
    EXPECT_EQ(s.source_hash(), 22u);
    EXPECT_EQ(s.end_of_text(), 1);
    s.verify();
  }
}

TEST(TokenShard, NothingAppearsBeforeFinish) {
  TestFolder f;
  { ShardWriter w(f / "s", 10, -1); }
  EXPECT_TRUE(std::filesystem::is_empty(f.path()));
}

TEST(TokenShard, DamagedForeignAndTruncatedFilesAreErrors) {
  TestFolder f;
  ShardWriter w(f / "good", 300, 1);
  for (int d = 0; d < 3; ++d) {
    w.append(std::vector<int32_t>{2, 3, 4, 5, 6}, 5);
    w.end_document();
  }
  w.finish(11, 22);
  const std::string good = read_file(f / "good");
  auto open = [&](std::string bytes) {
    std::string path = f.file("bad", bytes);
    return error_of([&] { TokenShard(path, 300, 11).verify(); });
  };
  for (size_t n = 0; n < good.size(); n += 5)
    EXPECT_THAT(open(good.substr(0, n)), HasSubstr("/bad: "));
  EXPECT_THAT(open(good + "x"), HasSubstr("truncated or damaged"));
  EXPECT_THAT(open("WELSTOK9" + good.substr(8)), HasSubstr("this version"));
  std::string id = good;
  id[72 + 2 * 4] = '\xFF', id[72 + 2 * 4 + 1] = '\x7F';
  EXPECT_THAT(open(id), HasSubstr("holds token 32767, the vocabulary has 300"));
  id = good;
  id[72] = 9;  // another valid id
  EXPECT_THAT(open(id), HasSubstr("checksum"));
  std::string offsets = good;
  std::swap(offsets[good.size() - 8], offsets[good.size() - 16]);
  EXPECT_THAT(open(offsets), HasSubstr("do not ascend"));
  std::string huge = good;
  std::memset(huge.data() + 16, 0xFF, 16);  // tokens, documents: sums must not overflow
  EXPECT_THAT(open(huge), HasSubstr("contradicts"));
  EXPECT_THAT(error_of([&] { TokenShard(f / "good", 300, 12); }), HasSubstr("another tokenizer"));
  EXPECT_THAT(error_of([&] { TokenShard(f / "good", 301, 11); }),
              HasSubstr("vocabulary 300, here 301"));
  EXPECT_THAT(error_of([&] { TokenShard(f / "none", 300, 11); }), HasSubstr("/none"));
}

TEST(Prepare, EveryDocumentIsInExactlyOneShardWhole) {
  TestFolder f;
  auto documents = many_documents(2000);
  Prepared p = prepare({f.file("a.txt", joined(documents))}, byte_encoder(), f / "out");
  auto train = texts_of(p.train), validation = texts_of(p.validation);
  EXPECT_NEAR(static_cast<double>(validation.size()), 20, 15);
  std::vector<std::string> expected, got = train;
  for (const auto& d : documents) expected.push_back(d + "<256>");
  got.insert(got.end(), validation.begin(), validation.end());
  EXPECT_THAT(got, testing::UnorderedElementsAreArray(expected));
  EXPECT_TRUE(std::is_sorted(train.begin(), train.end(), [&](const auto& a, const auto& b) {
    return std::find(expected.begin(), expected.end(), a) <
           std::find(expected.begin(), expected.end(), b);
  })) << "in the corpus' order";
}

TEST(Prepare, ADocumentStaysOnItsSideWhenTheCorpusGrows) {
  TestFolder f;
  auto documents = many_documents(1000), more = many_documents(1000, 5);
  PrepareOptions o;
  o.split = {SplitRule::Kind::kHash, 0.05};
  auto before = texts_of(
      prepare({f.file("a.txt", joined(documents))}, byte_encoder(), f / "1", o).validation);
  for (auto& d : more) d = "new " + d;
  auto after = texts_of(
      prepare({f.file("b.txt", joined(more)), f / "a.txt"}, byte_encoder(), f / "2", o).validation);
  EXPECT_GT(after.size(), before.size());
  for (const auto& d : before) EXPECT_THAT(after, testing::Contains(d));
}

TEST(Prepare, AnyThreadCountGivesTheSameShards) {
  TestFolder f;
  std::string a = f.file("a.txt", joined(many_documents(300)));
  int threads = thread_count();
  Prepared many = prepare({a}, byte_encoder(), f / "1");
  set_thread_count(1);
  Prepared one = prepare({a}, byte_encoder(), f / "2");
  set_thread_count(threads);
  EXPECT_TRUE(read_file(many.train) == read_file(one.train));
  EXPECT_TRUE(read_file(many.validation) == read_file(one.validation));
}

TEST(Prepare, TheTailSplitIsNanoGptsToTheCharacter) {
  const char* data = std::getenv("WELS_DATA");
  std::string path = std::string(data ? data : "../shared/data") + "/tinyshakespeare.txt";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there (set WELS_DATA)";
  TestFolder f;
  PrepareOptions o;
  o.split = {SplitRule::Kind::kTail, 0.1};
  TextEncoder e = byte_encoder();
  e.end_of_text = -1;
  Prepared p = prepare({path}, e, f / "out", o);
  TokenShard train(p.train, kVocab, 77), validation(p.validation, kVocab, 77);
  EXPECT_EQ(train.tokens(), 1003854);
  EXPECT_EQ(validation.tokens(), 111540);
  EXPECT_EQ(texts_of(p.train)[0] + texts_of(p.validation)[0], read_file(path));
}

TEST(Prepare, TheTailSplitCountsCharactersAcrossDocuments) {
  TestFolder f;
  PrepareOptions o;
  o.split = {SplitRule::Kind::kTail, 0.25};
  Prepared p = prepare({f.file("a.txt", "漢字漢字漢字\n<|doc|>\nabc\n<|doc|>\nd")}, byte_encoder(),
                       f / "out", o);
  EXPECT_EQ(texts_of(p.train), (std::vector<std::string>{"漢字漢字漢字\n<256>", "ab<256>"}));
  EXPECT_EQ(texts_of(p.validation), (std::vector<std::string>{"c\n<256>", "d<256>"}));
}

TEST(Prepare, AGivenShareHoldsForFewDocumentsToo) {
  TestFolder f;
  std::string a = f.file("a.txt", joined(many_documents(20)));
  auto validating = [&](std::optional<double> share, const char* out) {
    PrepareOptions o;
    o.split.share = share;
    Prepared p = prepare({a}, byte_encoder(), f / out, o);
    auto part = static_cast<double>(TokenShard(p.validation, kVocab, 77).tokens());
    return part / (part + static_cast<double>(TokenShard(p.train, kVocab, 77).tokens()));
  };
  EXPECT_NEAR(validating({}, "1"), 0.1, 0.01);
  EXPECT_NEAR(validating(0.4, "2"), 0.4, 0.01);
}

TEST(Prepare, OneHugeDocumentGivesUpItsTail) {
  TestFolder f;
  std::string text;
  for (int i = 0; text.size() < 3'000'000; ++i) text += "line " + std::to_string(i) + "\n";
  PrepareOptions o;
  o.split = {SplitRule::Kind::kHash, 0.01};
  Prepared p = prepare({f.file("a.txt", text)}, byte_encoder(), f / "out", o);
  auto train = texts_of(p.train), validation = texts_of(p.validation);
  ASSERT_EQ(train.size(), 1u);
  ASSERT_EQ(validation.size(), 1u);
  EXPECT_EQ(static_cast<int64_t>(validation[0].size()),
            static_cast<int64_t>(text.size()) / 100 + 5);
  EXPECT_TRUE(train[0].substr(0, train[0].size() - 5) + validation[0] == text + "<256>");
}

TEST(Prepare, ShardsAreMadeAgainOnlyWhenSomethingChanged) {
  TestFolder f;
  std::string a = f.file("a.txt", joined(many_documents(100)));
  TextEncoder e = byte_encoder();
  EXPECT_FALSE(prepare({a}, e, f / "out").reused);
  EXPECT_TRUE(prepare({a}, e, f / "out").reused);
  f.file("copy/b.txt", read_file(a));
  EXPECT_TRUE(prepare({f / "copy/b.txt"}, e, f / "out").reused) << "content counts, names do not";
  e.hash = 78;
  EXPECT_FALSE(prepare({a}, e, f / "out").reused);
  PrepareOptions o;
  o.split = {SplitRule::Kind::kHash, 0.05};
  EXPECT_FALSE(prepare({a}, e, f / "out", o).reused);
  f.file("a.txt", joined(many_documents(101)));
  EXPECT_FALSE(prepare({a}, e, f / "out", o).reused);
  std::fstream(f / "out/train.tokens", std::ios::in | std::ios::out | std::ios::binary)
      .seekp(100)
      .write("zz", 2);
  EXPECT_FALSE(prepare({a}, e, f / "out", o).reused) << "damaged";
  EXPECT_TRUE(prepare({a}, e, f / "out", o).reused);
}

TEST(Prepare, FillInTheMiddleRearrangesItsShareOfTrainingDocuments) {
  TestFolder f;
  auto documents = many_documents(1500);
  for (auto& d : documents) d = "漢字é" + d;
  PrepareOptions o;
  o.fim_rate = 0.1;
  Prepared p = prepare({f.file("a.txt", joined(documents))}, byte_encoder(), f / "out", o);
  int fim = 0;
  for (const std::string& t : texts_of(p.train)) {
    size_t hole = t.find("<258>"), end = t.find("<259>");
    if (!t.starts_with("<257>")) continue;
    ++fim;
    ASSERT_TRUE(hole < end && end != t.npos && t.ends_with("<256>"));
    std::string pre = t.substr(5, hole - 5), suf = t.substr(hole + 5, end - hole - 5),
                mid = t.substr(end + 5, t.size() - end - 10);
    EXPECT_THAT(documents, testing::Contains(pre + mid + suf));
  }
  EXPECT_NEAR(fim, 150, 40);
  EXPECT_EQ(p.fim_documents, fim);
  for (const std::string& t : texts_of(p.validation)) EXPECT_FALSE(t.starts_with("<257>"));
  TextEncoder without = byte_encoder();
  without.fim_hole = -1;
  EXPECT_THAT(error_of([&] { prepare({f / "a.txt"}, without, f / "out2", o); }),
              HasSubstr("no fill-in-the-middle tokens"));
}

TEST(Prepare, BadCorporaAndFoldersLeaveOldShardsAlone) {
  TestFolder f;
  std::string a = f.file("a.txt", joined(many_documents(100)));
  Prepared p = prepare({a}, byte_encoder(), f / "out");
  auto before = texts_of(p.train);
  std::string bad = f.file("bad.jsonl", "{\"text\": \"fine\"}\n{oops\n");
  EXPECT_THAT(error_of([&] {
                prepare({a, bad}, byte_encoder(), f / "out");
              }),
              HasSubstr("bad.jsonl:2: "));
  EXPECT_THAT(error_of([&] { prepare({f.file("one.txt", "x")}, byte_encoder(), f / "out"); }),
              HasSubstr("too little text"));
  EXPECT_EQ(texts_of(p.train), before);
  EXPECT_FALSE(std::filesystem::exists(p.train + ".tmp"));
  EXPECT_THAT(error_of([&] { prepare({a}, byte_encoder(), a + "/out"); }), HasSubstr("a.txt"));
  PrepareOptions o;
  o.split.share = 0.7;
  EXPECT_THAT(error_of([&] { prepare({a}, byte_encoder(), f / "out", o); }), HasSubstr("0.7"));
}

TEST(Prepare, WatchSeesEveryStageReachItsEnd) {
  TestFolder f;
  PrepareOptions o;
  std::vector<DataProgress> ends;
  o.watch = [&](const DataProgress& p) {
    if (p.done == p.total) ends.push_back(p);
    return true;
  };
  Prepared p =
      prepare({f.file("a.txt", joined(many_documents(200)))}, byte_encoder(), f / "out", o);
  ASSERT_GE(ends.size(), 3u);
  EXPECT_EQ(ends.front().stage, "checking");
  EXPECT_EQ(ends.back().stage, "encoding");
  EXPECT_DOUBLE_EQ(ends.back().total, static_cast<double>(p.stats.bytes) / 1e6);
}

TEST(Prepare, StoppedAtAnyStageLeavesOldShardsAndNoRemains) {
  TestFolder f;
  Prepared old = prepare({f.file("a.txt", joined(many_documents(100)))}, byte_encoder(), f / "out");
  std::string before = read_file(old.train);
  std::string b = f.file("b.txt", joined(many_documents(150, 3)));
  for (std::string_view stage : {"checking", "counting", "encoding"}) {
    PrepareOptions o;
    o.watch = [&](const DataProgress& p) { return p.stage != stage; };
    Prepared p = prepare({b}, byte_encoder(), f / "out", o);
    EXPECT_TRUE(p.stopped && !p.reused) << stage;
    EXPECT_TRUE(read_file(old.train) == before) << stage;
    EXPECT_FALSE(std::filesystem::exists(old.train + ".tmp")) << stage;
  }
  EXPECT_FALSE(prepare({b}, byte_encoder(), f / "out").stopped);
}

TEST(Prepare, ARunThatGoesOnRefusesAnotherCorpus) {
  TestFolder f;
  std::string a = f.file("a.txt", joined(many_documents(100)));
  PrepareOptions o;
  Prepared p = prepare({a}, byte_encoder(), f / "out");
  std::string before = read_file(p.train);
  o.expected_source = TokenShard(p.train, kVocab, 77).source_hash();
  EXPECT_TRUE(prepare({a}, byte_encoder(), f / "out", o).reused);
  std::filesystem::remove(p.train);
  EXPECT_FALSE(prepare({a}, byte_encoder(), f / "out", o).reused) << "made again";
  EXPECT_TRUE(read_file(p.train) == before);
  f.file("a.txt", joined(many_documents(101)));
  EXPECT_THAT(error_of([&] { prepare({a}, byte_encoder(), f / "out", o); }),
              HasSubstr("is not what this run was started with"));
  EXPECT_TRUE(read_file(p.train) == before);
}

TEST(Sample, IsTheWholeCorpusWhereItFitsAndASpreadPartInAnyOrderElse) {
  TestFolder f;
  auto documents = many_documents(2000);
  std::string a = f.file("a.txt", joined(documents)),
              b = f.file("b.txt", joined(many_documents(2000, 7)) + "other");
  TextSample whole = sample_corpus({a}, 1 << 20);
  EXPECT_THAT(whole.pieces, testing::UnorderedElementsAreArray(documents));
  EXPECT_EQ(whole.bytes, whole.stats.bytes);
  TextSample part = sample_corpus({a, b}, 100'000), turned = sample_corpus({b, a}, 100'000);
  EXPECT_THAT(part.pieces, testing::UnorderedElementsAreArray(turned.pieces));
  EXPECT_LE(part.bytes, 100'000);
  EXPECT_GE(part.bytes, 99'000);
  int64_t of_a = 0;
  for (const std::string& p : part.pieces)
    of_a += std::find(documents.begin(), documents.end(), p) != documents.end();
  EXPECT_NEAR(static_cast<double>(of_a) / static_cast<double>(part.pieces.size()), 0.5, 0.1);
  EXPECT_EQ(part.stats.documents, 4000);
  TextSample stopped = sample_corpus({a}, 1 << 20, [](const DataProgress&) { return false; });
  EXPECT_TRUE(stopped.stopped && stopped.pieces.empty());
}

// Pieces must encode as the whole document does, with a real tokeniser.
TEST(Prepare, ARealTokenizerCutsLongDocumentsLikeWholeOnes) {
  const char* env = std::getenv("WELS_TOKENIZERS");
  std::string folder = env ? env : "../shared/tokenizers";
  std::string found;
  std::error_code ec;
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder, ec)) {
    if (e.path().filename() == "tokenizer.json" &&
        e.path().string().find("eepseek") != std::string::npos)
      found = e.path().string();
  }
  if (found.empty())
    GTEST_SKIP() << "no DeepSeek tokenizer.json under " << folder << " (set WELS_TOKENIZERS)";
  Tokenizer tokenizer = Tokenizer::load(found);
  TextEncoder e = text_encoder(tokenizer);
  Rng rng(1);
  std::string text;
  while (text.size() < 2'400'000) {
    for (uint64_t w = rng.below(12); w > 0; --w)
      text += " word" + std::to_string(rng.below(5000)) + (rng.below(9) ? "" : ",\t");
    text += std::string(1 + rng.below(3), '\n') + std::string(rng.below(4) ? 0 : rng.below(5), ' ');
  }
  TestFolder f;
  PrepareOptions o;
  o.split = {SplitRule::Kind::kHash, 0.3};
  Prepared p = prepare({f.file("a.txt", text), f.file("b.txt", "a short one to validate\n")}, e,
                       f / "out", o);
  TokenShard train(p.train, e.vocab, e.hash);
  std::vector<int32_t> whole = tokenizer.encode(text, AddedTokens::kAsText);
  if (e.end_of_text >= 0) whole.push_back(e.end_of_text);
  EXPECT_TRUE(ids_of(train, 0, train.tokens()) == whole);
}

}  // namespace
}  // namespace wels
