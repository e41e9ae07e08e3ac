// Any bytes as a token shard: an Error or a shard all of whose tokens can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/error.h"
#include "data/shards.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  uint64_t vocab = 300, hash = 1;
  if (size >= 72) {
    std::memcpy(bytes.data(), "WELSTOK2", 8);  // behind the magic is where it gets interesting
    std::memcpy(&vocab, data + 40, 8);
    std::memcpy(&hash, data + 48, 8);
  }
  int fd = ::memfd_create("shard", 0);
  if (fd < 0 || ::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    return 0;
  try {
    wels::TokenShard shard("/proc/self/fd/" + std::to_string(fd), static_cast<int64_t>(vocab),
                           hash);
    int64_t sum = 0;
    for (int64_t i = 0; i < shard.tokens(); ++i)
      sum += shard.token(i) >= 0 && shard.token(i) < static_cast<int64_t>(vocab);
    if (sum != shard.tokens() || shard.document_begin(shard.documents()) != shard.tokens())
      __builtin_trap();
    shard.verify();
  } catch (const wels::Error&) {
  }
  ::close(fd);
  return 0;
}
