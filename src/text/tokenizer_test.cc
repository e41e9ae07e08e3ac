#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/rng.h"
#include "text/test_files.h"
#include "text/unicode.h"

namespace wels {
namespace {

using Ids = std::vector<int32_t>;
using testing::HasSubstr;

const Tokenizer& tokenizer(const std::string& name) {
  static std::map<std::string, Tokenizer> loaded;
  auto it = loaded.find(name);
  if (it == loaded.end()) it = loaded.emplace(name, Tokenizer::load(fixture(name))).first;
  return it->second;
}

void check_vectors(const Tokenizer& t, const std::string& file) {
  SCOPED_TRACE(file);
  auto vectors = read_jsonl(file);
  EXPECT_FALSE(vectors.empty());
  for (const auto& v : vectors) {
    auto text = v["text"].get<std::string>();
    auto ids = t.encode(text);
    ASSERT_EQ(ids, v["ids"].get<Ids>()) << v.dump();
    ASSERT_EQ(t.decode(ids), v.value("decoded", text)) << v.dump();
    StreamDecoder stream(t, false);
    std::string streamed;
    for (int32_t id : ids) streamed += stream.push(id);
    ASSERT_EQ(streamed + stream.finish(), v.value("decoded", text)) << v.dump();
  }
}

void check_decode_vectors(const Tokenizer& t, const std::string& file) {
  SCOPED_TRACE(file);
  auto vectors = read_jsonl(file);
  EXPECT_FALSE(vectors.empty());
  for (const auto& v : vectors) {
    auto ids = v["ids"].get<Ids>();
    bool skip = v["skip_special_tokens"];
    ASSERT_EQ(utf8_lossy(t.decode(ids, skip)), v["text"].get<std::string>()) << v.dump();
    StreamDecoder stream(t, skip);
    std::string streamed;
    for (int32_t id : ids) streamed += stream.push(id);
    ASSERT_EQ(streamed + stream.finish(), v["text"].get<std::string>()) << v.dump();
  }
}

// Every folder with a tokenizer.json, whatever its name.
TEST(Tokenizer, EncodesAndDecodesEveryVectorOfEveryFolder) {
  std::vector<std::string> folders = folders_with("tokenizer.json");
  SKIP_IF_NONE(folders, "*/tokenizer.json");
  size_t files = 0;
  for (const std::string& folder : folders) {
    for (const char* file : {"vectors.jsonl", "decode_vectors.jsonl"}) {
      std::string name = folder + "/" + file;
      if (!have_fixture(name)) continue;
      ++files;
      std::string_view(file) == "vectors.jsonl" ? check_vectors(tokenizer(folder), name)
                                                : check_decode_vectors(tokenizer(folder), name);
    }
  }
  if (files == 0)
    GTEST_SKIP() << "no */vectors.jsonl or */decode_vectors.jsonl beside a tokenizer.json in "
                 << fixture("") << " (set WELS_TOKENIZERS)";
}

TEST(Tokenizer, NormalisesWithTheTablesOfTheReference) {
  std::vector<std::string> folders = folders_with("disagree.jsonl");
  SKIP_IF_NONE(folders, "*/disagree.jsonl");
  for (const std::string& folder : folders) {
    for (const auto& v : read_jsonl(folder + "/disagree.jsonl")) {
      EXPECT_EQ(tokenizer(folder).encode(v["text"].get<std::string>()), v["ids"].get<Ids>())
          << folder << v.dump();
    }
  }
}

TEST(Tokenizer, FindsTheThinkTokensOfR1) {
  std::vector<std::string> folders = folders_with("think_vectors.jsonl");
  SKIP_IF_NONE(folders, "*/think_vectors.jsonl");
  for (const std::string& folder : folders) {
    auto json = nlohmann::json::parse(read_file(fixture(folder + "/tokenizer.json")));
    for (auto& token : json["added_tokens"]) {
      int id = token["id"];
      if (id != 128798 && id != 128799) continue;
      token["content"] = id == 128798 ? "<think>" : "</think>";
      token["normalized"] = true;
      token["special"] = false;
    }
    check_vectors(Tokenizer::from_json(json.dump()), folder + "/think_vectors.jsonl");
  }
}

TEST(Tokenizer, KnowsItsSpecialTokens) {
  SKIP_WITHOUT("deepseek_v3");
  const Tokenizer& t = tokenizer("deepseek_v3");
  EXPECT_EQ(t.vocab_size(), 128815);
  EXPECT_EQ(t.bos(), 0);
  EXPECT_EQ(t.eos(), 1);
  EXPECT_EQ(t.pad(), 1) << "tokenizer_config.json says so";
  EXPECT_EQ(t.find("<｜User｜>"), 128803);
  EXPECT_FALSE(t.is_special(128803));
  EXPECT_EQ(t.find(" the"), t.encode(" the")[0]);
  EXPECT_EQ(t.find("no such token"), std::nullopt);
  EXPECT_EQ(t.token_bytes(-1), "");
  EXPECT_EQ(t.token_bytes(1 << 30), "");
  EXPECT_EQ(t.encode("<｜User｜>"), Ids{128803});
  EXPECT_GT(t.encode("<｜User｜>", AddedTokens::kAsText).size(), 1u);
}

TEST(Tokenizer, DocumentsBeginAsTheFilesSay) {
  VocabSource s;
  s.where = "test";
  s.tokens = {{"a", 0}, {"b", 1}};
  for (const char* name : {"<bos>", "<eos>"}) {
    AddedToken t;
    t.id = 2 + static_cast<int32_t>(s.added.size());
    t.content = name;
    s.added.push_back(t);
  }
  s.steps = gpt2_steps();
  s.bos = 2;
  s.eos = 3;
  auto with = [&](std::optional<bool> add_bos) {
    s.add_bos = add_bos;
    return Tokenizer(s);
  };
  EXPECT_EQ(with(std::nullopt).encode_document("ab"), (Ids{3, 0, 1})) << "as in pretraining";
  EXPECT_EQ(with(true).encode_document("ab"), (Ids{2, 0, 1}));
  EXPECT_EQ(with(false).encode_document("ab"), (Ids{0, 1}));
  for (std::optional<bool> add : {std::optional<bool>(), std::optional(true)}) {
    EXPECT_EQ(with(add).encode_document("<bos>a", AddedTokens::kRecognise), (Ids{2, 0}))
        << "one is enough";
  }
  EXPECT_EQ(with(true).encode_document(""), Ids{2});
  EXPECT_EQ(with(false).encode_document(""), Ids{2});
  EXPECT_EQ(with(std::nullopt).encode_document(""), Ids{3});
}

TEST(Tokenizer, AConfigThatNamesItsBosPutsItBeforeDocuments) {
  std::string folder = testing::TempDir() + "wels_add_bos_" + std::to_string(::getpid());
  std::filesystem::create_directories(folder);
  VocabSource s;
  s.tokens = {{"a", 0}};
  AddedToken bos;
  bos.id = 1;
  bos.content = "<bos>";
  s.added = {bos};
  s.steps = gpt2_steps();
  write_file_atomic(folder + "/tokenizer.json", write_tokenizer_json(s));
  auto add_bos = [&](const char* config) {
    write_file_atomic(folder + "/tokenizer_config.json", config);
    return load_vocab_source(folder).add_bos;
  };
  EXPECT_EQ(load_vocab_source(folder).add_bos, std::nullopt);
  EXPECT_EQ(add_bos("{}"), std::nullopt);
  EXPECT_EQ(add_bos(R"({"bos_token": "<bos>"})"), true) << "Llama-3's";
  EXPECT_EQ(add_bos(R"({"bos_token": "<bos>", "add_bos_token": false})"), true) << "V3-0324's";
  EXPECT_EQ(add_bos(R"({"bos_token": null, "chat_template": "x"})"), false) << "Qwen2's";
  EXPECT_EQ(add_bos(R"({"add_bos_token": false})"), false);
  EXPECT_EQ(add_bos(R"({"add_bos_token": true})"), true);
  EXPECT_EQ(add_bos(R"({"chat_template": "x"})"), true) << "it has learned chats";
  EXPECT_EQ(add_bos(R"({"chat_template": null})"), std::nullopt);
  EXPECT_EQ(add_bos("{}"), std::nullopt);
  write_file_atomic(folder + "/chat_template.jinja", "x");
  EXPECT_EQ(load_vocab_source(folder).add_bos, true) << "of a model trained by wels sft";
  std::filesystem::remove_all(folder);
}

TEST(Tokenizer, APostProcessorThatPutsATokenBeforeTextsNamesBos) {
  VocabSource s;
  s.tokens = {{"a", 0}};
  for (const char* name : {"<start>", "<stop>"}) {
    AddedToken t;
    t.id = 1 + static_cast<int32_t>(s.added.size());
    t.content = name;
    s.added.push_back(t);
  }
  s.steps = gpt2_steps();
  nlohmann::json root = nlohmann::json::parse(write_tokenizer_json(s));
  auto document_begin = [&](const char* post_processor) {
    root["post_processor"] = nlohmann::json::parse(post_processor);
    VocabSource source = parse_tokenizer_json(root.dump(), "test");
    source.eos = 2;
    return Tokenizer(source).document_begin();
  };
  EXPECT_EQ(document_begin("null"), 2) << "as in pretraining";
  EXPECT_EQ(document_begin(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
    {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<start>", "type_id": 0}},
                                              {"Sequence": {"id": "A", "type_id": 0}}]}]})"),
            1)
      << "Llama-3's";
  EXPECT_EQ(document_begin(R"({"type": "TemplateProcessing", "single":
    [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<stop>"}}]})"),
            2);
  EXPECT_THROW(document_begin("3"), Error);
  EXPECT_THROW(document_begin(R"({"type": "TemplateProcessing", "single": 1})"), Error);
}

