#include "apps/run_sections.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "base/file.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

class RunReportTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "wels_report_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    out_ = folder_ + "/run/";
    make_folder(out_);
    write_file_atomic(out_ + "metrics.jsonl", "");
  }
  void TearDown() override { fs::remove_all(folder_); }
  StageResult end(RunReport& report, bool begun) {
    return report.watch<StageResult>([&]() -> StageResult {
      if (begun) report.write(7);
      throw Error("training", "is over");
    });
  }
  std::string folder_, out_;
};

TEST_F(RunReportTest, AnErrorStandsInTheReportOfARunThatHadBegun) {
  RunReport report(out_, {});
  EXPECT_THROW(end(report, false), Error);
  EXPECT_FALSE(fs::exists(out_ + "run.json"));
  EXPECT_THROW(end(report, true), Error);
  RunInfo info = read_run_info(out_);
  EXPECT_EQ(info.status, "failed: training: is over");
  EXPECT_EQ(info.name, "run");
  EXPECT_EQ(info.total_steps, 7);
}

TEST_F(RunReportTest, ARunThatGoesOnStartedWhenItBegan) {
  RunInfo then;
  then.started = 1000;
  write_run_info(out_, then);
  RunReport(out_, {}).write(1);
  EXPECT_GT(read_run_info(out_).started, 1000);  // without a checkpoint nothing goes on
  write_run_info(out_, then);
  make_folder(out_ + "checkpoints/step-00000001");
  RunReport(out_, {}).write(1);
  EXPECT_EQ(read_run_info(out_).started, 1000);
}

}  // namespace
}  // namespace wels
