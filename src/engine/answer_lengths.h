// How long answers get, from those that ended lately: whom to let in goes by it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace wels {

class AnswerLengths {
 public:
  static constexpr size_t kKept = 64;  // answers

  // An answer that ended. cut: by a limit, so that it would have been longer.
  void add(int64_t tokens, bool cut);

  // Tokens that an answer will have at its end, of which there are `answered`, and at most `most`:
  // the mean of those that got longer than it is now, each held to its own limit; twice what it has
  // where none did; `most` while none has ended.
  int64_t expected(int64_t answered, int64_t most) const;

 private:
  std::vector<int64_t> lengths_;
  size_t next_ = 0;  // to be written over
};

}  // namespace wels