TEST(Tokenizer, DocumentsOfDeepSeekV3BeginWithBos) {
  SKIP_WITHOUT("deepseek_v3");
  EXPECT_EQ(tokenizer("deepseek_v3").encode_document("")[0], 0);
  EXPECT_EQ(tokenizer("deepseek_v3").document_begin(), 0);
}

// Text from a mixture of sources that meets every branch of the scanners: words, contractions, runs
// of white space, digits, signs, code points anywhere, broken UTF-8.
std::string random_text(Rng& rng, size_t parts, bool valid) {
  static const std::vector<std::string> kParts = {
      "a",      "the",    "Hello",  "'s",     "'S",       "'ſ",         "'re",        "'LL",
      "'v",     " ",      "  ",     "\n",     "\r\n",     "\t",         "\x0b",       "\u3000",
      "\u00A0", "\u0085", "\uFEFF", "1",      "42",       "1234567",    "½",          "٣",
      "!",      "...",    "<|",     "\"x",    "$",        "§",          "é",          "e\u0301",
      "\u0301", "ø",      "中文",   "日本語", "ひらがな", "\u3099",     "ー",         "・",
      "한국",   "Привет", "ᴀ",      "ÿ",      "\x01",     "\x7f",       "🙂",       "\U000E0100",
      "\u2028", "‘",      "。",     "Ⅷ",      "\u0897",   "\U00011938", "<｜User｜>", "<",
      "ǅ",      "µ",      "ª",      "\u200d"};
  std::string out;
  for (size_t i = 0; i < parts; ++i) {
    uint64_t kind = rng.below(10);
    if (kind < 7) {
      out += kParts[rng.below(kParts.size())];
    } else if (kind < 9 || valid) {
      uint64_t limit = uint64_t{0x100} << (rng.below(4) * 4);
      auto c = static_cast<uint32_t>(rng.below(std::min<uint64_t>(limit, 0x110000)));
      append_utf8(out, c >= 0xD800 && c < 0xE000 ? 0x41 : c);
    } else {
      out += static_cast<char>(rng.below(256));
    }
  }
  return out;
}

