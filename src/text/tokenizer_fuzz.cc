// libFuzzer: any bytes as tokenizer.json either give one Error or a tokenizer that encodes any
// text, cuts it the same way twice, and gives it back (unless it lacks bytes, drops matches or
// normalises).
#include "base/check.h"
#include "base/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wels;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  static const Tokenizer v3 = [] {
    VocabSource source;
    for (int b = 0; b < 256; ++b)
      source.tokens.push_back({bytes_to_text(std::string(1, static_cast<char>(b))), b});
    source.tokens.push_back({"he", 256});
    source.tokens.push_back({"the", 257});
    source.merges = {{"he", 1}, {"the", 1}};
    source.steps = deepseek_v3_steps();
    return Tokenizer(std::move(source));
  }();
  auto ids = v3.encode(text);
  CHECK(v3.decode(ids) == text);
  CHECK(v3.pieces(text, true) == v3.pieces(text, false));
  try {
    Tokenizer t = Tokenizer::from_json(text, "fuzz");
    t.decode(t.encode("the quick <x> brown\n\n fox 123 \xFF 中文"));
  } catch (const Error&) {
  }
  return 0;
}
