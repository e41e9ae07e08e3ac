#include "formats/safetensors.h"

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

class Safetensors : public ::testing::Test {
 protected:
  Safetensors() {
    folder_ = fs::temp_directory_path() / ("wels_safetensors_test_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Safetensors() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) { return (folder_ / name).string(); }
  fs::path folder_;
};

std::string file_of(const std::string& header, const std::string& data) {
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i)
    out[static_cast<size_t>(i)] = static_cast<char>(header.size() >> 8 * i);
  return out + header + data;
}
SafetensorsContent parse(const std::string& bytes) {
  return parse_safetensors({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()},
                           "x.safetensors");
}
std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}
TensorSource source(const std::string& name, DType dtype, std::vector<int64_t> shape,
                    uint8_t fill) {
  int64_t bytes = tensor_bytes(dtype, shape).value();
  return {name, dtype, shape, [=](const ByteSink& sink) {
            for (int64_t i = 0; i < bytes; ++i) sink(&fill, 1);
          }};
}

TEST_F(Safetensors, ReadsWhatItWrites) {
  write_safetensors(
      path("a.safetensors"),
      {source("bytes", DType::kU8, {3}, 7), source("scalar", DType::kF64, {}, 1),
       source("empty", DType::kF32, {0, 4}, 0), source("odd \"name\"", DType::kBF16, {3, 5}, 2),
       source("fp8", DType::kF8E4M3, {2, 3}, 9)},
      {{"format", "pt"}});
  SafetensorsReader r(path("a.safetensors"));
  ASSERT_EQ(r.tensors().size(), 5u);
  EXPECT_EQ(r.metadata().at("format"), "pt");
  const TensorEntry& t = r.at("odd \"name\"");
  EXPECT_EQ(t.dtype, DType::kBF16);
  EXPECT_EQ(t.shape, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(t.data.size(), 30u);
  EXPECT_EQ(t.data[29], 2);
  EXPECT_EQ(t.view().rows, 3);
  EXPECT_EQ(r.at("scalar").data.size(), 8u);
  EXPECT_EQ(r.at("empty").data.size(), 0u);
  EXPECT_EQ(r.data_bytes(), 3 + 8 + 30 + 6);
  EXPECT_EQ(r.find("nothing"), nullptr);
  for (const TensorEntry& e : r.tensors()) EXPECT_TRUE(e.aligned()) << e.name;
  // Moving keeps the entries valid.
  SafetensorsReader moved = std::move(r);
  EXPECT_EQ(moved.at("fp8").data[5], 9);
}

TEST_F(Safetensors, ShardsAndReadsTheFolderBack) {
  std::vector<TensorSource> tensors;
  for (uint8_t i = 0; i < 10; ++i)
    tensors.push_back(source("t" + std::to_string(i), DType::kF32, {i + 1}, i));
  tensors.push_back(source("large", DType::kU8, {1000}, 99));
  std::vector<std::string> files =
      write_safetensors_folder(path("m"), tensors, 64, {{"format", "pt"}});
  EXPECT_EQ(files.back(), "model.safetensors.index.json");
  EXPECT_GT(files.size(), 4u);
  SafetensorsReader r(path("m"));
  ASSERT_EQ(r.tensors().size(), 11u);
  for (uint8_t i = 0; i < 10; ++i) {
    const TensorEntry& t = r.at("t" + std::to_string(i));
    EXPECT_EQ(t.data.size(), 4u * (i + 1u));
    EXPECT_EQ(t.data.back(), i);
  }
  for (const std::string& f : files) {
    if (f.ends_with(".safetensors") && !SafetensorsReader(path("m/" + f)).find("large")) {
      EXPECT_LE(SafetensorsReader(path("m/" + f)).data_bytes(), 64);
    }
  }
  EXPECT_THROW(write_safetensors_folder(path("m"), tensors), Error);
  EXPECT_EQ(write_safetensors_folder(path("one"), tensors),
            std::vector<std::string>{"model.safetensors"});
}

TEST_F(Safetensors, RefusesShardsThatDoNotFitTheirIndex) {
  std::vector<TensorSource> tensors = {source("a", DType::kF32, {4}, 1),
                                       source("b", DType::kF32, {4}, 2)};
  write_safetensors_folder(path("m"), tensors, 16);
  std::string index = read_file(path("m/model.safetensors.index.json"));
  auto opened = [&] {
    try {
      SafetensorsReader r(path("m"));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  auto replaced = [&](const std::string& from, const std::string& to) {
    std::string s = index;
    s.replace(s.find(from), from.size(), to);
    write_file_atomic(path("m/model.safetensors.index.json"), s);
  };
  EXPECT_EQ(opened(), "accepted");
  replaced("\"a\"", "\"c\"");
  EXPECT_THAT(opened(),
              HasSubstr("tensor a of model-00001-of-00002.safetensors is not in the index"));
  replaced("\"a\"", "\"c\": \"model-00001-of-00002.safetensors\", \"a\"");
  EXPECT_THAT(opened(), HasSubstr("tensor c is not in model-00001-of-00002.safetensors"));
  replaced("model-00001-of-00002.safetensors", "../secret.safetensors");
  EXPECT_THAT(opened(), HasSubstr("no plain file name"));
  replaced("weight_map", "map");
  EXPECT_THAT(opened(), HasSubstr("weight_map"));
  write_file_atomic(path("m/model.safetensors.index.json"), index);
  std::string shard = path("m/model-00002-of-00002.safetensors");
  std::string bytes = read_file(shard);
  write_file_atomic(shard, bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(opened(), HasSubstr("model-00002-of-00002.safetensors: tensor b: its data ends at "
                                  "offset 16, the file has 15 bytes"));
  write_safetensors(shard, {source("a", DType::kF32, {4}, 1), source("b", DType::kF32, {4}, 2)});
  EXPECT_THAT(opened(), HasSubstr("tensor a is in both"));
  fs::remove(shard);
  EXPECT_THAT(opened(), HasSubstr("shard model-00002-of-00002.safetensors is missing"));
  EXPECT_THROW(SafetensorsReader(path("nothing")), Error);
  fs::create_directories(path("empty"));
  EXPECT_THROW(SafetensorsReader(path("empty")), Error);
}

TEST_F(Safetensors, AnInterruptedWriteLeavesTheOldFile) {
  write_safetensors(path("a.safetensors"), {source("a", DType::kU8, {4}, 1)});
  TensorSource broken{"b", DType::kU8, {4}, [](const ByteSink&) { throw Error("disk", "full"); }};
  EXPECT_THROW(write_safetensors(path("a.safetensors"), {broken}), Error);
  EXPECT_EQ(SafetensorsReader(path("a.safetensors")).at("a").data[3], 1);
}

TEST_F(Safetensors, EveryTruncationIsRefused) {
  std::string good = file_of(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})",
      "123456789");
  EXPECT_EQ(parse(good).tensors.size(), 2u);
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THROW(parse(good.substr(0, n)), Error) << n;
  EXPECT_THAT(refusal(good + "!"),
              HasSubstr("the tensors end at offset 9, the file has 10 bytes of data"));
}

TEST_F(Safetensors, RefusesHostileHeadersByName) {
  auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return refusal(file_of("{\"w\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
                               ",\"data_offsets\":" + offsets + "}}",
                           "12345678"));
  };
  EXPECT_EQ(one("F32", "[2]", "[0,8]"), "accepted");
  EXPECT_EQ(one("F32", "[2]", "[1,9]"),
            "x.safetensors: tensor w: its data ends at offset 9, the file has 8 bytes of data; the "
            "file is truncated or damaged; copy it again");
  EXPECT_EQ(one("F32", "[3]", "[0,8]"),
            "x.safetensors: tensor w: shape [3] of F32 needs 12 bytes, data_offsets [0, 8] hold 8");
  EXPECT_THAT(one("F32", "[1]", "[4,8]"), HasSubstr("4 bytes before tensor w"));
  EXPECT_THAT(one("F32", "[1]", "[0,4]"), HasSubstr("the tensors end at offset 4"));
  EXPECT_THAT(one("F32", "[2]", "[8,0]"), HasSubstr("run backwards"));
  EXPECT_THAT(one("F32", "[2]", "[0]"), HasSubstr("data_offsets"));
  EXPECT_THAT(one("F32", "[2]", "[0,-8]"), HasSubstr("data_offsets"));
  EXPECT_THAT(one("F32", "[-2]", "[0,8]"), HasSubstr("shape contains -2"));
  EXPECT_THAT(one("F32", "[2.0]", "[0,8]"), HasSubstr("shape contains 2.0"));
  EXPECT_THAT(one("F32", "[9223372036854775807,9223372036854775807,2]", "[0,8]"),
              HasSubstr("needs too many bytes"));
  EXPECT_THAT(one("F32", "[4611686018427387904,4]", "[0,0]"), HasSubstr("needs too many bytes"));
  EXPECT_THAT(one("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), HasSubstr("at most 8"));
  EXPECT_THAT(one("F8_E5M2", "[8]", "[0,8]"),
              HasSubstr("tensor w: dtype \"F8_E5M2\" is not supported; supported: F64"));
  EXPECT_THAT(one("F32", "{}", "[0,8]"), HasSubstr("shape must be a list"));

  std::string entry = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_THAT(refusal(file_of("{\"a\":" + entry + ",\"b\":" + entry + "}", "1234")),
              HasSubstr("tensor b [0, 4] overlaps tensor a [0, 4]"));
  EXPECT_THAT(refusal(file_of("{\"a\":" + entry + ",\"a\":" + entry + "}", "1234")),
              HasSubstr("\"a\" appears twice"));
  EXPECT_THAT(refusal(file_of("{\"a\":5}", "")), HasSubstr("not an object"));
  EXPECT_THAT(refusal(file_of("{\"a\":{\"dtype\":\"F32\"}}", "")), HasSubstr("no shape"));
  EXPECT_THAT(refusal(file_of("{\"__metadata__\":{\"a\":1}}", "")),
              HasSubstr("__metadata__.a is not a string"));
  EXPECT_THAT(refusal(file_of("[]", "")), HasSubstr("does not begin with {"));
  EXPECT_THAT(refusal(file_of("", "")), HasSubstr("does not begin with {"));
  EXPECT_THAT(refusal(file_of("{\"a\":", "")), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(std::string(16, '\xff')), HasSubstr("header length 18446744073709551615"));
  EXPECT_EQ(refusal(file_of("{}   ", "")), "accepted");
}

TEST_F(Safetensors, ReadsEveryGoldenFile) {
  const char* env = std::getenv("WELS_GOLDEN");
  fs::path golden = env ? env : "../shared/golden";
  if (!fs::exists(golden)) GTEST_SKIP() << "no reference data at " << golden << "; set WELS_GOLDEN";
  int files = 0;
  for (const auto& f : fs::recursive_directory_iterator(golden)) {
    if (f.path().extension() != ".safetensors") continue;
    SafetensorsReader r(f.path().string());
    EXPECT_FALSE(r.tensors().empty()) << f.path();
    ++files;
  }
  EXPECT_GT(files, 0);
  std::error_code none;
  for (const auto& f : fs::directory_iterator(golden / "models", none)) {
    SafetensorsReader r(f.path().string());
    EXPECT_NE(r.find("model.norm.weight"), nullptr) << f.path();
    // Copied through the writer in small shards, every tensor keeps its bytes.
    fs::path copy = folder_ / f.path().filename();
    std::vector<TensorSource> sources;
    for (const TensorEntry& e : r.tensors()) sources.push_back(copy_of(e));
    write_safetensors_folder(copy.string(), sources, 100000);
    SafetensorsReader again(copy.string());
    ASSERT_EQ(again.tensors().size(), r.tensors().size());
    for (const TensorEntry& e : r.tensors()) {
      const TensorEntry& t = again.at(e.name);
      EXPECT_EQ(t.shape, e.shape);
      EXPECT_EQ(t.dtype, e.dtype);
      EXPECT_TRUE(std::equal(t.data.begin(), t.data.end(), e.data.begin(), e.data.end())) << e.name;
    }
  }
}

}  // namespace
}  // namespace wels
