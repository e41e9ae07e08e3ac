#include "formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace wels {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::string number(uint64_t v, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(v >> 8 * i);
  return out;
}
std::string text(const std::string& s) { return number(s.size(), 8) + s; }
// A file from its parts; tensors and data start at the alignment.
std::string file_of(const std::string& pairs, uint64_t pair_count, const std::string& tensors,
                    uint64_t tensor_count, const std::string& data, uint32_t version = 3) {
  std::string out = "GGUF" + number(version, 4) + number(tensor_count, 8) + number(pair_count, 8) +
                    pairs + tensors;
  out.resize((out.size() + 31) / 32 * 32, '\0');
  return out + data;
}
std::string tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type,
                   uint64_t offset) {
  std::string out = text(name) + number(dims.size(), 4);
  for (uint64_t d : dims) out += number(d, 8);
  return out + number(type, 4) + number(offset, 8);
}
GgufContent parse(const std::string& bytes) {
  return parse_gguf({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "x.gguf");
}
std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}
std::string refusal_of_pair(const std::string& pair) {
  return refusal(file_of(pair, 1, "", 0, ""));
}
std::string refusal_of_tensor(const std::string& t) {
  return refusal(file_of("", 0, t, 1, std::string(64, '\1')));
}

TEST(Gguf, ReadsEveryTypeOfMetadata) {
  std::string pairs =
      text("u8") + number(0, 4) + number(200, 1) + text("i8") + number(1, 4) + number(0x80, 1) +
      text("u16") + number(2, 4) + number(65535, 2) + text("i16") + number(3, 4) +
      number(0xffff, 2) + text("u32") + number(4, 4) + number(4000000000, 4) + text("i32") +
      number(5, 4) + number(0xfffffffe, 4) + text("f32") + number(6, 4) + number(0x3fc00000, 4) +
      text("bool") + number(7, 4) + number(1, 1) + text("string") + number(8, 4) + text("hé") +
      text("u64") + number(10, 4) + number(1ull << 40, 8) + text("i64") + number(11, 4) +
      number(~0ull, 8) + text("f64") + number(12, 4) + number(0x3ff8000000000000, 8) +
      text("strings") + number(9, 4) + number(8, 4) + number(2, 8) + text("a") + text("") +
      text("i16s") + number(9, 4) + number(3, 4) + number(2, 8) + number(0xffff, 2) + number(7, 2) +
      text("nested") + number(9, 4) + number(9, 4) + number(1, 8) + number(0, 4) + number(3, 8) +
      "abc";
  for (uint32_t version : {2u, 3u}) {
    GgufContent c = parse(file_of(pairs, 15, "", 0, "", version));
    EXPECT_EQ(c.integer("u8"), 200);
    EXPECT_EQ(c.integer("i8"), -128);
    EXPECT_EQ(c.integer("u16"), 65535);
    EXPECT_EQ(c.integer("i16"), -1);
    EXPECT_EQ(c.integer("u32"), 4000000000);
    EXPECT_EQ(c.integer("i32"), -2);
    EXPECT_EQ(c.number("f32"), 1.5);
    EXPECT_TRUE(c.boolean("bool"));
    EXPECT_EQ(c.text("string"), "hé");
    EXPECT_EQ(c.integer("u64"), int64_t{1} << 40);
    EXPECT_EQ(c.integer("i64"), -1);
    EXPECT_EQ(c.number("f64"), 1.5);
    EXPECT_EQ(c.strings("strings"), (std::vector<std::string>{"a", ""}));
    EXPECT_EQ(c.integers("i16s"), (std::vector<int64_t>{-1, 7}));
    EXPECT_EQ(c.numbers("i16s"), (std::vector<double>{-1, 7}));
    const GgufArray& nested = std::get<GgufArray>(c.find("nested")->value);
    EXPECT_EQ(std::get<GgufArray>(nested.arrays[0].value).size(), 3);
    EXPECT_EQ(c.metadata[3].first, "i16");
    EXPECT_THROW(c.integer("f32"), Error);
    EXPECT_THROW(c.integer("missing"), Error);
    EXPECT_THROW(c.text("u8"), Error);
    EXPECT_THROW(c.strings("i16s"), Error);
    EXPECT_THROW(c.integers("strings"), Error);
  }
}

