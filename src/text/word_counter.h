// Counts distinct byte strings: an open-addressing hash table over an arena. One per thread while
// counting; then added up.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace wels {

class WordCounter {
 public:
  struct Word {
    uint64_t hash;
    uint64_t offset;
    uint32_t size = 0;  // 0: free slot
    int64_t count = 0;
  };

  WordCounter() : slots_(1 << 12) {}

  void add(std::string_view word, int64_t count) { add(word, hash_of(word), count); }
  void add_all(const WordCounter& other) {
    for (const Word& w : other.slots_) {
      if (w.size) add(other.text(w), w.hash, w.count);
    }
  }
  size_t size() const { return used_; }
  std::string_view text(const Word& w) const { return {arena_.data() + w.offset, w.size}; }
  // Every word once, in order of its bytes: the same whatever the order of adding was.
  std::vector<Word> sorted() const {
    std::vector<Word> out;
    out.reserve(used_);
    for (const Word& w : slots_) {
      if (w.size) out.push_back(w);
    }
    std::sort(out.begin(), out.end(),
              [&](const Word& a, const Word& b) { return text(a) < text(b); });
    return out;
  }

 private:
  static uint64_t hash_of(std::string_view word) {
    uint64_t h = word.size() * 0x9E3779B97F4A7C15ull;
    const char* p = word.data();
    size_t n = word.size();
    auto mix = [&h](uint64_t v) {
      h = (h ^ v) * 0xD6E8FEB86659FD93ull;
      h ^= h >> 32;
    };
    for (; n >= 8; p += 8, n -= 8) {
      uint64_t v;
      std::memcpy(&v, p, 8);
      mix(v);
    }
    uint64_t v = 0;
    std::memcpy(&v, p, n);
    mix(v);
    return h;
  }
  void add(std::string_view word, uint64_t hash, int64_t count) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    size_t i = hash & (slots_.size() - 1);
    for (; slots_[i].size; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].hash == hash && text(slots_[i]) == word) {
        slots_[i].count += count;
        return;
      }
    }
    slots_[i] = {hash, arena_.size(), static_cast<uint32_t>(word.size()), count};
    arena_.insert(arena_.end(), word.begin(), word.end());
    ++used_;
  }
  void grow() {
    std::vector<Word> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Word& w : old) {
      if (!w.size) continue;
      size_t i = w.hash & (slots_.size() - 1);
      while (slots_[i].size) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = w;
    }
  }
  std::vector<Word> slots_;
  std::vector<char> arena_;
  size_t used_ = 0;
};

}  // namespace wels
