// libFuzzer: any bytes as GBNF, schema or pattern either give one Error or a grammar that can be
// followed; the mask says what accept does.
#include "base/check.h"
#include "base/error.h"
#include "engine/token_mask.h"

namespace {

void follow(wels::Grammar grammar) {
  using namespace wels;
  static const auto tree = [] {
    std::vector<std::string> tokens;
    for (int b = 0; b < 256; ++b) tokens.emplace_back(1, static_cast<char>(b));
    for (const char* t : {"true", "{\"", "\": ", "12", "\xe6\x97"}) tokens.emplace_back(t);
    return std::make_shared<const TokenTree>(tokens);
  }();
  GrammarMatcher m(std::make_shared<Grammar>(std::move(grammar)), tree);
  for (int n = 0; n < 20; ++n) {
    std::vector<uint64_t> mask(m.allowed().begin(), m.allowed().end());
    int32_t chosen = -1;
    for (int32_t t = 0; t < tree->vocab_size(); ++t) {
      if (mask[static_cast<size_t>(t >> 6)] >> (t & 63) & 1) chosen = t;
    }
    if (chosen < 0) {
      CHECK(m.can_end());
      return;
    }
    CHECK(m.accept(chosen));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wels;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  if (size > 4096) return 0;
  try {
    follow(Grammar::from_gbnf(text));
  } catch (const Error&) {
  }
  try {
    follow(Grammar::from_json_schema(text));
  } catch (const Error&) {
  }
  return 0;
}
