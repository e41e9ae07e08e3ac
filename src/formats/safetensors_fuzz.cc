// Any bytes as a safetensors file: parsed with every tensor inside the bytes, or refused with an
// Error.
#include <cstdint>

#include "base/check.h"
#include "base/error.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    wels::SafetensorsContent c = wels::parse_safetensors({data, size}, "fuzz");
    size_t covered = 0;
    for (const wels::TensorEntry& t : c.tensors) {
      CHECK(t.data.empty() ||
            (t.data.data() >= data && t.data.data() + t.data.size() <= data + size));
      CHECK(static_cast<int64_t>(t.data.size()) == wels::tensor_bytes(t.dtype, t.shape).value());
      covered += t.data.size();
    }
    CHECK(covered <= size);
  } catch (const wels::Error&) {
  }
  return 0;
}
