// Any bytes as a GGUF file: parsed with every tensor inside the bytes, or refused with an Error;
// the same for the model that its metadata describe and for its weights under their names in it.
#include <cstdint>

#include "base/check.h"
#include "base/error.h"
#include "formats/gguf.h"
#include "formats/gguf_checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    wels::GgufContent c = wels::parse_gguf({data, size}, "fuzz");
    for (const wels::TensorEntry& t : c.tensors) {
      CHECK(t.data.empty() ||
            (t.data.data() >= data && t.data.data() + t.data.size() <= data + size));
      CHECK(static_cast<int64_t>(t.data.size()) == wels::tensor_bytes(t.dtype, t.shape).value());
    }
    wels::ModelConfig cfg = wels::gguf_model_config(c);
    for (const wels::TensorEntry& t : wels::gguf_weights(c, cfg).tensors) {
      CHECK(static_cast<int64_t>(t.data.size()) == wels::tensor_bytes(t.dtype, t.shape).value());
    }
  } catch (const wels::Error&) {
  }
  return 0;
}
