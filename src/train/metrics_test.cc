#include "train/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/machine.h"
#include "train/tfevents.h"

namespace wels {
namespace {

class Metrics : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/wels_metrics_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string path() const { return dir_ + "/metrics.jsonl"; }
  std::string dir_;
};

// Without the syncing of write_file_atomic: these tests write hundreds of files.
void put_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

StepMetrics at_step(int64_t step) {
  StepMetrics m;
  m.step = step;
  m.add("loss", 1.0 / static_cast<double>(step + 1));
  return m;
}

TEST_F(Metrics, LineReadsBackWithEveryBitAndInOrder) {
  StepMetrics m = at_step(7);
  m.add("lr", 4.2e-4);
  m.add("tokens", 14.8e12);
  m.add("bad", std::nan(""));
  m.add("worse", -std::numeric_limits<double>::infinity());
  m.add("maxvio", std::vector<double>{0.5, std::nan(""), 2});
  m.add("load", MetricTable{2, 3, {1, 2, 3, 4, 5, 6.5}});
  m.add("none", std::vector<double>{});
  m.add_text("sample", "a \"quote\"\n\xff</script> \xe4\xbd\xa0");
  std::string line = to_json_line(m);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_NE(line.find("\"bad\":null,\"worse\":null"), std::string::npos) << line;
  StepMetrics r;
  ASSERT_TRUE(parse_json_line(line, &r)) << line;
  EXPECT_EQ(r.step, 7);
  ASSERT_EQ(r.scalars.size(), 5u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(r.scalars[i], m.scalars[i]);
  EXPECT_TRUE(std::isnan(r.scalar("bad")) && std::isnan(r.scalar("worse")) &&
              std::isnan(r.scalar("no")));
  ASSERT_EQ(r.vectors.size(), 2u);
  EXPECT_EQ(r.vectors[0].second[2], 2);
  EXPECT_TRUE(std::isnan(r.vectors[0].second[1]));
  EXPECT_EQ(r.tables[0].second.cols, 3);
  EXPECT_EQ(r.tables[0].second.values, m.tables[0].second.values);
  EXPECT_EQ(r.texts[0].second, "a \"quote\"\n\xef\xbf\xbd</script> \xe4\xbd\xa0");
}

TEST_F(Metrics, LinesThatAreNoMetricsAreRefused) {
  StepMetrics m;
  for (const char* bad :
       {"", "{", "[1]", "{}", "{\"loss\":1}", "{\"step\":\"1\"}", "{\"step\":1.5}",
        "{\"step\":1,\"a\":{}}", "{\"step\":1,\"a\":[1,\"x\"]}", "{\"step\":1,\"a\":[[1,2],[3]]}",
        "{\"step\":1,\"a\":[[1],2]}", "{\"step\":1} x"}) {
    EXPECT_FALSE(parse_json_line(bad, &m)) << bad;
  }
}

TEST_F(Metrics, ResumeTakesBackStepsThatComeAgain) {
  {
    MetricsWriter w(path(), -1);
    for (int64_t s = 1; s <= 9; ++s) w.write(at_step(s));
  }
  {
    MetricsWriter w(path(), 5);
    for (int64_t s = 6; s <= 7; ++s) w.write(at_step(s));
  }
  auto all = read_metrics(path());
  ASSERT_EQ(all.size(), 7u);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].step, static_cast<int64_t>(i) + 1);
  { MetricsWriter w(path(), -1); }
  EXPECT_TRUE(read_metrics(path()).empty());
}

TEST_F(Metrics, EveryPlaceWhereAKillCanCutTheFileIsSurvived) {
  std::string whole;
  for (int64_t s = 1; s <= 3; ++s) whole += to_json_line(at_step(s)) + "\n";
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    put_file(path(), whole.substr(0, cut));
    int64_t bad = -1;
    auto before = read_metrics(path(), &bad);
    EXPECT_LE(bad, 1);
    { MetricsWriter(path(), 3).write(at_step(4)); }
    auto after = read_metrics(path(), &bad);
    EXPECT_EQ(bad, 0) << cut;
    ASSERT_FALSE(after.empty());
    EXPECT_EQ(after.back().step, 4);
    for (size_t i = 0; i + 1 < after.size(); ++i)
      EXPECT_EQ(after[i].step, static_cast<int64_t>(i) + 1);
  }
}

