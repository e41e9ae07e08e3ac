#include "train/status.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

namespace wels {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

TEST(Status, EightyColumnsHoldLossRateShareOfThePeakTimeLeftAndBalance) {
  RunStatus s{.step = 12000,
              .steps = 50000,
              .loss = 3.12345,
              .tokens_per_s = 12345,
              .gflops = 123.4,
              .fraction_of_peak = 0.456,
              .left_s = 3725,
              .max_violation = 0.234,
              .more = "  val 3.2345 (1.234 bits/byte)"};
  std::string line = status_line(s);
  EXPECT_EQ(line.substr(0, 79),
            "step 12000/50000  loss 3.1235  12.3k tok/s  46% peak  1h02m left  MaxVio 0.23  ");
  EXPECT_THAT(line, EndsWith("val 3.2345 (1.234 bits/byte)  123 GFLOP/s"));
}

TEST(Status, SaysNothingOfWhatIsNotThereOrNotKnown) {
  EXPECT_EQ(status_line({.step = 1, .steps = 9, .loss = 2, .tokens_per_s = 10, .left_s = NAN}),
            "step 1/9  loss 2.0000  10 tok/s  ? left");
  EXPECT_EQ(status_line({.step = 9, .steps = 9, .loss = 2, .tokens_per_s = 10}),
            "step 9/9  loss 2.0000  10 tok/s");
}

TEST(Status, ASampleIsAFewIndentedLinesWithoutControlCharacters) {
  EXPECT_EQ(sample_lines(20, "one\n\n two\tx\x1b[2J\xff", false),
            "  sample at step 20:\n    one\n     two x [2J\uFFFD");
  EXPECT_EQ(sample_lines(1, "a", true), "\x1b[2m  sample at step 1:\n    a\x1b[0m");
  std::string many = sample_lines(1, std::string(1000, 'x') + "end", false);
  EXPECT_EQ(std::count(many.begin(), many.end(), '\n'), 4);
  EXPECT_THAT(many, EndsWith("x …"));
  EXPECT_EQ(std::count(many.begin(), many.end(), 'x'), 4 * 74);
  std::string chinese;
  for (int i = 0; i < 200; ++i) chinese += "中";
  std::vector<std::string> lines;
  std::istringstream text(sample_lines(1, chinese, false));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[1].size(), 4 + 37 * 3);  // of two columns and three bytes each
  EXPECT_THAT(lines[4], EndsWith("中 …"));
  EXPECT_EQ(sample_lines(1, std::string(74, 'x') + "\ny", false),
            "  sample at step 1:\n    " + std::string(74, 'x') + "\n    y");
}

}  // namespace
}  // namespace wels
