// Breadth-first search as a chain: the way through a graph and a maze.
#pragma once
#include <string>
#include <vector>

namespace wels {

struct Walk {
  // "a-b a-e a.be b-c b.ec e.c c-d d<c<b<a": what each node in turn newly leads to, with a dot and
  // who waits after it where the end is not seen yet; then the way back from the end.
  std::string chain;
  std::vector<int> path;  // from first to last; empty: there is no way
};
// next[i]: the neighbours of node i in the order in which they are looked at.
Walk breadth_first(const std::vector<std::vector<int>>& next, const std::vector<std::string>& names,
                   int from, int to);

}  // namespace wels
