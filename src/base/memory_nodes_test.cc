#include "base/memory_nodes.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace wels {
namespace {

int policy_at(void* p) {
  int policy = -1;
  return ::syscall(SYS_get_mempolicy, &policy, nullptr, 0, p, MPOL_F_ADDR) == 0 ? policy : -1;
}

class MemoryNodes : public testing::Test {
 protected:
  void SetUp() override {
    page_ = ::sysconf(_SC_PAGESIZE);
    block_ =
        static_cast<uint8_t*>(::mmap(nullptr, static_cast<size_t>(kPages * page_),
                                     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(static_cast<void*>(block_), MAP_FAILED);
    nodes_ = memory_nodes();
    if (nodes_.empty()) GTEST_SKIP() << "this system does not say which memory nodes there are";
  }
  void TearDown() override { ::munmap(block_, static_cast<size_t>(kPages * page_)); }

  static constexpr int64_t kPages = 8;
  int64_t page_ = 0;
  uint8_t* block_ = nullptr;
  std::vector<int> nodes_;
};

TEST_F(MemoryNodes, WholePagesAreSpreadAndTheirNeighboursAreNot) {
  for (int64_t i = 0; i < kPages * page_; ++i) block_[i] = static_cast<uint8_t>(i % 251);
  if (!spread_over_nodes(block_ + 1, 4 * page_, nodes_)) GTEST_SKIP() << "mbind is not allowed";
  EXPECT_EQ(policy_at(block_), MPOL_DEFAULT);
  for (int64_t i : {1, 2, 3}) EXPECT_EQ(policy_at(block_ + i * page_), MPOL_INTERLEAVE) << i;
  EXPECT_EQ(policy_at(block_ + 4 * page_), MPOL_DEFAULT);
  for (int64_t i = 0; i < kPages * page_; ++i) ASSERT_EQ(block_[i], i % 251) << i;
}

TEST_F(MemoryNodes, WhatCannotBeSpreadStaysAsItIs) {
  EXPECT_FALSE(spread_over_nodes(block_ + 1, page_, nodes_)) << "no whole page";
  EXPECT_FALSE(spread_over_nodes(block_, 0, nodes_));
  EXPECT_FALSE(spread_over_nodes(block_, kPages * page_, {}));
  EXPECT_FALSE(spread_over_nodes(block_, kPages * page_, {-1}));
  EXPECT_FALSE(spread_over_nodes(block_, kPages * page_, {1 << 20}));
  EXPECT_FALSE(spread_over_nodes(block_, kPages * page_, {1023})) << "a node that is not there";
  EXPECT_EQ(policy_at(block_), MPOL_DEFAULT);
}

}  // namespace
}  // namespace wels
