// Shortest ways through a graph and through a maze.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"
#include "tasks/generator.h"
#include "tasks/generators.h"
#include "tasks/plain.h"

namespace wels {
namespace {

using Graph = std::vector<std::vector<int>>;

struct Walk {
  std::string chain;
  std::vector<int> path;  // from first to last; empty: there is no way
};

void connect(Graph& g, int a, int b) {
  g[static_cast<size_t>(a)].push_back(b);
  g[static_cast<size_t>(b)].push_back(a);
}
bool connected(const Graph& g, int a, int b) {
  const std::vector<int>& next = g[static_cast<size_t>(a)];
  return std::find(next.begin(), next.end(), b) != next.end();
}

// A question about a graph read again, so that scoring needs nothing beside it:
// "path a-b b-c c-d: a to d".
struct PathQuestion {
  Graph next;
  int from, to;
};
PathQuestion read_path_question(const std::string& question) {
  PathQuestion q{Graph(26), 0, 0};
  std::vector<std::string_view> words = split_words(question);
  for (std::string_view w : words) {
    if (w.size() >= 3 && w[1] == '-') connect(q.next, w[0] - 'a', w[2] - 'a');
  }
  CHECK(words.size() >= 4u);
  q.from = words[words.size() - 3][0] - 'a';
  q.to = words.back()[0] - 'a';
  return q;
}

using Edge = std::pair<int, int>;

char letter(int node) { return static_cast<char>('a' + node); }
char capital(int node) { return static_cast<char>('A' + node); }

// Breadth first, a layer of nodes at a time. Every layer reads all edges again in their order, and
// behind one that leads from the layer to a node not seen before stands that node as a capital and
// which one is before it: whether an edge counts can be seen from its two letters and what stands
// before it, so nothing has to be searched for in the question. The end: the way back, "Cd Dg Gb",
// where each capital has stood once before, in front of the letter that comes next. What follows
// an edge (the next one, the next layer or the way back) is decided at one place, behind a space.
Walk walk_in_layers(const std::vector<Edge>& edges, int nodes, int from, int to) {
  Walk walk;
  std::vector<int> parent(static_cast<size_t>(nodes), -1), layer = {from};
  auto before = [&](int node) -> int& { return parent[static_cast<size_t>(node)]; };
  before(from) = from;
  while (before(to) < 0) {
    if (!walk.chain.empty()) walk.chain += " ; ";
    for (int node : layer) walk.chain += letter(node);
    walk.chain += ":";
    std::vector<int> found;
    auto leads = [&](int a, int b) {
      return before(b) < 0 && std::find(layer.begin(), layer.end(), a) != layer.end();
    };
    for (auto [a, b] : edges) {
      walk.chain += fmt::format(" {}-{}", letter(a), letter(b));
      if (!leads(a, b)) std::swap(a, b);
      if (!leads(a, b)) continue;
      walk.chain += fmt::format(",{}{}", capital(b), letter(a));
      before(b) = a;
      found.push_back(b);
      if (b == to) break;
    }
    CHECK(!found.empty());  // the graph is of one piece
    layer = std::move(found);
  }
  for (int node = to; node != from; node = before(node)) {
    walk.path.insert(walk.path.begin(), node);
    walk.chain += fmt::format(" {}{}", capital(node), letter(before(node)));
  }
  walk.path.insert(walk.path.begin(), from);
  return walk;
}

// A tree and some more edges between nodes with letters in random order, and two nodes of it that
// are no neighbours where there are such.
TaskExample make_path_example(Rng& rng, int nodes) {
  std::vector<int> order;
  for (int i = 0; i < nodes; ++i) order.push_back(i);
  shuffle(order, rng);
  Graph all(static_cast<size_t>(nodes));
  std::vector<Edge> edges;
  auto add = [&](int a, int b) {
    if (a == b || connected(all, a, b)) return;
    connect(all, a, b);
    edges.emplace_back(rng.below(2) ? Edge(a, b) : Edge(b, a));
  };
  // Each node hangs on one of the three before it, which makes ways long.
  for (size_t i = 1; i < order.size(); ++i)
    add(order[i], order[i - 1 - rng.below(std::min<size_t>(i, 3))]);
  for (int i = 0; i < nodes / 4; ++i) {
    int a = pick(order, rng);
    add(a, pick(order, rng));
  }
  shuffle(edges, rng);

  TaskExample e;
  e.question = "path";
  for (auto [a, b] : edges) e.question += fmt::format(" {}-{}", letter(a), letter(b));
  Walk walk;
  int from = 0, to = 0;
  for (int tries = 0; tries < 20 && walk.path.size() < 3; ++tries) {
    do {
      from = pick(order, rng);
      to = pick(order, rng);
    } while (from == to);
    walk = walk_in_layers(edges, nodes, from, to);
  }
  e.question += fmt::format(": {} to {}", letter(from), letter(to));
  for (int node : walk.path)
    e.answer += fmt::format("{}{}", e.answer.empty() ? "" : " ", letter(node));
  e.chain = std::move(walk.chain);
  return e;
}

// Any shortest way is right.
double score_path(const TaskExample& example, std::string_view final) {
  PathQuestion q = read_path_question(example.question);
  std::vector<int> path;
  for (char c : normalised(final)) {
    if (c >= 'a' && c <= 'z') {
      path.push_back(c - 'a');
    } else if (std::string_view(" -<>,").find(c) == std::string_view::npos) {
      return 0;
    }
  }
  size_t shortest = (example.answer.size() + 1) / 2;
  if (path.size() != shortest || path.front() != q.from || path.back() != q.to) return 0;
  for (size_t i = 1; i < path.size(); ++i) {
    if (!connected(q.next, path[i - 1], path[i])) return 0;
  }
  return 1;
}

constexpr struct {
  int rows, columns;
  char letter;
} kMoves[] = {{0, 1, 'R'}, {1, 0, 'D'}, {0, -1, 'L'}, {-1, 0, 'U'}};

// Breadth first, a cell at a time: "00-01 00.01 01-02 01-11 01.02,11 ... 22<12<11": what each cell
// in turn newly leads to, with a dot and who waits after it where the end is not seen yet; then the
// way back. next[i]: the neighbours of i in the order in which they are looked at.
Walk walk_one_by_one(const Graph& next, const std::vector<std::string>& names, int from, int to) {
  Walk walk;
  auto name = [&](int node) -> const std::string& { return names[static_cast<size_t>(node)]; };
  std::vector<int> parent(next.size(), -1), queue = {from};
  parent[static_cast<size_t>(from)] = from;
  auto seen = [&](int node) { return parent[static_cast<size_t>(node)] >= 0; };
  auto say = [&](const std::string& step) {
    walk.chain += (walk.chain.empty() ? "" : " ") + step;
  };
  for (size_t i = 0; i < queue.size() && !seen(to); ++i) {
    for (int n : next[static_cast<size_t>(queue[i])]) {
      if (seen(n)) continue;
      parent[static_cast<size_t>(n)] = queue[i];
      queue.push_back(n);
      say(name(queue[i]) + "-" + name(n));
      if (n == to) break;
    }
    if (seen(to)) break;
    std::vector<std::string> waiting;
    for (size_t w = i + 1; w < queue.size(); ++w) waiting.push_back(name(queue[w]));
    say(fmt::format("{}.{}", name(queue[i]), fmt::join(waiting, ",")));
  }
  if (!seen(to)) return walk;
  for (int node = to;; node = parent[static_cast<size_t>(node)]) {
    walk.path.insert(walk.path.begin(), node);
    walk.chain += (node == to ? " " : "<") + name(node);
    if (node == from) return walk;
  }
}

Graph maze_graph(const std::vector<std::string>& rows) {
  int n = static_cast<int>(rows.size());
  Graph next(static_cast<size_t>(n * n));
  auto open = [&](int r, int c) {
    return r >= 0 && r < n && c >= 0 && c < n &&
           rows[static_cast<size_t>(r)][static_cast<size_t>(c)] == '.';
  };
  for (int r = 0; r < n; ++r) {
    for (int c = 0; c < n; ++c) {
      if (!open(r, c)) continue;
      for (const auto& m : kMoves) {
        if (open(r + m.rows, c + m.columns))
          next[static_cast<size_t>(r * n + c)].push_back((r + m.rows) * n + c + m.columns);
      }
    }
  }
  return next;
}

TaskExample make_maze_example(Rng& rng, int side) {
  std::vector<std::string> names;
  for (int i = 0; i < side * side; ++i) names.push_back(fmt::format("{}{}", i / side, i % side));
  std::vector<std::string> rows;
  Walk walk;
  do {  // until there is a way from corner to corner
    rows.assign(static_cast<size_t>(side), "");
    for (std::string& row : rows) {
      for (int c = 0; c < side; ++c) row += rng.below(3) == 0 ? '#' : '.';
    }
    rows.front().front() = rows.back().back() = '.';
    walk = walk_one_by_one(maze_graph(rows), names, 0, side * side - 1);
  } while (walk.path.empty());
  TaskExample e;
  e.question = fmt::format("maze\n{}", fmt::join(rows, "\n"));
  for (size_t i = 1; i < walk.path.size(); ++i) {
    for (const auto& m : kMoves) {
      if (walk.path[i] - walk.path[i - 1] == m.rows * side + m.columns) e.answer += m.letter;
    }
  }
  e.chain = walk.chain;
  return e;
}

// Any shortest way is right.
double score_maze(const TaskExample& example, std::string_view final) {
  std::vector<std::string> rows;
  for (std::string_view w : split_words(example.question)) rows.emplace_back(w);
  rows.erase(rows.begin());
  int side = static_cast<int>(rows.size()), r = 0, c = 0;
  size_t moves = 0;
  for (char letter : narrowed(final)) {
    if (letter == ' ' || letter == ',') continue;
    const auto* m = std::find_if(std::begin(kMoves), std::end(kMoves),
                                 [&](const auto& k) { return k.letter == letter; });
    if (m == std::end(kMoves)) return 0;
    r += m->rows;
    c += m->columns;
    bool inside = r >= 0 && r < side && c >= 0 && c < side;
    if (!inside || rows[static_cast<size_t>(r)][static_cast<size_t>(c)] != '.') return 0;
    ++moves;
  }
  return r == side - 1 && c == side - 1 && moves == example.answer.size() ? 1 : 0;
}

}  // namespace

std::unique_ptr<Task> make_path() {
  return make_generator({"path",
                         "a shortest way between two nodes of a graph",
                         {3, 26, 8, "nodes"},
                         make_path_example,
                         score_path});
}

std::unique_ptr<Task> make_maze() {
  return make_generator(
      {"maze",
       "a shortest way (R, D, L, U) through a square maze from the upper left corner to the "
       "lower right one",
       {3, 10, 5, "cells a side"},
       make_maze_example,
       score_maze});
}

}  // namespace wels