TEST_F(Metrics, FullDiskIsOneErrorAndLeavesWholeLines) {
  MetricsWriter w(path(), -1);
  w.write(at_step(1));
  auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{}, small{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = std::filesystem::file_size(path()) + 5;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(w.write(at_step(2)), Error);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, old_handler);
  w.write(at_step(3));
  int64_t bad = -1;
  auto all = read_metrics(path(), &bad);
  EXPECT_EQ(bad, 0);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[1].step, 3);
}

TEST_F(Metrics, MissingFolderIsAnError) {
  EXPECT_THROW(MetricsWriter(dir_ + "/no/metrics.jsonl", -1), Error);
  EXPECT_THROW(TfEventsWriter(dir_ + "/no", -1), Error);
}

TEST(TfEvents, Crc32cKnownVectors) {  // RFC 3720 B.4
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string up;
  for (int i = 0; i < 32; ++i) up += static_cast<char>(i);
  EXPECT_EQ(crc32c(up), 0x46DD794Eu);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST_F(Metrics, EventFileIsByteForByteWhatTheFormatSays) {
  {
    TfEventsWriter w(dir_, -1);
    std::vector<std::pair<std::string, double>> scalars = {{"ab", 1.5}, {"time", 2.0}};
    w.write(300, 2.0, scalars);
  }
  std::string file = read_file(dir_ + "/events.out.tfevents.wels");
  // Event {wall_time, step 0, file_version}: 09 + 8 bytes, 10 00, 1a 0d + 13 characters.
  std::string first = '\x09' + file.substr(13, 8) + std::string("\x10\0\x1a\x0d", 4) + "brain.Event:2";
  EXPECT_NEAR(read_tfevents(dir_ + "/events.out.tfevents.wels")[0].wall_time, unix_seconds(), 60);
  // wall_time 2.0, step 300 = ac 02, summary { value { tag "ab" simple_value 1.5 } }
  std::string second =
      std::string("\x09\0\0\0\0\0\0\0\x40\x10\xac\x02\x2a\x0b\x0a\x09\x0a\x02", 18) + "ab" +
      std::string("\x15\0\0\xc0\x3f", 5);
  std::string want;
  for (const std::string& data : {first, second}) {
    std::string length(8, '\0');
    length[0] = static_cast<char>(data.size());
    auto put_crc = [&](const std::string& of) {
      uint32_t c = crc32c(of), masked = ((c >> 15) | (c << 17)) + 0xa282ead8u;
      for (int i = 0; i < 4; ++i) want += static_cast<char>(masked >> (8 * i));
    };
    want += length;
    put_crc(length);
    want += data;
    put_crc(data);
  }
  EXPECT_EQ(file, want);
}

TEST_F(Metrics, EventFileResumesWithoutAStepTwice) {
  auto write = [&](int64_t from, int64_t to, int64_t keep) {
    TfEventsWriter w(dir_, keep);
    for (int64_t s = from; s <= to; ++s)
      w.write(s, 1e9 + static_cast<double>(s), at_step(s).scalars);
  };
  write(1, 9, -1);
  std::string path = dir_ + "/events.out.tfevents.wels";
  std::string whole = read_file(path);
  for (size_t cut : {whole.size(), whole.size() - 1, whole.size() - 20, size_t{30}, size_t{0}}) {
    put_file(path, whole.substr(0, cut));
    write(6, 7, 5);
    int64_t valid = 0;
    auto events = read_tfevents(path, &valid);
    EXPECT_EQ(valid, static_cast<int64_t>(std::filesystem::file_size(path)));
    ASSERT_GE(events.size(), 3u);
    EXPECT_EQ(events[0].file_version, "brain.Event:2");
    for (size_t i = 2; i < events.size(); ++i) EXPECT_GT(events[i].step, events[i - 1].step);
    EXPECT_EQ(events.back().step, 7);
    EXPECT_EQ(events.back().wall_time, 1e9 + 7);
    ASSERT_EQ(events.back().scalars.size(), 1u);
    EXPECT_EQ(events.back().scalars[0].second, 1.0f / 8);
  }
}

TEST_F(Metrics, DamagedEventRecordEndsTheReading) {
  {
    TfEventsWriter w(dir_, -1);
    for (int64_t s = 1; s <= 3; ++s) w.write(s, 0, at_step(s).scalars);
  }
  std::string path = dir_ + "/events.out.tfevents.wels", whole = read_file(path);
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bad = whole;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    put_file(path, bad);
    int64_t valid = 0;
    EXPECT_LT(read_tfevents(path, &valid).size(), 4u) << i;
    EXPECT_LE(valid, static_cast<int64_t>(i));
  }
}

}  // namespace
}  // namespace wels
