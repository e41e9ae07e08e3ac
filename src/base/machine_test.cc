#include "base/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/log.h"

namespace wels {
namespace {

TEST(Machine, SaysWhatIsThereButNotWhoseItIs) {
  Machine m = machine();
  EXPECT_FALSE(m.cpu.empty());
  EXPECT_GE(m.cpus, 1);
  EXPECT_GT(m.memory_total_bytes, 64 << 20);
  EXPECT_LE(memory_available_bytes(), m.memory_total_bytes);
  EXPECT_GT(memory_available_bytes(), 0);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  std::string all = m.cpu + m.instruction_sets + m.system + m.compiler + m.version;
  if (std::strlen(host) > 3) {
    EXPECT_EQ(all.find(host), std::string::npos);
  }
}

TEST(Machine, PeakMemoryGrowsWithWhatIsTouched) {
  constexpr size_t kBytes = size_t{96} << 20;
  int64_t before = rss_bytes();
  std::vector<char> block(kBytes, 1);
  EXPECT_GT(rss_bytes(), before + (64 << 20));
  EXPECT_GE(peak_rss_bytes(), before + (64 << 20)) << int{block[kBytes / 2]};
}

TEST(Machine, FreeDiskOfAFolderThatIsNotThereYetIsItsParents) {
  EXPECT_GT(free_disk_bytes("."), 0);
  EXPECT_GT(free_disk_bytes("/tmp/wels_not_there/deeper/still"), 0);
}

TEST(Machine, DatesAreUtc) {
  EXPECT_EQ(utc_date(0), "1970-01-01 00:00:00 UTC");
  EXPECT_EQ(utc_date(1735689599.9), "2024-12-31 23:59:59 UTC");
}

TEST(Log, LevelsFilterAndMark) {
  ::testing::internal::CaptureStderr();
  log_debug("hidden {}", 1);
  log_info("shown {{}} {}", 2);
  log_warn("careful {}", "now");
  log_line(LogLevel::kInfo, "{no format}");
  set_log_level(LogLevel::kWarn);
  log_info("hidden");
  set_log_level(LogLevel::kOff);
  log_warn("hidden");
  set_log_level(LogLevel::kInfo);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "shown {} 2\nwarning: careful now\n{no format}\n");
}

}  // namespace
}  // namespace wels
