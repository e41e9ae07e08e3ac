#include "text/gguf_vocab.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "text/bpe_trainer.h"
#include "text/test_files.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

using Ids = std::vector<int32_t>;

void check_inp_out(const std::string& name) {
  Tokenizer t = Tokenizer::load(fixture(name));
  std::string texts = read_file(fixture(name + ".inp")), lines = read_file(fixture(name + ".out"));
  const std::string kBetween = "\n__ggml_vocab_test__\n";
  std::istringstream out(lines);
  size_t count = 0;
  for (size_t at = 0; at != std::string::npos; ++count) {
    size_t end = texts.find(kBetween, at);
    std::string text = texts.substr(at, end == std::string::npos ? end : end - at), line;
    if (!std::getline(out, line)) break;  // the last separator is followed by nothing
    std::istringstream numbers(line);
    Ids expected{std::istream_iterator<int32_t>(numbers), {}};
    EXPECT_EQ(t.encode(text), expected) << nlohmann::json(text);
    EXPECT_EQ(t.decode(expected), text);
    at = end == std::string::npos ? end : end + kBetween.size();
  }
  EXPECT_GT(count, 0u);
  std::string line;
  EXPECT_FALSE(std::getline(out, line)) << "more lines of ids than texts";
}

std::vector<std::string> vocabularies() {
  return fixtures([](const std::string& name) {
    return name.ends_with(".gguf") && have_fixture(name + ".inp") && have_fixture(name + ".out");
  });
}

TEST(GgufVocab, EncodesEveryTextOfEveryFile) {
  std::vector<std::string> files = vocabularies();
  SKIP_IF_NONE(files, "*.gguf with .inp and .out");
  for (const std::string& name : files) {
    SCOPED_TRACE(name);
    check_inp_out(name);
  }
}

// ggml-vocab-NAME.gguf beside a folder NAME.
TEST(GgufVocab, AgreesWithTokenizerJson) {
  const std::string kBefore = "ggml-vocab-", kAfter = ".gguf";
  auto folder_of = [&](const std::string& file) {
    return file.substr(kBefore.size(), file.size() - kBefore.size() - kAfter.size());
  };
  std::vector<std::string> files = fixtures([&](const std::string& name) {
    return name.starts_with(kBefore) && name.ends_with(kAfter) &&
           have_fixture(folder_of(name) + "/vectors.jsonl");
  });
  SKIP_IF_NONE(files, "ggml-vocab-NAME.gguf with NAME/vectors.jsonl");
  for (const std::string& file : files) {
    Tokenizer t = Tokenizer::load(fixture(file));
    for (const auto& v : read_jsonl(folder_of(file) + "/vectors.jsonl")) {
      ASSERT_EQ(t.encode(v["text"].get<std::string>()), v["ids"].get<Ids>()) << file << v.dump();
    }
  }
}

TEST(GgufVocab, PaddingIsNeverFoundAndCharactersDecodeAsThemselves) {
  SKIP_WITHOUT("ggml-vocab-deepseek-llm.gguf");
  Tokenizer t = Tokenizer::load(fixture("ggml-vocab-deepseek-llm.gguf"));
  for (int32_t id : t.encode("[PAD100015] [PAD102399]")) EXPECT_LT(id, 100000);
  EXPECT_EQ(t.encode("ü"), Ids{100014});
  EXPECT_EQ(t.decode(Ids{100014}), "ü");
  EXPECT_EQ(t.decode(t.encode("ü", AddedTokens::kAsText)), "ü");
  EXPECT_EQ(t.bos(), 100000);
  EXPECT_EQ(t.eos(), 100001);
  EXPECT_EQ(t.decode(Ids{102399, 102400, 1 << 29}), "");
}

