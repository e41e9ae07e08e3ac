#include "train/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "train/metrics.h"
#include "train/report_page.h"

namespace wels {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class Report : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/wels_report_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string run(const std::string& name, const std::vector<StepMetrics>& lines) {
    std::string folder = dir_ + "/" + name;
    make_folder(folder);
    MetricsWriter w(folder + "/metrics.jsonl", -1);
    for (const StepMetrics& m : lines) w.write(m);
    return folder;
  }
  std::string page(const std::vector<std::string>& folders) {
    write_report(dir_ + "/report.html", folders);
    return read_file(dir_ + "/report.html");
  }
  // The data that the page's script sees.
  static Json data(const std::string& html) {
    const std::string open = "<script type=\"application/json\" id=\"data\">";
    size_t from = html.find(open) + open.size();
    return Json::parse(html.substr(from, html.find("</script>", from) - from));
  }
  std::string dir_;
};

std::vector<StepMetrics> losses(int64_t n) {
  std::vector<StepMetrics> out;
  for (int64_t s = 1; s <= n; ++s) {
    StepMetrics m;
    m.step = s;
    m.add(metric::kLoss, static_cast<double>(s));
    out.push_back(m);
  }
  return out;
}

TEST_F(Report, TableHasTheLastAndTheBestValidationAndTheBalanceOfTheLastSteps) {
  std::vector<StepMetrics> lines = losses(60);
  for (StepMetrics& m : lines) {
    m.add(metric::kTokens, 1000.0 * static_cast<double>(m.step));
    m.add(metric::kTokensPerS, m.step == 1 ? 1.0 : 500.0);
    // The first ten steps are out of balance; they are not among the last fifty.
    m.add(metric::kMaxVio, std::vector<double>{0.1, m.step <= 10 ? 9.0 : 0.5});
  }
  lines[19].add(metric::kValLoss, 1.25);
  lines[59].add(metric::kValLoss, 1.5);
  lines[59].add(metric::kValBitsPerByte, 2.125);
  std::string moe = run("moe", lines), fresh = run("fresh", {});
  std::string table = write_report(dir_ + "/report.html", {moe, fresh});
  EXPECT_THAT(table, HasSubstr("| moe | 60 | 60.0k | 1.5000 | 1.2500 | 2.1250 | 0.50 | 500 |\n"));
  EXPECT_THAT(table, HasSubstr("| fresh | 0 | 0 |  |  |  |  |  |\n"));
}

TEST_F(Report, OneLayersMissingMaxVioLeavesThoseOfTheOthers) {
  auto lines = losses(3);
  lines[0].add(metric::kMaxVio, std::vector<double>{0.25, 0.75});
  lines[1].add(metric::kMaxVio, std::vector<double>{NAN, 0.25});
  lines[2].add(metric::kMaxVio, std::vector<double>{NAN, NAN});
  EXPECT_THAT(write_report(dir_ + "/report.html", {run("moe", lines)}),
              HasSubstr("| moe | 3 | 0 |  |  |  | 0.50 |  |\n"));
}

TEST_F(Report, CurvesTablesAndTextsArriveInThePage) {
  auto lines = losses(3);
  lines[1].add(metric::kGradNorm, std::nan(""));
  lines[2].add(metric::kMaxVio, std::vector<double>{0.5, 1.5});
  lines[2].add(metric::kLoad, MetricTable{2, 3, {1, 1, 1, 0, 0, 3}});
  lines[2].add_text(metric::kSample, "To be");
  Json r = data(page({run("one", lines)}))["runs"][0];
  EXPECT_EQ(r["name"], "one");
  EXPECT_EQ(r["scalars"]["loss"]["x"], Json({1, 2, 3}));
  EXPECT_EQ(r["scalars"]["loss"]["y"], Json({1, 2, 3}));
  EXPECT_TRUE(r["scalars"]["grad_norm"]["y"][0].is_null());
  EXPECT_EQ(r["vectors"]["maxvio"]["v"], Json::parse("[[0.5,1.5]]"));
  EXPECT_EQ(r["vectors"]["load_entropy"]["v"], Json::parse("[[1,0]]"));  // even; one alone
  EXPECT_EQ(r["tables"]["load"], Json::parse(R"({"rows":2,"cols":3,"x":[3],"v":[[1,1,1,0,0,3]]})"));
  EXPECT_EQ(r["texts"]["sample"], Json::parse(R"([[3,"To be"]])"));
}

