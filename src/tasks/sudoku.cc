// Sudoku of 4×4 cells with one solution. The chain fills the first cell in reading order that has
// one digit left; where there is none it tries a digit, and goes back where a cell has none left.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "base/check.h"
#include "tasks/generator.h"
#include "tasks/generators.h"

namespace wels {
namespace {

constexpr int kSide = 4, kCells = kSide * kSide;
using Grid = std::array<int, kCells>;  // 0: empty

// Bit d: digit d stands in the cell's row, column or box.
unsigned taken(const Grid& g, int cell) {
  unsigned digits = 0;
  int row = cell / kSide, column = cell % kSide;
  for (int i = 0; i < kSide; ++i) {
    digits |= 1u << g[static_cast<size_t>(row * kSide + i)];
    digits |= 1u << g[static_cast<size_t>(i * kSide + column)];
    digits |= 1u << g[static_cast<size_t>((row / 2 * 2 + i / 2) * kSide + column / 2 * 2 + i % 2)];
  }
  return digits & ~1u;
}
std::string digits_of(unsigned set) {
  std::string out;
  for (int d = 1; d <= kSide; ++d) {
    if (set >> d & 1) out += static_cast<char>('0' + d);
  }
  return out;
}
constexpr unsigned kAll = 0b11110;

// How many solutions there are, up to 2.
int count_solutions(Grid& g) {
  int cell = 0;
  while (cell < kCells && g[static_cast<size_t>(cell)] != 0) ++cell;
  if (cell == kCells) return 1;
  int n = 0;
  for (char d : digits_of(kAll & ~taken(g, cell))) {
    g[static_cast<size_t>(cell)] = d - '0';
    n += count_solutions(g);
    g[static_cast<size_t>(cell)] = 0;
    if (n > 1) return 2;
  }
  return n;
}

std::string grid_text(const Grid& g) {
  std::string out;
  for (int i = 0; i < kCells; ++i) {
    if (i && i % kSide == 0) out += ' ';
    out += g[static_cast<size_t>(i)] ? static_cast<char>('0' + g[static_cast<size_t>(i)]) : '.';
  }
  return out;
}

// A full grid: digits tried in random order, cell by cell.
bool fill(Grid& g, int cell, Rng& rng) {
  if (cell == kCells) return true;
  std::vector<int> digits = {1, 2, 3, 4};
  shuffle(digits, rng);
  for (int d : digits) {
    if (taken(g, cell) >> d & 1) continue;
    g[static_cast<size_t>(cell)] = d;
    if (fill(g, cell + 1, rng)) return true;
    g[static_cast<size_t>(cell)] = 0;
  }
  return false;
}

// Empties so many cells where the solution stays the only one; false where that ends too early.
bool empty_cells(Grid& g, int cells, Rng& rng) {
  std::vector<int> order;
  for (int i = 0; i < kCells; ++i) order.push_back(i);
  shuffle(order, rng);
  for (int cell : order) {
    if (cells == 0) return true;
    int digit = std::exchange(g[static_cast<size_t>(cell)], 0);
    if (count_solutions(g) == 1) {
      --cells;
    } else {
      g[static_cast<size_t>(cell)] = digit;
    }
  }
  return cells == 0;
}

// Writes the steps and fills the grid; false where it has no solution.
bool solve(Grid& g, std::string& chain) {
  auto step = [&](const std::string& text) { chain += (chain.empty() ? "" : " ") + text; };
  auto place = [](int cell) { return fmt::format("{}{}", cell / kSide + 1, cell % kSide + 1); };
  for (;;) {
    int best = -1, fewest = kSide + 1;
    for (int cell = 0; cell < kCells; ++cell) {
      if (g[static_cast<size_t>(cell)] != 0) continue;
      int left = static_cast<int>(digits_of(kAll & ~taken(g, cell)).size());
      if (left < fewest) {
        fewest = left;
        best = cell;
      }
    }
    if (best < 0) return true;
    unsigned seen = taken(g, best);
    std::string left = digits_of(kAll & ~seen);
    if (left.empty()) {
      step(fmt::format("{}:{} none", place(best), digits_of(seen)));
      return false;
    }
    if (left.size() == 1) {
      step(fmt::format("{}:{}={}", place(best), digits_of(seen), left));
      g[static_cast<size_t>(best)] = left[0] - '0';
      continue;
    }
    for (char digit : left) {
      step(fmt::format("{} try {}", place(best), digit));
      Grid tried = g;
      tried[static_cast<size_t>(best)] = digit - '0';
      if (solve(tried, chain)) {
        g = tried;
        return true;
      }
      step("back");
    }
    return false;
  }
}

TaskExample make(Rng& rng, int cells) {
  for (;;) {
    Grid g{};
    CHECK(fill(g, 0, rng));
    TaskExample e;
    e.answer = grid_text(g);
    if (!empty_cells(g, cells, rng)) continue;
    e.question = "sudoku " + grid_text(g);
    CHECK(solve(g, e.chain));
    return e;
  }
}

}  // namespace

std::unique_ptr<Task> make_sudoku() {
  return make_generator(
      {"sudoku", "a 4x4 sudoku, row by row", {2, 11, 6, "empty cells"}, make, score_words});
}

}  // namespace wels