GgufContent content_of(const GgufMetadata& metadata) {
  GgufContent out;
  out.where = "test.gguf";
  std::string path = testing::TempDir() + "wels_gguf_vocab_" + std::to_string(::getpid()) + ".gguf";
  write_gguf(path, metadata, {});
  std::string bytes = read_file(path);
  std::remove(path.c_str());
  return parse_gguf({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "test.gguf");
}

VocabSource small_source() {
  VocabSource s;
  s.where = "test";
  s.tokens = {{"a", 0}, {"b", 1}, {"ab", 2}};
  s.merges = {{"ab", 1}};
  AddedToken end;
  end.id = 3;
  end.content = "<end>";
  end.special = true;
  s.added = {end};
  s.steps = deepseek_v3_steps();
  s.eos = 3;
  return s;
}

TEST(GgufVocab, WhatIsWrittenIsReadBack) {
  GgufMetadata metadata;
  append_gguf_vocab(small_source(), 6, metadata);
  GgufContent content = content_of(metadata);
  EXPECT_EQ(content.text("tokenizer.ggml.pre"), "deepseek-v3");
  EXPECT_EQ(content.strings("tokenizer.ggml.tokens")[5], "[PAD5]");
  Tokenizer t(parse_gguf_vocab(content));
  EXPECT_EQ(t.encode("abb<end>"), (Ids{2, 1, 3}));
  EXPECT_EQ(t.eos(), 3);
  EXPECT_EQ(t.document_begin(), 3) << "add_bos_token is not said";
  metadata.emplace_back("tokenizer.ggml.bos_token_id", gguf_u32(1));
  metadata.emplace_back("tokenizer.ggml.add_bos_token", gguf_bool(true));
  EXPECT_EQ(Tokenizer(parse_gguf_vocab(content_of(metadata))).document_begin(), 1);
  metadata.back().second = gguf_bool(false);
  EXPECT_EQ(Tokenizer(parse_gguf_vocab(content_of(metadata))).document_begin(), std::nullopt);
  EXPECT_THROW(append_gguf_vocab(small_source(), 3, metadata), Error) << "too few rows";
  VocabSource characters = small_source();
  characters.steps = character_steps();
  EXPECT_THROW(append_gguf_vocab(characters, 6, metadata), Error) << "characters with merges";
}

TEST(GgufVocab, IdsOfNoTokenAreLeftOutWithANote) {
  GgufMetadata metadata;
  append_gguf_vocab(small_source(), 4, metadata);
  for (auto& [key, value] : metadata) {
    if (key == "tokenizer.ggml.eos_token_id") value = gguf_u32(4);
  }
  testing::internal::CaptureStderr();
  EXPECT_EQ(parse_gguf_vocab(content_of(metadata)).eos, std::nullopt);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("eos_token_id 4 is outside the vocabulary of 4"));
}

TEST(GgufVocab, ItsNameForThePreTokenizerIsChosenByTheStepsAlone) {
  VocabSource source = small_source();
  source.steps = qwen2_steps();
  for (bool nfc : {true, false}) {
    source.nfc = nfc;
    GgufMetadata metadata;
    append_gguf_vocab(source, 4, metadata);
    EXPECT_EQ(content_of(metadata).text("tokenizer.ggml.pre"), "qwen2") << nfc;
  }
}

TEST(GgufVocab, WhatPrecedesATextUnsaidIsThePreTokenizersMatter) {
  GgufMetadata metadata;
  append_gguf_vocab(small_source(), 4, metadata);
  metadata.emplace_back("tokenizer.ggml.bos_token_id", gguf_u32(1));
  metadata.emplace_back("tokenizer.chat_template", gguf_string("x"));
  auto document_begin = [&](const char* pre) {
    for (auto& [key, value] : metadata) {
      if (key == "tokenizer.ggml.pre") value = gguf_string(pre);
    }
    return Tokenizer(parse_gguf_vocab(content_of(metadata))).document_begin();
  };
  EXPECT_EQ(document_begin("qwen2"), std::nullopt);
  EXPECT_EQ(document_begin("llama-bpe"), 1);
  EXPECT_EQ(document_begin("deepseek-v3"), 1) << "it has learned chats";
  metadata.pop_back();
  EXPECT_EQ(document_begin("qwen2"), std::nullopt);
  EXPECT_EQ(document_begin("llama-bpe"), 1);
  EXPECT_EQ(document_begin("deepseek-v3"), 3) << "as in pretraining";
}

