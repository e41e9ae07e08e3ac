// The pre-tokenisers of the model families, as their tokenizer.json files (or, for DeepSeek-LLM and
// -Coder, the converters to GGUF) state them.
#include "text/pretokenizer.h"

namespace wels {
namespace {

PreTokenizerStep regex(std::string pattern) {
  PreTokenizerStep step;
  step.pattern = std::move(pattern);
  return step;
}

PreTokenizerStep digits() {
  PreTokenizerStep step;
  step.kind = PreTokenizerStep::kDigits;
  step.individual_digits = true;
  return step;
}

}  // namespace

std::vector<PreTokenizerStep> deepseek_v3_steps() {
  return {regex(R"(\p{N}{1,3})"), regex("[一-龥\u3040-ゟ゠-ヿ]+"),
          regex("[!\"#$%&'()*+,\\-./"
                ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")};
}

std::vector<PreTokenizerStep> deepseek_llm_steps() {
  return {regex("[\r\n]"),
          regex("\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-"
                "ᏽᲐ-"
                "ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚ"
                "Ḁ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1F7Dᾀ-ᾴᾶ-ᾼ\u1FBEῂ-ῄῆ-ῌῐ-\u1FD3ῖ-\u1FDBῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-"
                "ℝℤ\u2126ℨ\u212A-ℭℯ-ℴℹ"
                "ℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-"
                "𐓓𐓘-"
                "𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"),
          regex("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"),
          regex("\\s+$"),
          regex("[一-龥ࠀ-一가-\uD7FF]+"),
          digits()};
}

std::vector<PreTokenizerStep> deepseek_coder_steps() {
  return {regex("[\r\n]"), regex(R"(\s?\p{L}+)"), regex(R"(\s?\p{P}+)"),
          regex("[一-龥ࠀ-一가-\uD7FF]+"), digits()};
}

std::vector<PreTokenizerStep> qwen2_steps() {
  return {regex(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
      R"(\s*[\r\n]+|\s+(?!\S)|\s+)")};
}

std::vector<PreTokenizerStep> llama3_steps() {
  return {regex(
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)")};
}

std::vector<PreTokenizerStep> gpt2_steps() {
  return {regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)")};
}

std::vector<PreTokenizerStep> character_steps() { return {regex(R"([\s\S])")}; }

}  // namespace wels
