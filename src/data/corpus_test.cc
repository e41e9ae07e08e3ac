#include "data/corpus.h"

#include <gmock/gmock.h>

#include "base/test_folder.h"
#include "data/compressed_test.h"
#include "base/rng.h"
#include "data/byte_stream.h"
#include "data/file_kind.h"
#include "data/man_page.h"
#include "data/utf8_cleaner.h"

namespace wels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> documents_of(const std::vector<std::string>& paths,
                                      CorpusStats* stats = nullptr) {
  std::vector<std::string> out;
  CorpusStats s = read_corpus(list_corpus(paths), [&](std::string_view d) { out.emplace_back(d); });
  if (stats) *stats = s;
  return out;
}

// Prose-like text of about n bytes, other for each seed.
std::string prose(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::string out;
  while (out.size() < n) {
    for (uint64_t w = 3 + rng.below(9); w > 0; --w) {
      for (uint64_t c = 1 + rng.below(8); c > 0; --c) out += static_cast<char>('a' + rng.below(26));
      out += w > 1 ? " " : ".";
    }
    out += rng.below(4) == 0 ? "\n\n" : "\n";
  }
  return out;
}

TEST(Corpus, FoldersAreReadInSortedOrderWithoutHiddenAndUnknownFiles) {
  TestFolder f;
  f.file("b.txt", "second");
  f.file("a/z.md", "first");
  f.file("c.py", "print(3)");
  f.file("README", "upper case sorts first");
  f.file(".git/x.txt", "hidden");
  f.file("d.png", "not text");
  EXPECT_THAT(documents_of({f.path()}),
              ElementsAre("upper case sorts first", "first", "second", "print(3)"));
  EXPECT_THAT(documents_of({f / "d.png"}), ElementsAre("not text"))
      << "a file named directly is taken";
}

TEST(Corpus, SeparatorLinesSplitTextsAndOnlyWholeLinesCount) {
  TestFolder f;
  std::string p = f.file(
      "a.txt",
      "<|doc|>\none\n<|doc|>\n two <|doc|> half\n<|doc|> no\n<|doc|>\n\n<|doc|>\nthree\n<|doc|>");
  EXPECT_THAT(documents_of({p}),
              ElementsAre("one\n", " two <|doc|> half\n<|doc|> no\n", "three\n"));
  EXPECT_THAT(documents_of({f.file("b.md", "x\n<|doc|>\ny")}), ElementsAre("x\n<|doc|>\ny"));
}