Tokenizer bytes_only(std::vector<PreTokenizerStep> steps, bool nfc = false) {
  VocabSource source;
  source.where = "test";
  for (int b = 0; b < 256; ++b) {
    source.tokens.push_back({bytes_to_text(std::string(1, static_cast<char>(b))), b});
  }
  source.steps = std::move(steps);
  source.nfc = nfc;
  return Tokenizer(std::move(source));
}

TEST(Tokenizer, ScannersCutAsTheRegularExpressionsDo) {
  Rng rng(7);
  for (auto steps : {deepseek_v3_steps(), deepseek_llm_steps(), qwen2_steps(), llama3_steps(),
                     gpt2_steps(), character_steps()}) {
    ASSERT_NE(PreTokenizer(steps, "test").scanner(), Scanner::kGeneral);
    Tokenizer t = bytes_only(steps);
    for (int i = 0; i < 3000; ++i) {
      std::string text = random_text(rng, 1 + rng.below(24), rng.below(2) == 0);
      auto fast = t.pieces(text, true);
      ASSERT_EQ(fast, t.pieces(text, false)) << steps[0].pattern << "\n"
                                             << nlohmann::json(utf8_lossy(text));
      std::string joined;
      for (auto piece : fast) joined += piece;
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(Tokenizer, GivesBackAnyBytes) {
  Rng rng(8);
  std::vector<Tokenizer> all = {bytes_only(deepseek_v3_steps()), bytes_only(qwen2_steps(), true),
                                bytes_only(character_steps())};
  if (have_fixture("deepseek_v3")) all.push_back(tokenizer("deepseek_v3"));
  if (have_fixture("qwen2")) all.push_back(tokenizer("qwen2"));
  for (const Tokenizer& t : all) {
    for (int i = 0; i < 2000; ++i) {
      std::string text;
      if (i % 4 == 0) {
        for (size_t n = rng.below(40); n > 0; --n) text += static_cast<char>(rng.below(256));
      } else {
        text = random_text(rng, rng.below(30), i % 2 == 0);
      }
      // Added tokens cut the text before it is normalised, so as a whole it may differ from NFC
      // there.
      std::string expected = t.normalizes() ? nfc(text) : text;
      ASSERT_EQ(t.decode(t.encode(text, AddedTokens::kAsText)), expected)
          << nlohmann::json(utf8_lossy(text));
      if (!t.normalizes()) {
        ASSERT_EQ(t.decode(t.encode(text)), text);
      }
    }
  }
}

TEST(Tokenizer, ShortAndLongMergingAgree) {
  SKIP_WITHOUT("deepseek_v3");
  const Tokenizer& t = tokenizer("deepseek_v3");
  // One piece of 40 letters is merged by scanning; the same letters 50 times over by the heap. The
  // cut in between is at a place where no merge reaches across, so the ids of the parts must join
  // up.
  std::string word = "antidisestablishmentarianism";
  auto once = t.encode(word + "ʘ");
  std::string many;
  Ids expected;
  for (int i = 0; i < 50; ++i) {
    many += word + "ʘ";
    expected.insert(expected.end(), once.begin(), once.end());
  }
  EXPECT_EQ(t.encode(many), expected);
}

TEST(Tokenizer, MegabytesWithoutACutAreNotQuadratic) {
  SKIP_WITHOUT("deepseek_v3");
  for (const char* part : {" ", "a", "=", "天", "ab"}) {
    std::string text;
    while (text.size() < 1'000'000) text += part;
    EXPECT_EQ(tokenizer("deepseek_v3").decode(tokenizer("deepseek_v3").encode(text)), text);
  }
}

TEST(Tokenizer, StreamsOnlyWholeCharacters) {
  Tokenizer t = bytes_only(gpt2_steps());
  StreamDecoder stream(t);
  std::string text = "é中🙂";
  std::vector<std::string> parts;
  for (char c : text) parts.push_back(stream.push(static_cast<uint8_t>(c)));
  EXPECT_THAT(parts, testing::ElementsAre("", "é", "", "", "中", "", "", "", "🙂"));
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push('x'), "\uFFFDx");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

std::string small_json(
    const std::string& vocab, const std::string& merges, const std::string& added,
    const std::string& pre = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})") {
  return R"({"added_tokens":)" + added + R"(,"normalizer":null,"pre_tokenizer":)" + pre +
         R"(,"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":)" + vocab +
         R"(,"merges":)" + merges + "}}";
}

TEST(Tokenizer, ReadsMergesInBothNotations) {
  for (const char* merges : {R"(["a b"])", R"([["a","b"]])"}) {
    auto t = Tokenizer::from_json(small_json(R"({"a":0,"b":1,"ab":2})", merges, "[]"));
    EXPECT_EQ(t.encode("abba"), (Ids{2, 1, 0}));
  }
}

TEST(Tokenizer, HonoursStripAndSingleWord) {
  auto make = [](const std::string& flags) {
    return Tokenizer::from_json(
        small_json(R"({"a":0,"Ġ":1})", "[]", R"([{"id":2,"content":"<m>",)" + flags + "}]"));
  };
  EXPECT_EQ(make(R"("special":true)").encode("a <m> a"), (Ids{0, 1, 2, 1, 0}));
  EXPECT_EQ(make(R"("lstrip":true)").encode("a <m> a"), (Ids{0, 2, 1, 0}));
  EXPECT_EQ(make(R"("rstrip":true,"special":true)").encode("a <m> a"), (Ids{0, 1, 2, 0}));
  EXPECT_EQ(make(R"("single_word":true)").encode("a <m> "), (Ids{0, 1, 2, 1}));
  EXPECT_THROW(make(R"("single_word":true)").encode("a<m>"), Error)
      << "inside a word it is text, whose < has no token";
}

// As the reference does: what the one strips may be the other's beginning.
TEST(Tokenizer, ATokenMayBeginWithWhatTheOneBeforeItStrips) {
  auto t = Tokenizer::from_json(small_json(
      R"({"a":0,"Ġ":1})", "[]",
      R"([{"id":2,"content":"<r>","rstrip":true},{"id":3,"content":" b"},{"id":4,"content":"  "}])"));
  EXPECT_EQ(t.encode("<r> b"), (Ids{2, 3}));
  EXPECT_EQ(t.encode("<r> ba"), (Ids{2, 3, 0}));
  EXPECT_EQ(t.encode("a<r>  <r> a"), (Ids{0, 2, 4, 2, 0}));
}

TEST(Tokenizer, RejectsBrokenFilesWithOneClearError) {
  const std::string vocab = R"({"a":0,"b":1,"ab":2})", added = "[]", merges = "[]";
  struct Case {
    std::string json, message;
  };
  std::vector<Case> cases = {
      {"", "tokenizer.json"},
      {"[1]", "not a JSON object"},
      {R"({"model":3})", "model is not an object"},
      {R"({"model":{"type":"Unigram"}})", "'Unigram' is not supported"},
      {small_json("[]", merges, added), "model.vocab is not an object"},
      {small_json("{}", merges, added), "empty"},
      {small_json(R"({"a":"0"})", merges, added), "not a whole number"},
      {small_json(R"({"a":-1})", merges, added), "the id -1"},
      {small_json(R"({"a":1.5})", merges, added), "not a whole number"},
      {small_json(R"({"a":99999999999})", merges, added), "the id 99999999999"},
      {small_json(R"({"a":18446744073709551615})", merges, added), "the id 18446744073709551615"},
      {small_json(R"({"a":0,"b":0})", merges, added), "the id 0 of 'b' is used twice"},
      {small_json(vocab, "3", added), "merges is not an array"},
      {small_json(vocab, R"(["ab"])", added), "not two tokens"},
      {small_json(vocab, R"(["a b c"])", added), "not two tokens"},
      {small_json(vocab, R"([["a"]])", added), "neither"},
      {small_json(vocab, R"(["a c"])", added), "merge 0 needs the token 'c'"},
      {small_json(vocab, R"(["b a"])", added), "merge 0 needs the token 'ba'"},
      {small_json(vocab, merges, R"([{"id":1,"content":"x"}])"), "the id 1 of 'x' is used twice"},
      {small_json(vocab, merges, R"([{"id":7,"content":"a"}])"), "the ids 7 and 0"},
      {small_json(vocab, merges, R"([{"id":7,"content":""}])"), "is empty"},
      {small_json(vocab, merges, R"([{"id":7}])"), "content is missing"},
      {small_json(vocab, merges, R"([{"id":7,"content":"x","special":1}])"), "not true or false"},
      {small_json(vocab, merges, added, R"({"type":"Metaspace"})"), "'Metaspace' is not supported"},
      {small_json(vocab, merges, added, R"({"type":"Sequence","pretokenizers":[]})"),
       "not byte-level"},
      {small_json(vocab, merges, added, R"({"type":"ByteLevel"})"), "adds a space"},
      {small_json(vocab, merges, added,
                  R"({"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})"),
       "not byte-level"},
  };
  for (const Case& c : cases) {
    try {
      Tokenizer::from_json(c.json);
      ADD_FAILURE() << "accepted: " << c.json;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr(c.message)) << c.json;
      EXPECT_EQ(e.where(), "tokenizer.json");
    }
  }
  auto sequence = [&](const std::string& split) {
    return small_json(vocab, merges, added,
                      R"({"type":"Sequence","pretokenizers":[)" + split +
                          R"(,{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})");
  };
  EXPECT_THROW(Tokenizer::from_json(
                   sequence(R"({"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})")),
               Error);
  EXPECT_THROW(Tokenizer::from_json(sequence(
                   R"({"type":"Split","pattern":{"Regex":"[a[b]]"},"behavior":"Isolated"})")),
               Error);
  EXPECT_THROW(Tokenizer::from_json(
                   sequence(R"({"type":"Split","pattern":{"String":""},"behavior":"Isolated"})")),
               Error);
  EXPECT_THROW(Tokenizer::from_json(
                   sequence(R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Gone"})")),
               Error);
}

