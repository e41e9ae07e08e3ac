#include "text/unicode.h"

#include <utf8proc.h>

#include <cstdlib>

#include "base/error.h"
#include "base/rng.h"
#include "text/test_files.h"

namespace wels {
namespace {

TEST(Unicode, ClassesAreThoseOfTheReference) {
  SKIP_WITHOUT("unicode_classes.json");
  auto json = nlohmann::json::parse(read_file(fixture("unicode_classes.json")));
  const std::pair<const char*, CharClass> kNames[] = {{"\\p{L}", kLetter}, {"\\p{N}", kNumber},
                                                      {"\\p{M}", kMark},   {"\\p{P}", kPunct},
                                                      {"\\p{S}", kSymbol}, {"\\s", kSpace}};
  ASSERT_EQ(json["classes"].size(), std::size(kNames));
  for (auto [name, one] : kNames) {
    std::vector<uint8_t> expected(0x110000, 0);
    for (const auto& r : json["classes"][name]) {
      for (uint32_t c = r[0]; c <= r[1].get<uint32_t>(); ++c) expected[c] = one;
    }
    for (uint32_t c = 0; c < 0x110000; ++c)
      ASSERT_EQ(char_classes()[c] & one, expected[c]) << name << " " << c;
  }
  EXPECT_EQ(char_classes()[kBadByte], 0);
}

TEST(Unicode, ReadsWellFormedCharactersOnly) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string s;
    append_utf8(s, c);
    auto* p = reinterpret_cast<const uint8_t*>(s.data());
    Char got = read_char(p, p + s.size());
    ASSERT_EQ(got.code, c);
    ASSERT_EQ(got.size, s.size());
    if (s.size() > 1) {
      ASSERT_EQ(read_char(p, p + s.size() - 1).code, kBadByte) << c;
    }
  }
  for (std::string s : {"\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                        "\xF0\x80\x80\x80", "\x80", "\xFF"}) {
    auto* p = reinterpret_cast<const uint8_t*>(s.data());
    EXPECT_EQ(read_char(p, p + s.size()).code, kBadByte);
    EXPECT_EQ(read_char(p, p + s.size()).size, 1u);
  }
}

TEST(Unicode, ReplacesMaximalIllFormedParts) {
  // The example of the Unicode standard, section 3.9, table 3-8 and 3-11.
  EXPECT_EQ(utf8_lossy("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  EXPECT_EQ(utf8_lossy("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), "\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  EXPECT_EQ(utf8_lossy("é中🙂"), "é中🙂");
  EXPECT_EQ(utf8_complete_prefix("a\xE4\xB8"), 1u);
  EXPECT_EQ(utf8_complete_prefix("a\xE4\xB8\xAD"), 4u);
  EXPECT_EQ(utf8_complete_prefix("\xF0\x9F\x99"), 0u);
  EXPECT_EQ(utf8_complete_prefix("\xE0\x80"), 2u) << "can never become well-formed";
  EXPECT_EQ(utf8_complete_prefix("\x80\x80\x80\x80"), 4u);
}

TEST(Unicode, IllFormedTextIsRefusedWithItsPlace) {
  require_utf8("", "prompt");
  require_utf8("a\xC3\xA4\xF0\x9F\x90\x88", "prompt");
  for (const char* bad : {"\xFF", "\xC3", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80"})
    EXPECT_THROW(require_utf8(bad, "prompt"), Error) << bad;
  try {
    require_utf8("one\ntwo \xE4", "prompt");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.where() + ": " + e.fact(), "prompt: is no UTF-8: byte 9 (0xe4) in line 2");
  }
}

TEST(Unicode, WhatIsCalledTrivialIsNotChangedByNfc) {
  Rng rng(3);
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string s = "a";
    append_utf8(s, c);
    if (!nfc_is_trivial(s)) continue;
    ASSERT_EQ(utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class, 0) << c;
    ASSERT_EQ(nfc(s), s) << c;
  }
  for (int i = 0; i < 20000; ++i) {
    std::string s;
    for (int n = 0; n < 6; ++n) {
      uint64_t limit = uint64_t{0x100} << (rng.below(4) * 4);
      auto c = static_cast<uint32_t>(rng.below(std::min<uint64_t>(limit, 0x110000)));
      append_utf8(s, c >= 0xD800 && c < 0xE000 ? 0x1161 : c);
    }
    if (nfc_is_trivial(s)) {
      ASSERT_EQ(nfc(s), s);
    }
    ASSERT_EQ(nfc(nfc(s)), nfc(s));
  }
}

TEST(Unicode, NormalisesAndKeepsIllFormedBytes) {
  EXPECT_EQ(nfc("e\u0301"), "é");
  EXPECT_EQ(nfc("e\xFF\u0301"), "e\xFF\u0301");
  EXPECT_EQ(nfc("\u1100\u1161\u11A8"), "각");
  EXPECT_EQ(nfc("\u212B"), "Å");
  EXPECT_EQ(nfc("a\u0301\u0323"), "ạ\u0301") << "marks are put in order";
}

TEST(Unicode, PutsRunsOfMarksInOrderAsUtf8procDoes) {
  Rng rng(4);
  // Marks of many classes, marks that fall apart into several, letters that take them.
  static const std::vector<uint32_t> kChars = {
      0x300,  0x315, 0x323, 0x327, 0x345,  0x344,  0xF73,  0xF75,  0xF71,   0x5B0,   0x64B, 0x3099,
      0x302A, 'a',   'e',   0xC5,  0x1F82, 0x1100, 0x1161, 0x11A8, 0x1D165, 0x1D15E, 0x34F, ' '};
  for (int i = 0; i < 5000; ++i) {
    std::string s;
    for (uint64_t n = rng.below(60), one = rng.below(kChars.size()); n > 0; --n)
      append_utf8(s, kChars[rng.below(3) == 0 ? one : rng.below(kChars.size())]);
    utf8proc_uint8_t* mapped = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(s.c_str()));
    ASSERT_EQ(nfc(s), reinterpret_cast<const char*>(mapped));
    std::free(mapped);
  }
}

// 256 KB of them once took half a minute.
TEST(Unicode, AMegabyteOfMarksIsNotQuadratic) {
  std::string marks, ordered;
  for (int i = 0; i < 1 << 18; ++i) marks += "\u0315\u0300";
  for (const char* mark : {"\u0300", "\u0315"}) {
    for (int i = 0; i < 1 << 18; ++i) ordered += mark;
  }
  EXPECT_TRUE(nfc(marks) == ordered);
}

}  // namespace
}  // namespace wels
