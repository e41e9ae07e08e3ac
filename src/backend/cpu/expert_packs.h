// Which experts stay packed in memory where there is no room for all of them.
//
// A pack is made from the weight's own bytes, which may lie in a mapped file larger than memory. Of
// every stack of experts a share stays packed: those that the router chose most in the last few
// hundred calls, since a layer is called once per step and any expert it calls costs one reading of
// the file. The others are packed for one product and forgotten. Bits do not depend on it.
//
// Every weight has the same share, not the hottest experts of all layers together: each layer
// chooses k experts in every step, and so an expert is only ever compared with its neighbours.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tensor/pool.h"

namespace wels {

// The packs of one weight.
struct ExpertSlots {
  std::vector<std::shared_ptr<void>> pack;  // by expert; null: not there
  std::vector<float> uses;                  // calls in which it had rows, older ones counting less
  std::vector<int32_t> passing;             // packed for this product only
  int64_t resident = 0;

  explicit ExpertSlots(int64_t experts)
      : pack(static_cast<size_t>(experts)), uses(static_cast<size_t>(experts)) {}
};

struct ExpertCounts {
  int64_t uses = 0;   // experts that had rows, summed over all products
  int64_t found = 0;  // of them, those that were packed already
};

// One op's use of stacks of experts; what was packed for it only is forgotten with it.
class ExpertUse {
 public:
  // share < 1: of a stack's experts, so many stay (at least one). offsets: as grouped_matmul takes
  // them, one more than experts; those without rows are not asked for.
  ExpertUse(double share, std::span<const int32_t> offsets, Pool& pool, ExpertCounts& counts)
      : share_(share), offsets_(offsets), pool_(pool), counts_(counts) {}
  ~ExpertUse();
  ExpertUse(const ExpertUse&) = delete;

  bool limited(int64_t experts) const { return share_ < 1 && experts > 1; }
  // Gives every expert with rows memory of `bytes`; returns those whose packs are not made yet.
  std::vector<int32_t> take(const std::shared_ptr<ExpertSlots>& slots, int64_t bytes);

 private:
  int32_t coldest(const ExpertSlots& s) const;
  double share_;
  std::span<const int32_t> offsets_;
  Pool& pool_;
  ExpertCounts& counts_;
  std::vector<std::shared_ptr<ExpertSlots>> used_;
};

}  // namespace wels
