// Pre-tokenisation: text is cut into pieces before byte pair encoding, which never merges across a
// cut. The specification is the "pre_tokenizer" of a Hugging Face tokenizer.json: a sequence of
// steps, each of which cuts every piece further.
//
// Two paths give the same pieces. The general one runs the regular expressions themselves (PCRE2
// with JIT, the classes \p{L} ... \s replaced by the ranges of Unicode 16). The fast one is a
// hand-written scanner for each family that the model releases use (scanners.h); tests hold it
// against the general one. Ill-formed UTF-8 is cut like characters of no class.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

// One step. Split: regular expression or literal text; Digits: every \p{N} character (one by one,
// or in runs). GPT-2's regular expression (ByteLevel with use_regex) is a Split too.
struct PreTokenizerStep {
  enum Kind { kRegex, kLiteral, kDigits } kind = kRegex;
  // What becomes of a match: a piece of its own, dropped, joined to the piece before or after it,
  // or (contiguous) joined to neighbouring matches.
  enum Behavior {
    kIsolated,
    kRemoved,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous
  } behavior = kIsolated;
  std::string pattern;
  bool invert = false;             // what is between the matches counts as the match
  bool individual_digits = false;  // Digits only
  bool operator==(const PreTokenizerStep&) const = default;
};

enum class Scanner { kGeneral, kDeepSeekV3, kDeepSeekLlm, kQwen2, kLlama3, kGpt2, kCharacters };

// The regular expressions of the model families, also used for GGUF files, which give only a name.
std::vector<PreTokenizerStep> deepseek_v3_steps();
std::vector<PreTokenizerStep> deepseek_llm_steps();
std::vector<PreTokenizerStep> deepseek_coder_steps();
std::vector<PreTokenizerStep> qwen2_steps();
std::vector<PreTokenizerStep> llama3_steps();
std::vector<PreTokenizerStep> gpt2_steps();
std::vector<PreTokenizerStep>
character_steps();  // every character on its own (the trainer's character mode)

class PreTokenizer {
 public:
  // Recognises the known families; compiles anything else now. Throws Error(where, ...) on a
  // regular expression that does not compile or that PCRE2 would read differently from the
  // reference (nested classes, \h, \b, options but i and x).
  PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& where);
  Scanner scanner() const { return scanner_; }
  const std::vector<PreTokenizerStep>& steps() const { return steps_; }

  struct Piece {
    size_t begin, end;
  };
  // The general path. Appends the pieces of text in order, none empty. Thread-safe. Throws Error if
  // a regular expression runs into its match limit.
  void split(std::string_view text, std::vector<Piece>& out) const;

 private:
  struct Compiled;
  const Compiled& compiled() const;
  std::vector<PreTokenizerStep> steps_;
  std::string where_;
  Scanner scanner_ = Scanner::kGeneral;
  std::shared_ptr<Compiled> compiled_;
};

// Exposed for tests: the regular expression with \p{L} \p{N} \p{M} \p{P} \p{S} \s \w (and their
// complements) and \v spelt out.
std::string expand_classes(std::string_view regex, const std::string& where);

}  // namespace wels