TEST(GgufVocab, CharactersAreWrittenAsMergesOfTheirBytesAndReadBackAsCharacters) {
  AddedToken end;
  end.content = "<end>";
  end.special = true;
  const std::string kText = "to be, \n \xc3\xa9t\xc3\xa8 \xe2\x82\xac \xf0\x9f\x98\x80\xe2\x82\xb1";
  std::string_view document = kText;
  VocabSource source = train_characters(std::span(&document, 1), {end});
  Tokenizer before(source);
  GgufMetadata metadata;
  append_gguf_vocab(source, before.vocab_size(), metadata);
  GgufContent content = content_of(metadata);
  // é and è share their first byte, the two currencies their first two.
  EXPECT_EQ(content.strings("tokenizer.ggml.merges").size(), 2u + 3 + 3);
  EXPECT_THAT(content.strings("tokenizer.ggml.merges"),
              testing::Contains("\xc3\xa2\xc4\xa4 \xc2\xac"));
  VocabSource read = parse_gguf_vocab(content);
  EXPECT_EQ(read.steps, source.steps);
  EXPECT_TRUE(read.merges.empty());
  Tokenizer after(read);
  EXPECT_EQ(after.encode(kText + "<end>"), before.encode(kText + "<end>"));
  EXPECT_EQ(after.encode(kText).size(), 17u) << "one token a character";
  EXPECT_THROW(after.encode("\xe2\x82\xad"), Error) << "a character that the text did not have";
}

TEST(ChatTemplateText, IsFoundInAFolderAndInAGgufFile) {
  namespace fs = std::filesystem;
  fs::path folder = fs::temp_directory_path() / ("wels_template_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  auto write = [&](const char* name, const std::string& text) {
    write_file_atomic((folder / name).string(), text);
  };
  EXPECT_EQ(load_chat_template(folder.string()), "");
  write("tokenizer_config.json", R"({"chat_template": "plain"})");
  EXPECT_EQ(load_chat_template(folder.string()), "plain");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "tools", "template": "t"},
    {"name": "default", "template": "d"}]})");
  EXPECT_EQ(load_chat_template(folder.string()), "d");
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(load_chat_template(folder.string()), "");
  write("tokenizer_config.json", R"({"chat_template": 1})");
  EXPECT_THROW(load_chat_template(folder.string()), Error);
  write("chat_template.jinja", "own file");
  EXPECT_EQ(load_chat_template(folder.string()), "own file");
  std::string gguf = (folder / "m.gguf").string();
  write_gguf(gguf, {{"tokenizer.chat_template", gguf_string("in GGUF")}}, {});
  EXPECT_EQ(load_chat_template(gguf), "in GGUF");
  write_gguf(gguf, {}, {});
  EXPECT_EQ(load_chat_template(gguf), "");
  fs::remove_all(folder);
}

TEST(GgufVocab, RejectsBrokenMetadataWithOneClearError) {
  auto expect = [](const char* key, GgufValue value, const char* message) {
    GgufMetadata metadata;
    append_gguf_vocab(small_source(), 4, metadata);
    for (auto& [name, old] : metadata) {
      if (name == key) old = value;
    }
    try {
      Tokenizer t(parse_gguf_vocab(content_of(metadata)));
      ADD_FAILURE() << "accepted " << key;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), testing::HasSubstr(message));
    }
  };
  expect("tokenizer.ggml.model", gguf_string("llama"), "'llama' is not supported");
  expect("tokenizer.ggml.pre", gguf_string("new"), "'new' is not supported; known: deepseek-v3");
  expect("tokenizer.ggml.pre", gguf_u32(1), "tokenizer.ggml.pre");
  expect("tokenizer.ggml.token_type", gguf_i32s({1, 1}), "token_type 2");
  expect("tokenizer.ggml.merges", gguf_strings({"ab"}), "merge 0 'ab'");
  expect("tokenizer.ggml.merges", gguf_strings({"b a"}), "needs the token 'ba'");
  expect("tokenizer.ggml.tokens", gguf_strings({"a", "b", "ab", ""}), "empty");
}

}  // namespace
}  // namespace wels