TEST(Tokenizer, SplitBehavioursFollowTheReference) {
  auto cut = [](PreTokenizerStep::Behavior behavior, bool invert = false) {
    PreTokenizerStep step;
    step.kind = PreTokenizerStep::kLiteral;
    step.pattern = "-";
    step.behavior = behavior;
    step.invert = invert;
    std::string out;
    Tokenizer t = bytes_only({step});
    for (auto piece : t.pieces("the-final--countdown")) out += std::string(piece) + "|";
    return out;
  };
  // The examples of the tokenizers documentation.
  EXPECT_EQ(cut(PreTokenizerStep::kRemoved), "the|final|countdown|");
  EXPECT_EQ(cut(PreTokenizerStep::kIsolated), "the|-|final|-|-|countdown|");
  EXPECT_EQ(cut(PreTokenizerStep::kMergedWithPrevious), "the-|final-|-|countdown|");
  EXPECT_EQ(cut(PreTokenizerStep::kMergedWithNext), "the|-final|-|-countdown|");
  EXPECT_EQ(cut(PreTokenizerStep::kContiguous), "the|-|final|--|countdown|");
  EXPECT_EQ(cut(PreTokenizerStep::kRemoved, true), "-|-|-|");
}

// Expected: what the tokenizers library 0.23.2 leaves of each, asked character by character.
TEST(Tokenizer, WordCharactersAreThoseOfTheReference) {
  auto kept = [](const char* regex, const std::string& text) {
    PreTokenizerStep step;
    step.pattern = regex;
    step.behavior = PreTokenizerStep::kRemoved;
    std::string out;
    Tokenizer t = bytes_only({step});
    for (auto piece : t.pieces(text)) out += piece;
    return out;
  };
  std::string text = "aé中_٣ⅷⓐ\u0301‿²½①-$ \x0b\u00A0😀\U0001E5F1";
  EXPECT_EQ(kept("\\w", text), "①-$ \x0b\u00A0😀");
  EXPECT_EQ(kept("[\\w]+", text), "²½①-$ \x0b\u00A0😀");
  EXPECT_EQ(kept("\\W", text), "aé中_٣ⅷⓐ\u0301‿²½\U0001E5F1");
  EXPECT_EQ(kept("[\\W]", text), "aé中_٣ⅷⓐ\u0301‿\U0001E5F1");
  EXPECT_EQ(kept("\\v", "a\n\x0b\f\u2028"), "a\n\f\u2028");
  EXPECT_EQ(kept("[\\v-]", "a\n\x0b-"), "a\n");
}