TEST(Corpus, DocumentsSplitTheSameWhereverReadsAreCut) {
  std::string text;
  std::vector<std::string> expected;
  for (uint64_t i = 0; text.size() < 5'000'000; ++i) {
    expected.push_back(prose(i % 7 == 0 ? 300'000 : 20 + i % 4000, i));
    if (i == 20) expected.back() = prose(2'500'000, 99);
    text += (i ? "<|doc|>\n" : "") + expected.back();
  }
  TestFolder f;
  EXPECT_EQ(documents_of({f.file("a.txt.zst", zstandard(text))}), expected);
  // The separator at every offset around the end of the first megabyte.
  for (size_t shift = 0; shift < 12; ++shift) {
    std::string head(kPieceBytes - 4 - shift, 'x'),
        path = f.file("edge.txt", head + "\n<|doc|>\ntail");
    EXPECT_THAT(documents_of({path}), ElementsAre(head + "\n", "tail")) << shift;
  }
}

TEST(Corpus, LongDocumentsComeInPiecesThatAreTheDocument) {
  std::string text = prose(4'500'000, 1);
  TestFolder f;
  CorpusReader reader(list_corpus({f.file("a.txt", text)}));
  std::string joined;
  int64_t pieces = 0;
  bool last = false;
  for (Piece p; reader.next(p); ++pieces) {
    EXPECT_EQ(p.document, 0);
    EXPECT_EQ(p.first, pieces == 0);
    EXPECT_LE(static_cast<int64_t>(p.text.size()), kPieceBytes + 8);
    EXPECT_TRUE(pieces == 0 || joined.ends_with("\n\n")) << "cut at a paragraph";
    joined += p.text;
    last = p.last;
  }
  EXPECT_GE(pieces, 5);
  EXPECT_TRUE(last);
  EXPECT_TRUE(joined == text);
  EXPECT_EQ(reader.stats().documents, 1);
  EXPECT_EQ(reader.stored_bytes_done(), reader.stored_bytes_total());
}

TEST(Corpus, TextWithoutLineEndsIsCutBetweenCharacters) {
  std::string text;
  while (text.size() < 2'500'000) text += "漢字é";
  TestFolder f;
  EXPECT_THAT(documents_of({f.file("a.txt", text)}), ElementsAre(text));
  CorpusReader reader(list_corpus({f / "a.txt"}));
  for (Piece p; reader.next(p);) {
    Utf8Cleaner cleaner;
    std::string clean;
    cleaner.append(p.text, true, clean);
    EXPECT_EQ(cleaner.bad_bytes(), 0);
  }
}

TEST(Corpus, CompressedFilesGiveTheSameTextAsPlainOnes) {
  TestFolder f;
  std::string text = prose(700'000, 3);
  EXPECT_THAT(documents_of({f.file("a.txt.gz", gzipped(text))}), ElementsAre(text));
  EXPECT_THAT(documents_of({f.file("a.txt.zst", zstandard(text))}), ElementsAre(text));
  std::string half = text.substr(0, 300'000), rest = text.substr(300'000);
  EXPECT_THAT(
      documents_of({f.file("members.gz", gzipped(half) + gzipped(rest) + std::string(512, '\0'))}),
      ElementsAre(text));
  EXPECT_THAT(documents_of({f.file("frames.zst", zstandard(half) + zstandard(rest))}),
              ElementsAre(text));
}

TEST(Corpus, BrokenArchivesAreErrorsThatNameTheFile) {
  TestFolder f;
  std::string text = prose(400'000, 4), gz = gzipped(text), zst = zstandard(text);
  for (const std::string& path :
       {f.file("cut.txt.gz", gz.substr(0, gz.size() / 2)), f.file("head.txt.gz", gz.substr(0, 12)),
        f.file("tail.txt.gz", gz.substr(0, gz.size() - 3)),
        f.file("cut.txt.zst", zst.substr(0, zst.size() / 2))}) {
    EXPECT_THAT(error_of([&] { documents_of({path}); }), HasSubstr(path + ": truncated"));
  }
  for (size_t i = 20; i < 4000; ++i)
    gz[i] = static_cast<char>(i * 37), zst[i] = static_cast<char>(i * 37);
  EXPECT_THAT(error_of([&] { documents_of({f.file("bad.txt.gz", gz)}); }),
              HasSubstr("bad.txt.gz: broken gzip data"));
  EXPECT_THAT(error_of([&] { documents_of({f.file("bad.txt.zst", zst)}); }),
              HasSubstr("bad.txt.zst: broken Zstandard data"));
}

TEST(Corpus, JsonLinesGiveOneDocumentALine) {
  TestFolder f;
  std::string p = f.file("a.jsonl", R"({"text": "plain"}
{"title": "T", "text": "body"}

{"question": "1+1?", "answer": "2"}
{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, )"
                                    R"("tool_calls": [{"id": 1}]}]})");
  EXPECT_THAT(documents_of({p}), ElementsAre("plain", "T\n\nbody", "Question: 1+1?\n\nAnswer: 2\n",
                                             "User: hi\n\nAssistant: [{\"id\":1}]\n"));
}

TEST(Corpus, BadJsonLinesAreErrorsThatNameFileAndLine) {
  TestFolder f;
  for (std::string bad : {"{\"text\": ", "[1]", "{\"body\": 1}", "{\"text\": 3}",
                          "{\"messages\": [{\"content\": \"x\"}]}"}) {
    std::string p = f.file("a.jsonl", "{\"text\": \"ok\"}\n\n" + bad + "\n");
    std::string message = error_of([&] { documents_of({p}); });
    EXPECT_THAT(message, HasSubstr(p + ":3: ")) << bad;
    EXPECT_EQ(message.find("json.exception"), std::string::npos) << message;
  }
  std::string p = f.file("a.jsonl", "{\"text\": \"ok\"}\n{\"text\": yes}\n");
  EXPECT_THAT(error_of([&] { documents_of({p}); }),
              HasSubstr(p + ":2: not valid JSON at column 10: invalid literal; last read: "));
}

TEST(Corpus, InvalidUtf8IsReplacedAndCounted) {
  TestFolder f;
  CorpusStats stats;
  std::string good = prose(2000, 5);
  auto documents = documents_of({f.file("a.txt", "\xEF\xBB\xBF" + good +
                                                     "a\xFF\xFE"
                                                     "b\xE4\xB8"
                                                     "c\r\nd\xC3")},
                                &stats);
  EXPECT_THAT(documents, ElementsAre(good + "a\uFFFDb\uFFFDc\nd\uFFFD"));
  EXPECT_EQ(stats.invalid_utf8, 5);
  EXPECT_THAT(stats.summary(), HasSubstr("5 bytes not UTF-8"));
}

TEST(Corpus, CleaningDoesNotDependOnHowBytesArrive) {
  std::string text =
      "\xEF\xBB\xBF"
      "a\r\nb\rc 漢\xF0\x9F\x98\x80\xFF\xE4\xB8 \xF0\x9F\x98 é\xC3\r";
  std::string whole;
  Utf8Cleaner one;
  one.append(text, true, whole);
  for (size_t size : {1, 2, 3, 5}) {
    Utf8Cleaner cleaner;
    std::string out;
    for (size_t i = 0; i < text.size(); i += size)
      cleaner.append(text.substr(i, size), i + size >= text.size(), out);
    EXPECT_EQ(out, whole) << size;
    EXPECT_EQ(cleaner.bad_bytes(), one.bad_bytes());
  }
  EXPECT_EQ(one.bad_bytes(), 7);
}

TEST(Corpus, BinaryAndRepeatedFilesAreSkippedAndCounted) {
  TestFolder f;
  f.file("a.txt", "text");
  f.file("b.txt", std::string("nul\0byte", 8));
  f.file("c.txt", "Latin-1: \xE4\xF6\xFC\xDF");
  f.file("d.txt", std::string("\xFF\xFEh\0i\0", 6));
  f.file("e.txt", "text");
  CorpusStats stats;
  EXPECT_THAT(documents_of({f.path()}, &stats), ElementsAre("text"));
  EXPECT_EQ(stats.skipped_binary, 3);
  EXPECT_EQ(stats.skipped_duplicate, 1);
  EXPECT_EQ(stats.files, 1);
  EXPECT_THAT(stats.summary(), HasSubstr("skipped 4 files (3 binary, 1 duplicate)"));
}

TEST(Corpus, LongFilesAreDuplicatesOnlyWhereAllOfThemIsTheSame) {
  TestFolder f;
  std::string a = prose(3'000'000, 1), b = a;
  b[2'900'000] = '#';
  f.file("a.txt", a), f.file("b.txt", b), f.file("c.txt", a);
  CorpusStats stats;
  EXPECT_EQ(documents_of({f.path()}, &stats).size(), 2u);
  EXPECT_EQ(stats.skipped_duplicate, 1);
}

TEST(Corpus, EmptyMissingAndUselessCorporaAreErrorsThatNameThePath) {
  TestFolder f;
  std::filesystem::create_directories(f / "empty");
  EXPECT_THAT(error_of([&] { list_corpus({f / "empty"}); }), HasSubstr(f / "empty"));
  EXPECT_THAT(error_of([&] { list_corpus({f / "missing.txt"}); }), HasSubstr(f / "missing.txt"));
  EXPECT_THAT(error_of([&] { documents_of({f.file("blank.txt", " \n\n")}); }),
              HasSubstr("blank.txt: holds no text"));
  EXPECT_THAT(error_of([&] { documents_of({f.file("zero.txt", "")}); }),
              HasSubstr("zero.txt: holds no text"));
  EXPECT_THAT(error_of([&] { documents_of({f.file("b.txt", std::string(9, '\0'))}); }),
              HasSubstr("binary"));
  EXPECT_THAT(error_of([] { list_corpus({"/dev/null"}); }),
              HasSubstr("neither a file nor a folder"));
}

TEST(Corpus, KindsFollowTheNameInsideCompression) {
  EXPECT_EQ(file_kind("x/a.TXT.zst"), FileKind::kSeparated);
  EXPECT_EQ(file_kind("a.jsonl.gz"), FileKind::kJsonLines);
  EXPECT_EQ(file_kind("/usr/share/man/man3/SSL_read.3ssl.gz"), FileKind::kManPage);
  EXPECT_EQ(file_kind("dir.d/README"), FileKind::kText);
  EXPECT_EQ(file_kind("a.tar.gz"), FileKind::kUnknown);
  EXPECT_EQ(file_kind("libx.so.6"), FileKind::kManPage) << "told apart by its bytes: binary";
}

TEST(ManPage, KeepsWhatAReaderSees) {
  EXPECT_EQ(man_page_text(".\\\" comment\n.TH LS 1\n.SH NAME\nls \\- list \\fIfiles\\fR\n.SH \"SEE "
                          "ALSO\"\n.BR cat (1),\n"
                          ".I x\nand\nmore.\n.PP\nNew \\(lqone\\(rq.\n.de XX\nhidden\n..\n.nf\n  "
                          "code\n  two\n.fi\nend\n"),
            "NAME\n\nls - list files\n\nSEE ALSO\n\ncat(1), x and more.\n\nNew “one”.\n  code\n  "
            "two\n\nend\n");
  EXPECT_EQ(man_page_text(".Sh SYNOPSIS\n.Nm ls\n.Op Fl a\n.Xr cat 1 .\n"),
            "SYNOPSIS\n\nls [Fl a] cat(1).\n");
  EXPECT_EQ(man_page_text(""), "");
  for (std::string odd :
       {"\\", ".", ".\"", "\\f", "\\(", "\\[x", ".B \"open", "\\h'", ".de", "'\\\" t"})
    man_page_text(odd);
}

TEST(LocalText, IsFoundTheSameTwiceAndWithinItsLimit) {
  std::vector<std::string> files;
  try {
    files = find_local_text(3'000'000);
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  EXPECT_EQ(files, find_local_text(3'000'000));
  EXPECT_FALSE(find_local_text(1'000'000).empty()) << "no less than asked for is asked for";
  CorpusStats stats = read_corpus(files, [](std::string_view) {});
  EXPECT_GE(stats.bytes, 900'000);
  EXPECT_LE(stats.bytes, 3'000'000);
}

}  // namespace
}  // namespace wels
