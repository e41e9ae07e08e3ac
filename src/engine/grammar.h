// Grammar: which byte strings an answer may be. A context-free grammar over bytes; made from GBNF
// (the notation of llama.cpp), from a JSON schema, or "any JSON object". What a model may say next
// is worked out by token_mask.h.
//
// Layout: the right-hand sides of all rules lie one after another in `symbols`, each closed by
// kEnd. A symbol is a rule (>= 0) or a set of bytes (-2 - its number). Characters beyond ASCII are
// sequences of byte sets, so a token that ends within a character is nothing special.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

struct ByteSet {
  std::array<uint64_t, 4> bits{};
  void add(uint8_t first, uint8_t last) {
    for (int b = first; b <= last; ++b)
      bits[static_cast<size_t>(b >> 6)] |= uint64_t{1} << (b & 63);
  }
  bool has(uint8_t b) const { return bits[b >> 6] >> (b & 63) & 1; }
  bool operator==(const ByteSet&) const = default;
};

struct Grammar {
  static constexpr int32_t kEnd = -1;
  std::vector<int32_t> symbols;
  std::vector<std::vector<int32_t>> rules;  // where in `symbols` each of its alternatives begins
  std::vector<ByteSet> sets;
  int32_t root = 0;

  // "root ::= ..." with strings, [classes], ., (groups), |, *, +, ?, {m}, {m,}, {m,n} and #
  // comments. Throws Error naming the line: bad syntax, a rule that is missing or defined twice,
  // left recursion, a rule that no text matches, and grammars beyond kMostSymbols.
  static Grammar from_gbnf(std::string_view text);
  // JSON texts that the schema allows, with little white space and properties in the schema's
  // order. Throws Error naming the path in the schema: what is not JSON Schema, what wels does not
  // enforce, and what no text matches. Supported: json_schema.cc.
  static Grammar from_json_schema(std::string_view text);
  // Any JSON object.
  static Grammar json_object();

  static constexpr size_t kMostSymbols = 1'000'000;
};

}  // namespace wels
