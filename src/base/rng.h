// Random numbers that depend on nothing but (seed, stream, index): Philox-4x32-10 (Salmon et al.,
// SC 2011), counter based, so a run can be resumed at any point, and a tensor's initial values do
// not depend on who else was initialised before it.
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace wels {

// 64-bit FNV-1a: names to stream numbers.
constexpr uint64_t hash_name(std::string_view s) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (char c : s) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

// A stream of numbers; copyable, resumable: Rng(seed, stream, position()).
class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0, uint64_t position = 0)
      : seed_(seed), stream_(stream), next_(position) {}
  uint64_t position() const { return next_; }

  uint32_t next_u32() {
    uint64_t i = next_++;
    if (i / 4 != block_ || !valid_) refill(i / 4);
    return word_[i % 4];
  }
  uint64_t next_u64() {
    uint64_t hi = next_u32();
    return hi << 32 | next_u32();
  }
  // Uniform in [0, 1) with 53 bits.
  double uniform() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  // Uniform integer in [0, n), unbiased (Lemire's method). n > 0.
  uint64_t below(uint64_t n) {
    for (;;) {
      unsigned __int128 m = static_cast<unsigned __int128>(next_u64()) * n;
      if (static_cast<uint64_t>(m) >= (0 - n) % n) return static_cast<uint64_t>(m >> 64);
    }
  }
  // Standard normal (Box-Muller; one of the pair is dropped, so that the position stays a plain
  // count).
  double normal() {
    double u = 1.0 - uniform(), v = uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
  }

 private:
  void refill(uint64_t block) {
    uint32_t c[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                     static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)};
    uint32_t k0 = static_cast<uint32_t>(seed_), k1 = static_cast<uint32_t>(seed_ >> 32);
    for (int round = 0; round < 10; ++round) {
      uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
      uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0,
               n2 = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
      c[1] = static_cast<uint32_t>(p1);
      c[3] = static_cast<uint32_t>(p0);
      c[0] = n0;
      c[2] = n2;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; ++i) word_[i] = c[i];
    block_ = block;
    valid_ = true;
  }
  uint64_t seed_, stream_, next_, block_ = 0;
  uint32_t word_[4] = {};
  bool valid_ = false;
};

}  // namespace wels
