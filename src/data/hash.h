// A 64-bit hash of bytes for the data pipeline: which documents validate, whether a prepared corpus
// is still the one asked for, whether a shard is damaged. Not cryptographic. Two words per
// 64×64→128-bit multiplication (the "mum" of wyhash), several GB/s, so that hashing a corpus costs
// less than reading it. Fixed for ever: shards on disk hold its values.
#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace wels {

inline uint64_t hash_mix(uint64_t a, uint64_t b) {
  unsigned __int128 m = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(m) ^ static_cast<uint64_t>(m >> 64);
}

// Hash of the bytes; chain hashes by giving the previous one as seed. Little-endian machines only,
// as everything here.
inline uint64_t hash_bytes(std::string_view bytes, uint64_t seed = 0) {
  constexpr uint64_t k0 = 0xa0761d6478bd642full, k1 = 0xe7037ed1a0b428dbull;
  const char* p = bytes.data();
  size_t n = bytes.size();
  uint64_t h = hash_mix(seed ^ k0, n ^ k1), a, b;
  for (; n >= 16; p += 16, n -= 16) {
    std::memcpy(&a, p, 8);
    std::memcpy(&b, p + 8, 8);
    h = hash_mix(h ^ a ^ k0, b ^ k1);
  }
  char rest[16] = {};
  if (n > 0) std::memcpy(rest, p, n);
  std::memcpy(&a, rest, 8);
  std::memcpy(&b, rest + 8, 8);
  return hash_mix(hash_mix(h ^ a ^ k0, b ^ k1), k0);
}

}  // namespace wels