TEST(Gguf, ReadsBackWhatItWrites) {
  fs::path folder = fs::temp_directory_path() / ("wels_gguf_test_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  std::string path = (folder / "a.gguf").string();
  auto source = [](const std::string& name, DType dtype, std::vector<int64_t> shape, uint8_t fill) {
    int64_t n = tensor_bytes(dtype, shape).value();
    return TensorSource{name, dtype, shape, [=](const ByteSink& sink) {
                          for (int64_t i = 0; i < n; ++i) sink(&fill, 1);
                        }};
  };
  GgufMetadata metadata = {{"general.architecture", gguf_string("llama")},
                           {"u", gguf_u32(7)},
                           {"f", gguf_f32(0.1f)},
                           {"b", gguf_bool(true)},
                           {"s", gguf_strings({"x", "yy"})},
                           {"i", gguf_i32s({-1, 2})},
                           {"fs", gguf_f32s({0.5f})}};
  write_gguf(path, metadata,
             {source("a", DType::kF32, {3}, 1), source("q", DType::kQ8_0, {2, 5, 64}, 2),
              source("empty", DType::kF16, {0, 8}, 0), source("b", DType::kBF16, {7, 3}, 3),
              source("i", DType::kI32, {1}, 4)});
  GgufReader r(path);
  EXPECT_EQ(r->version, 3u);
  ASSERT_EQ(r->metadata.size(), 7u);
  EXPECT_EQ(r->metadata[2].first, "f");
  EXPECT_EQ(r->number("f"), static_cast<double>(0.1f));
  EXPECT_EQ(r->integers("i"), (std::vector<int64_t>{-1, 2}));
  ASSERT_EQ(r->tensors.size(), 5u);
  const TensorEntry& q = r->tensor("q");
  EXPECT_EQ(q.shape, (std::vector<int64_t>{2, 5, 64}));
  EXPECT_EQ(q.data.size(), 2u * 5 * 2 * 34);
  EXPECT_EQ(q.data.back(), 2);
  EXPECT_EQ(r->tensor("b").data[41], 3);
  EXPECT_EQ(r->tensor("empty").data.size(), 0u);
  EXPECT_THROW(r->tensor("c"), Error);
  for (const TensorEntry& t : r->tensors)
    EXPECT_TRUE(t.data.empty() || reinterpret_cast<uintptr_t>(t.data.data()) % 32 == 0);
  GgufReader moved = std::move(r);
  EXPECT_EQ(moved->tensor("a").data[0], 1);
  fs::remove_all(folder);
}

TEST(Gguf, EveryTruncationIsRefused) {
  std::string good = file_of(text("k") + number(8, 4) + text("value"), 1, tensor("t", {8}, 0, 0), 1,
                             std::string(32, '\1'));
  EXPECT_EQ(refusal(good), "accepted");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THROW(parse(good.substr(0, n)), Error) << n;
}

TEST(Gguf, RefusesHostileHeadersByName) {
  EXPECT_THAT(refusal("GGML....."), HasSubstr("does not begin with GGUF"));
  EXPECT_THAT(refusal(file_of("", 0, "", 0, "", 1)),
              HasSubstr("version 1 is not supported; supported: 2 and 3"));
  EXPECT_THAT(refusal(file_of("", 0, "", 0, "", 3u << 24)), HasSubstr("big endian"));
  EXPECT_THAT(refusal(file_of("", ~0ull, "", 0, "")),
              HasSubstr("the metadata announces 18446744073709551615 items"));
  EXPECT_THAT(refusal(file_of("", 0, "", 1ull << 60, "")), HasSubstr("the tensor list announces"));
  EXPECT_THAT(refusal_of_pair(number(1ull << 63, 8) + "12345678"),
              HasSubstr("a metadata key needs 9223372036854775808 bytes"));
  EXPECT_THAT(refusal_of_pair(text("k") + number(99, 4) + number(0, 4)),
              HasSubstr("metadata k has the unknown type 99"));
  EXPECT_THAT(refusal_of_pair(text("k") + number(7, 4) + number(2, 1)),
              HasSubstr("metadata k is a boolean of value 2"));
  EXPECT_THAT(refusal_of_pair(text("k") + number(9, 4) + number(12, 4) + number(1ull << 61, 8)),
              HasSubstr("announces 2305843009213693952"));
  std::string deep = text("k") + number(9, 4);
  for (int i = 0; i < 1000; ++i) deep += number(9, 4) + number(1, 8);
  EXPECT_THAT(refusal_of_pair(deep), HasSubstr("nests arrays deeper than 8"));
  std::string k = text("k") + number(0, 4) + number(1, 1);
  EXPECT_THAT(refusal(file_of(k + k, 2, "", 0, "")), HasSubstr("metadata k appears twice"));
  for (uint32_t bad : {0u, 3u, 1u << 30}) {
    EXPECT_THAT(refusal_of_pair(text("general.alignment") + number(4, 4) + number(bad, 4)),
                HasSubstr("general.alignment is"));
  }
  EXPECT_EQ(refusal_of_tensor(tensor("t", {16}, 0, 0)), "accepted");
  EXPECT_EQ(refusal_of_tensor(tensor("t", {}, 0, 0)), "accepted");
  EXPECT_THAT(refusal_of_tensor(tensor("t", {17}, 0, 0)),
              HasSubstr("tensor t: 68 bytes at offset 0 exceed the file's 64 bytes"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {1}, 0, 64)), HasSubstr("4 bytes at offset 64 exceed"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {1}, 0, ~31ull)), HasSubstr("exceed"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {1}, 0, 4)),
              HasSubstr("offset 4 is no multiple of the alignment 32"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {1, 1, 1, 1, 1}, 0, 0)), HasSubstr("5 dimensions"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {1ull << 63}, 0, 0)),
              HasSubstr("extent of 9223372036854775808"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {1ull << 62, 1ull << 62}, 0, 0)),
              HasSubstr("is impossible for f32"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {33}, 8, 0)),
              HasSubstr("is impossible for q8_0 with blocks of 32"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {256}, 16, 0)),
              HasSubstr("type IQ2_XXS (16), which is not supported"));
  EXPECT_THAT(refusal_of_tensor(tensor("t", {256}, 777, 0)), HasSubstr("type unknown (777)"));
  std::string two = tensor("a", {9}, 0, 0) + tensor("b", {8}, 0, 32);
  EXPECT_THAT(refusal(file_of("", 0, two, 2, std::string(64, '\1'))),
              HasSubstr("tensor a (offset 0, 36 bytes) overlaps tensor b (offset 32)"));
  two = tensor("a", {8}, 0, 0) + tensor("a", {8}, 0, 32);
  EXPECT_THAT(refusal(file_of("", 0, two, 2, std::string(64, '\1'))),
              HasSubstr("tensor a appears twice"));
}

}  // namespace
}  // namespace wels