TEST(Tokenizer, ExpressionsWithAnotherMeaningAreRefused) {
  auto refusal = [](const char* regex) -> std::string {
    try {
      expand_classes(regex, "test");
    } catch (const Error& e) {
      return e.fact();
    }
    return "";
  };
  EXPECT_THAT(refusal("\\bx"), HasSubstr("uses \\b"));
  EXPECT_THAT(refusal("x\\B"), HasSubstr("uses \\B"));
  EXPECT_THAT(refusal("\\h"), HasSubstr("uses \\h"));
  EXPECT_THAT(refusal("[\\h]"), HasSubstr("uses \\h"));
  EXPECT_THAT(refusal("[a[b]]"), HasSubstr("a class inside a class"));
  EXPECT_THAT(refusal("(?m:.)"), HasSubstr("sets the option m"));
  EXPECT_THAT(refusal("(?i-s)."), HasSubstr("sets the option i-s"));
  for (const char* taken : {"(?i:'s)", "(?x) a", "(?:m)", "(?<name>m)", "(?=m)", "(?!m)", "(?>m)",
                            "[(?m:]", "\\(?m:", "[\\b]", "\\\\b"})
    EXPECT_EQ(refusal(taken), "") << taken;
}

TEST(Tokenizer, SaysWhichByteHasNoToken) {
  auto t = Tokenizer::from_json(small_json(R"({"a":0})", "[]", "[]"));
  EXPECT_EQ(t.encode("aa"), (Ids{0, 0}));
  try {
    t.encode("ab");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("0x62"));
  }
}

TEST(Tokenizer, AThreadMayUseSeveralVocabularies) {
  auto a = Tokenizer::from_json(small_json(R"({"a":0,"b":1,"ab":2})", R"(["a b"])", "[]"));
  auto b = Tokenizer::from_json(small_json(R"({"a":5,"b":6,"ba":7})", R"(["b a"])", "[]"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(a.encode("bab"), (Ids{1, 2}));
    EXPECT_EQ(b.encode("bab"), (Ids{7, 6}));
  }
  std::vector<std::string_view> documents(100, "abba");
  for (const auto& ids : a.encode_parallel(documents)) EXPECT_EQ(ids, (Ids{2, 1, 0}));
}

}  // namespace
}  // namespace wels