TEST_F(Report, WhatARunSaysIsNeverReadAsHtml) {
  const std::string evil =
      "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \"'&";
  auto lines = losses(1);
  lines[0].add_text(metric::kSample, evil);
  lines[0].add("</script>", 1.0);
  std::string folder = run("evil", lines);
  write_run_info(folder, {evil, evil, 1, 2, 3, {{evil, {{evil, evil}}}}});
  for (const std::string& html : {page({folder}), page({folder, folder})}) {
    EXPECT_THAT(html, Not(HasSubstr("<script>alert")));
    EXPECT_THAT(html, Not(HasSubstr("<img")));
    EXPECT_THAT(html, Not(HasSubstr("<!--")));
    EXPECT_EQ(data(html)["runs"][0]["texts"]["sample"][0][1], evil);
    EXPECT_THAT(html, HasSubstr("&lt;img src=x onerror=alert(2)&gt; &quot;&#39;&amp;"));
  }
}

TEST_F(Report, LoadsNothingFromAnywhere) {
  std::string html = page({run("one", losses(2))});
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  for (const char* way : {" src=", "<link", "@import", "url(", "fetch(", "XMLHttp", "import("}) {
    EXPECT_THAT(html, Not(HasSubstr(way)));
  }
  EXPECT_EQ(html.find("http"), html.find("http-equiv"));
}

