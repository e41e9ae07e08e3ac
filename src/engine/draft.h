// Speculative decoding: somebody cheap drafts the next tokens, one forward pass of the model has a
// row for each of them, and those that the model would have drawn itself are kept. Tokens are drawn
// by the model's rows alone, with the luck of their place (sampler.h), and a draft is accepted if
// it is the very token drawn. So the text is bit for bit the one without speculation, at every
// temperature, whoever drafts. Drafts come from the model's MTP module or from n-grams of the text
// so far. Sources: Leviathan et al. 2023; DeepSeek-V3 §2.2; Saxena 2023, "Prompt Lookup Decoding".
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace wels {

enum class Speculate { kNone, kMtp, kNgram };
struct SpeculateName {
  const char* name;
  Speculate value;
};
std::span<const SpeculateName> speculate_names();

// Finds what followed the last kTokens tokens where they stood before.
class NgramIndex {
 public:
  static constexpr int kTokens = 3;
  // At most `most` tokens; none if the end of `text` is new. `text` must be that of the last call
  // and what has come since.
  std::vector<int32_t> draft(std::span<const int32_t> text, int64_t most);

 private:
  std::unordered_map<uint64_t, size_t> next_;  // hash of kTokens tokens → place of what followed
  size_t indexed_ = 0;
};

// How many tokens it pays to draft, from what steps have taken and how many drafts were accepted.
// A step of k drafts gives 1 + a1 + a1·a2 + .. tokens a sequence, with the share ai of the i-th
// drafts that are accepted where those before them were (Leviathan et al., eq. 1, has one a; an MTP
// module that goes on from its own drafts is less and less right), in the time of a plain step plus
// what drafting and the drafts' rows take. Neither share nor time is in proportion to k, so both
// are kept for each. Now and then a step tries another number, so that the figures stay true. Times
// depend on how many sequences share a step, so each power of two has its own.
class DraftBudget {
 public:
  // Drafts for each of `drafting` sequences in a step of `sequences` in all; 0: they don't pay (or
  // that is not known yet).
  int64_t choose(int64_t sequences, int64_t drafting, int64_t most);
  // A step of the model over nothing but decode rows, `drafts` of them drafts of `drafting`
  // sequences.
  void step_took(int64_t sequences, int64_t drafting, int64_t drafts, double seconds);
  void drafting_took(int64_t sequences, int64_t drafting, int64_t drafts, double seconds);
  // What it takes to draft at all, however many: the module's own pass over the rows of a step.
  void following_took(int64_t sequences, double seconds);
  // Of one sequence's drafts: accepted ones, and whether one was refused.
  void outcome(int64_t accepted, bool refused);

 private:
  static constexpr int64_t kDepths = 8;  // numbers of drafts that are told apart
  static constexpr int kProbe = 64;      // steps from one without drafts to the next
  // A running mean over about ten values. The first three count by their least: they are those of
  // cold caches and of memory that is still to come.
  struct Mean {
    double value = 0;
    int64_t count = 0;
    void add(double x);
    void add_time(double x);  // that one slow step can't move far
  };
  struct Depth {
    Mean row, draft;  // seconds: a draft's row in a step, drafting it
    bool known() const { return row.count >= 4; }
    double cost() const { return row.value + draft.value; }
  };
  struct Width {
    Mean plain, following;  // seconds of a step without drafts, and beside drafting ones
    std::array<Depth, kDepths> depths;  // of steps of 1, 2, .. drafts a sequence
    int64_t asked = 0;
    // Seconds of each of k drafts, between what is known of fewer and of more; none known: below 0.
    double cost(int64_t k) const;
  };
  struct Place {
    double accepted = 0, offered = 0;
  };
  Width& width(int64_t sequences);
  Depth& depth(int64_t sequences, int64_t drafting, int64_t drafts);
  std::array<Width, 16> widths_;
  std::array<Place, kDepths> places_;  // of the first, second, .. draft
};

}  // namespace wels
