#include "base/check.h"

#include <gtest/gtest.h>

namespace wels {
TEST(Check, PrintsBothValuesOfAFailedComparison) {
  int a = 3, b = 4;
  EXPECT_DEATH(CHECK(a == b), "CHECK\\(a == b\\) failed: 3 == 4");
}
TEST(Check, AcceptsPlainBooleans) {
  bool ok = false;
  EXPECT_DEATH(CHECK(ok), "false");
  CHECK(!ok);
}
}  // namespace wels