TEST_F(Report, LongCurvesAreAveragedWithTheirRangeKept) {
  auto lines = losses(10'000);
  lines[4999].scalars[0].second = 1e6;  // a spike of one step must not vanish
  lines[9999].scalars[0].second = NAN;
  Json s = data(page({run("long", lines)}))["runs"][0]["scalars"]["loss"];
  ASSERT_LE(s["x"].size(), 1500u);
  ASSERT_GE(s["x"].size(), 1000u);
  ASSERT_EQ(s["y"].size(), s["x"].size());
  double most = 0;
  for (size_t i = 0; i < s["x"].size(); ++i) {
    EXPECT_LE(s["lo"][i], s["y"][i]);
    EXPECT_GE(s["hi"][i], s["y"][i]);
    most = std::max(most, s["hi"][i].get<double>());
  }
  EXPECT_EQ(most, 1e6);
}

TEST_F(Report, ManySnapshotsAreThinnedAndTheLastOneStays) {
  auto lines = losses(1000);
  for (StepMetrics& m : lines) {
    m.add(metric::kLoad, MetricTable{8, 64, std::vector<double>(512, static_cast<double>(m.step))});
    m.add_text(metric::kSample, "at " + std::to_string(m.step));
  }
  Json r = data(page({run("wide", lines)}))["runs"][0];
  EXPECT_LE(r["tables"]["load"]["x"].size(), 240u);
  EXPECT_EQ(r["tables"]["load"]["x"].back(), 1000);
  EXPECT_EQ(r["tables"]["load"]["v"].back()[0], 1000);
  EXPECT_EQ(r["texts"]["sample"].size(), 60u);
  EXPECT_EQ(r["texts"]["sample"].back()[1], "at 1000");
}

TEST_F(Report, ResumedRunWithAHalfLineAndAStepTwiceIsDrawnOnce) {
  std::string folder = run("resumed", losses(3));
  std::string path = folder + "/metrics.jsonl";
  std::string text = read_file(path) + "{\"step\":3,\"loss\":30}\n{\"step\":4,\"lo";
  write_file_atomic(path, text);
  Json s = data(page({folder}))["runs"][0]["scalars"]["loss"];
  EXPECT_EQ(s["x"], Json({1, 2, 3}));
  EXPECT_EQ(s["y"], Json({1, 2, 30}));
}

TEST_F(Report, ComparisonShowsWhatDiffersAndWhatDoesNot) {
  std::string a = run("a", losses(3)), b = run("b", losses(4));
  write_run_info(a,
                 {"arm", "finished", 0, 0, 0, {{"Recipe", {{"preset", "nano"}, {"mtp", "on"}}}}});
  write_run_info(b,
                 {"arm", "stopped", 0, 0, 0, {{"Recipe", {{"preset", "nano"}, {"mtp", "off"}}}}});
  std::string html = page({a, b});
  size_t differs = html.find("what differs"), same = html.find("what is the same");
  size_t mtp = html.find("Recipe · mtp"), preset = html.find("Recipe · preset");
  ASSERT_TRUE(differs != html.npos && same != html.npos);
  EXPECT_TRUE(differs < mtp && mtp < same && same < preset);
  EXPECT_EQ(data(html)["runs"][0]["name"], "a");  // both say that they are "arm"
  EXPECT_EQ(data(html)["runs"][1]["name"], "b");
}

TEST_F(Report, RunsOfOneNameAreToldApartByTheirFolders) {
  std::string x = run("x/mine", losses(1)), y = run("y/mine", losses(2));
  std::string table = write_report(dir_ + "/report.html", {x, y, y});
  for (const char* line : {"| x/mine | 1 |", "| y/mine | 2 |", "| y/mine (2) | 2 |"})
    EXPECT_THAT(table, HasSubstr(line));
  EXPECT_EQ(data(read_file(dir_ + "/report.html"))["runs"][0]["name"], "x/mine");
}

TEST_F(Report, ARunThatWasKilledIsNotRunning) {
  std::string folder = run("killed", losses(1));
  write_run_info(folder, {"killed", "running", 1, 2, 3, {}});
  EXPECT_EQ(data(page({folder}))["runs"][0]["status"], "running");
  write_report(dir_ + "/report.html", {folder}, [](const std::string&) { return false; });
  EXPECT_EQ(data(read_file(dir_ + "/report.html"))["runs"][0]["status"], "stopped");
}

TEST_F(Report, HeaderHasTheRunsFigures) {
  auto lines = losses(2);
  lines[0].add(metric::kValLoss, 1.4697);
  lines[1].add(metric::kValLoss, 1.5);
  lines[1].add(metric::kTokens, 18.7e6);
  std::string folder = run("one", lines);
  RunInfo info{"nano", "running", 1764000000, 1764000060, 8, {machine_section(machine(), 2, 410)}};
  write_run_info(folder, info);
  std::string html = page({folder});
  for (const char* text : {"2 / 8", "1.4697", "18.7M", "2025-11-24 16:00:00 UTC", "1m00s later",
                           "410GFLOP/s", "width:25.0%"}) {
    EXPECT_THAT(html, HasSubstr(text));
  }
}

TEST_F(Report, RunInfoReadsBack) {
  RunInfo in{"n", "failed: \"x\"", 1.5, 2.5, 7, {{"A", {{"k", "v"}, {"k2", "v2"}}}, {"B", {}}}};
  write_run_info(dir_, in);
  RunInfo out = read_run_info(dir_);
  EXPECT_EQ(out.name, in.name);
  EXPECT_EQ(out.status, in.status);
  EXPECT_EQ(out.started, 1.5);
  EXPECT_EQ(out.updated, 2.5);
  EXPECT_EQ(out.total_steps, 7);
  ASSERT_EQ(out.sections.size(), 2u);
  EXPECT_EQ(out.sections[0].rows, in.sections[0].rows);
}

TEST_F(Report, BadInputIsAnErrorAndLeavesTheOldReport) {
  std::string folder = run("one", losses(1));
  std::string good = page({folder});
  EXPECT_THROW(page({}), Error);
  EXPECT_THROW(page({dir_ + "/none"}), Error);
  EXPECT_THROW(write_report(dir_, {folder}), Error);  // a folder is no file to write
  write_file_atomic(folder + "/run.json", "{\"name\":3}");
  EXPECT_THROW(page({folder}), Error);
  EXPECT_EQ(read_file(dir_ + "/report.html"), good);
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/report.html.tmp"));
}

TEST_F(Report, EverythingIsWithinMain) {
  std::string html = page({run("one", losses(2))});
  EXPECT_LT(html.find("<main>"), html.find("<h1>"));
  EXPECT_GT(html.find("</main>"), html.find("id=\"plots\""));
}

TEST_F(Report, RunWithoutAStepHasAPage) {
  EXPECT_THAT(page({run("empty", {})}), HasSubstr("</html>"));
}

}  // namespace
}  // namespace wels
