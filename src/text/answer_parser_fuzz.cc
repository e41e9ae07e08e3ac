// libFuzzer: any text parsed whole and in pieces gives the same reasoning, answer and calls; the
// first byte says how it is cut and parsed.
#include "base/check.h"
#include "text/answer_parser.h"

namespace {

std::string parsed(std::string_view text, wels::AnswerParser::Options o, size_t step) {
  using wels::AnswerPiece;
  wels::AnswerParser parser(o);
  std::vector<AnswerPiece> pieces;
  std::string out;
  char last = 0;
  auto take = [&] {
    for (const AnswerPiece& p : pieces) {
      char kind = static_cast<char>('0' + p.kind);
      if (kind != last || p.kind == AnswerPiece::kToolName) out += std::string("\n") + kind + ":";
      out += p.text;
      last = kind;
    }
    pieces.clear();
  };
  for (size_t at = 0; at < text.size(); at += step) {
    parser.push(text.substr(at, step), pieces);
    take();
  }
  parser.finish(pieces);
  take();
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 4096) return 0;
  std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  wels::AnswerParser::Options o{.thinking = (data[0] & 1) != 0, .tools = (data[0] & 2) != 0};
  std::string whole = parsed(text, o, text.size() + 1);
  CHECK(parsed(text, o, 1) == whole);
  CHECK(parsed(text, o, static_cast<size_t>(data[0] >> 2) + 1) == whole);
  return 0;
}
