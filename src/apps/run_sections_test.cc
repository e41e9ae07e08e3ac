#include "apps/run_sections.h"

#include <gmock/gmock.h>

#include <filesystem>

#include "base/file.h"
#include "base/test_folder.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

class RunReportTest : public testing::Test {
 protected:
  void SetUp() override {
    make_folder(out_);
    write_file_atomic(out_ + "metrics.jsonl", "");
  }
  StageResult end(RunReport& report, bool begun) {
    return report.watch<StageResult>([&]() -> StageResult {
      if (begun) report.write(7);
      throw Error("training", "is over");
    });
  }
  TestFolder folder_;
  std::string out_ = folder_ / "run/";
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

TEST_F(RunReportTest, ThePageIsMadeAtBothEndsAndSeldomBetweenThem) {
  std::string lines;
  for (int i = 1; i <= 20000; ++i) lines += "{\"step\":" + std::to_string(i) + ",\"loss\":1}\n";
  write_file_atomic(out_ + "metrics.jsonl", lines);
  RunReport report(out_, {});
  report.write(7);
  fs::remove(out_ + "report.html");
  report.write(8);
  EXPECT_EQ(read_run_info(out_).total_steps, 8);
  EXPECT_FALSE(fs::exists(out_ + "report.html"));
  report.watch<StageResult>([] { return StageResult(); });
  EXPECT_TRUE(fs::exists(out_ + "report.html"));
}

}  // namespace
}  // namespace wels
