// Greedy byte pair merging over token ids: a flat hash from (left, right) to (rank, joined token),
// and the two ways to apply it. A piece of a few dozen symbols is merged by scanning for the best
// pair; a longer one by a heap of candidate pairs over a linked list, so that a megabyte without a
// cut takes O(n log n). Ties in rank go to the leftmost pair.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace wels {

class MergeTable {
 public:
  struct Rule {
    uint32_t rank;
    int32_t joined;
  };
  static constexpr uint32_t kNone = 0xFFFFFFFF;

  explicit MergeTable(size_t rules = 0);
  // A later rule for the same pair replaces the earlier one, as in the reference. At most `rules`
  // different pairs.
  void add(int32_t left, int32_t right, Rule rule);
  // The rule for the pair, rank kNone if there is none.
  Rule find(int32_t left, int32_t right) const {
    uint64_t key = key_of(left, right);
    for (size_t i = slot_of(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].rule;
      if (slots_[i].key == kEmpty) return {kNone, -1};
    }
  }
  // Merges the ids in place until no rule applies.
  void merge(std::vector<int32_t>& ids) const;
  // The same for the n ids of a short piece; returns how many are left.
  size_t merge_short(int32_t* ids, size_t n) const;
  static constexpr size_t kShort = 48;

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key;
    Rule rule;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15ull) >> shift_);
  }
  void merge_long(std::vector<int32_t>& ids) const;
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  int shift_ = 0;
};

}  // namespace wels
