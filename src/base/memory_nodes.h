// The memory of machines with several sockets (NUMA nodes). Which thread multiplies what is decided
// as work comes, so no place is near for all: what is large is spread over all nodes in equal
// parts, and all of them are read at once.
#pragma once
#include <cstdint>
#include <vector>

namespace wels {

// The nodes that this process may take memory from; empty where the system doesn't say.
std::vector<int> memory_nodes();

// Takes the whole pages in [p, p + bytes) from the nodes in turns when they are first touched
// (mbind, MPOL_INTERLEAVE). False, and nothing changes, where the system refuses it or there is no
// whole page.
bool spread_over_nodes(void* p, int64_t bytes, const std::vector<int>& nodes);

}  // namespace wels
