#include "base/memory_nodes.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>

namespace wels {
namespace {

constexpr int kMostNodes = 1024;  // as the kernel's largest configuration
constexpr int kWordBits = 8 * sizeof(unsigned long);
using NodeMask = std::array<unsigned long, kMostNodes / kWordBits>;

}  // namespace

std::vector<int> memory_nodes() {
  NodeMask mask{};
  std::vector<int> nodes;
  if (::syscall(SYS_get_mempolicy, nullptr, mask.data(), kMostNodes, nullptr,
                MPOL_F_MEMS_ALLOWED) != 0) {
    return nodes;
  }
  for (int i = 0; i < kMostNodes; ++i) {
    if (mask[static_cast<size_t>(i / kWordBits)] >> (i % kWordBits) & 1) nodes.push_back(i);
  }
  return nodes;
}

bool spread_over_nodes(void* p, int64_t bytes, const std::vector<int>& nodes) {
  NodeMask mask{};
  for (int i : nodes) {
    if (i < 0 || i >= kMostNodes) return false;
    mask[static_cast<size_t>(i / kWordBits)] |= 1ul << (i % kWordBits);
  }
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t at = reinterpret_cast<uintptr_t>(p), begin = (at + page - 1) / page * page,
                  end = (at + static_cast<uintptr_t>(bytes)) / page * page;
  if (nodes.empty() || end <= begin) return false;
  return ::syscall(SYS_mbind, begin, end - begin, MPOL_INTERLEAVE, mask.data(), kMostNodes, 0) == 0;
}

}  // namespace wels
