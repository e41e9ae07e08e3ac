// The ceiling of everything that reads weights once, such as decoding one sequence: what plain
// streaming reads of memory reach on this machine now.
#pragma once
#include <cstdint>

#include "tensor/pool.h"

namespace wels {

// Reads a buffer of its own, in huge pages and by all threads, several times.
class ReadBandwidth {
 public:
  // bytes: far more than the caches hold.
  explicit ReadBandwidth(int64_t bytes = int64_t{1} << 29);
  ~ReadBandwidth();
  ReadBandwidth(const ReadBandwidth&) = delete;

  // Bytes per second, the best of `repeats` readings: others may be using the machine.
  double measure(int repeats = 5);

 private:
  int64_t bytes_;
  uint64_t* data_;
};

}  // namespace wels
