// Any bytes as a config.json: parsed, or refused with an Error. What is accepted must survive
// writing and reading.
#include <cstdint>

#include "base/check.h"
#include "base/error.h"
#include "formats/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    wels::ModelConfig c =
        wels::parse_hf_config({reinterpret_cast<const char*>(data), size}, "fuzz");
    CHECK(wels::parse_hf_config(wels::to_hf_config(c), "again") == c);
  } catch (const wels::Error&) {
  }
  return 0;
}
