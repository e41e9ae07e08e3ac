#include "base/path_names.h"

#include <gtest/gtest.h>

namespace wels {
namespace {

using Names = std::vector<std::string>;

TEST(PathNames, AreTheShortestTailsByWhichThePathsDiffer) {
  EXPECT_EQ(distinct_tails({"out/a/run", "out/b/run/", "/x/best"}),
            (Names{"a/run", "b/run", "best"}));
  EXPECT_EQ(distinct_tails({"/p/a/x/run", "/q/a/x/run", "/q/b/run"}),
            (Names{"p/a/x/run", "q/a/x/run", "b/run"}));
  EXPECT_EQ(distinct_tails({"/run", "/a/run"}), (Names{"run", "a/run"}));
  EXPECT_EQ(distinct_tails({"/a/run", "/a/./run"}), (Names{"run", "run"}));
  EXPECT_EQ(distinct_tails({}), Names{});
}

}  // namespace
}  // namespace wels
