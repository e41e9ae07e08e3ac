// The report card's sums, by hand.
#include "apps/r1_card.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wels {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;

std::vector<CardRow> rows() {
  CardRow base{.name = "base", .kind = "base", .from = "", .active_parameters = 1000};
  base.outcome = {{"trained_tokens", 20}, {"sampled_tokens", 0}, {"seconds", 1800.0}};
  base.evaluation = ordered_json::parse(R"({"samples": 4,
    "greedy": {"length_mean": 3, "long_share": 0, "format": 1, "one_language": 0},
    "sampled": {"length_mean": 8.5, "long_share": 0.25, "format": 0.5, "one_language": 0.375},
    "tasks": {"parity": {"greedy": 0.5, "sampled": 0.625, "pass_at_k": 1},
              "gcd": {"greedy": 0.125, "sampled": 0, "pass_at_k": 0}}})");
  CardRow data{.name = "cold", .kind = "sample", .from = "base", .active_parameters = 1000};
  data.outcome = {{"trained_tokens", 0}, {"sampled_tokens", 70}, {"seconds", 3600.0}, {"kept", 12}};
  return {base, data};
}

TEST(ReportCard, CountsSixOperationsATrainedTokenAndTwoASampledOne) {
  EXPECT_EQ(flops_of(rows()[0]), 6.0 * 1000 * 20);
  EXPECT_EQ(flops_of(rows()[1]), 2.0 * 1000 * 70);
}

TEST(ReportCard, SumsTokensTimeAndMoney) {
  ordered_json j = card_json("r", rows(), 2.0);
  EXPECT_EQ(j["stages"][0]["money"], 1.0);
  EXPECT_EQ(j["stages"][1]["money"], 2.0);
  EXPECT_EQ(j["stages"][1]["kept"], 12);
  EXPECT_FALSE(j["stages"][1].contains("evaluation"));
  EXPECT_EQ(j["total"]["flops"], 6.0 * 1000 * 20 + 2.0 * 1000 * 70);
  EXPECT_EQ(j["total"]["seconds"], 5400.0);
  EXPECT_EQ(j["total"]["money"], 3.0);
  EXPECT_EQ(j["total"]["trained_tokens"], 20.0);
}

TEST(ReportCard, IsATableWithALineForEachStage) {
  std::string table = card_table(rows(), 0);
  EXPECT_THAT(table, HasSubstr("parity: greedy / sampled / pass@4"));
  EXPECT_THAT(table, HasSubstr("0.500 / 0.625 / 1.000"));
  EXPECT_THAT(table, HasSubstr("0.125 / 0.000 / 0.000"));
  EXPECT_THAT(table, HasSubstr("3.0 / 8.5"));
  EXPECT_THAT(table, HasSubstr("0.00 / 0.25"));
  EXPECT_THAT(table, HasSubstr("0.00 / 0.38"));  // of one language
  EXPECT_THAT(table, HasSubstr("1h30m"));
  EXPECT_THAT(table, testing::Not(HasSubstr("money")));
  EXPECT_THAT(card_table(rows(), 2), HasSubstr("3.0000"));
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5);  // head, line, two stages, the sum
}

TEST(ReportCard, HasBitsPerByteAndExamplesWhereTheyWereMeasured) {
  std::vector<CardRow> some = rows();
  some[1].evaluation = ordered_json::parse(R"({
    "texts": {"domain": {"bits_per_byte": 1.5}, "general": {"bits_per_byte": 2.25}},
    "examples": {"nats_per_token": 0.75, "token_accuracy": 0.5}})");
  std::string table = card_table(some, 1);
  EXPECT_THAT(table, HasSubstr("domain: bits per byte"));
  EXPECT_THAT(table, HasSubstr("| 1.5000 "));
  EXPECT_THAT(table, HasSubstr("| 2.2500 "));
  EXPECT_THAT(table, HasSubstr("0.750 / 0.500"));
  // Every line has as many cells.
  std::vector<std::ptrdiff_t> cells;
  for (size_t at = 0; at < table.size();) {
    size_t end = table.find('\n', at);
    cells.push_back(std::count(table.begin() + static_cast<long>(at),
                               table.begin() + static_cast<long>(end), '|'));
    at = end + 1;
  }
  EXPECT_THAT(cells, testing::Each(cells[0]));
}

}  // namespace
}  // namespace wels
