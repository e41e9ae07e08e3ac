#include "train/samples.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/file.h"

namespace wels {
namespace {

struct SamplesTest : testing::Test {
  SamplesTest() : path(testing::TempDir() + "samples_" + std::to_string(::getpid()) + ".jsonl") {
    std::filesystem::remove(path);
  }
  ~SamplesTest() override { std::filesystem::remove(path); }
  std::vector<nlohmann::json> lines() {
    std::vector<nlohmann::json> out;
    std::istringstream in(read_file(path));
    for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
    return out;
  }
  std::string path;
};

TEST_F(SamplesTest, TheLastOnesStay) {
  SampleWriter w(path, -1);
  for (int64_t i = 1; i <= SampleWriter::kKept + 5; ++i) w.write(i, {{"t", "p", "x", 0.5}});
  auto got = lines();
  ASSERT_EQ(static_cast<int64_t>(got.size()), SampleWriter::kKept);
  EXPECT_EQ(got.front()["step"], 6);
  EXPECT_EQ(got.back()["reward"], 0.5);
}

TEST_F(SamplesTest, LongTextsAreCutBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "é";
  SampleWriter(path, -1).write(1, {{"t", "p\xff", "x" + text, NAN}});
  auto got = lines();
  EXPECT_LE(got[0]["text"].get<std::string>().size(), SampleWriter::kLongest + 8);
  EXPECT_TRUE(got[0]["text"].get<std::string>().ends_with("é …"));
  EXPECT_TRUE(got[0]["reward"].is_null());
}

TEST_F(SamplesTest, AResumedRunWritesItsStepsOnce) {
  {
    SampleWriter w(path, -1);
    for (int64_t i = 1; i <= 5; ++i) w.write(i, {{"t", "p", "old", 1}});
  }
  SampleWriter w(path, 3);
  w.write(4, {{"t", "p", "new", 1}});
  auto got = lines();
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(got[2]["step"], 3);
  EXPECT_EQ(got[3]["text"], "new");
  SampleWriter fresh(path, -1);
  EXPECT_TRUE(lines().empty());
}

}  // namespace
}  // namespace wels
