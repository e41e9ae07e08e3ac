// Text ↔ token ids by byte-level byte pair encoding, as the DeepSeek, Qwen2 and Llama-3 releases do
// it.
//
// Encoding: added tokens (<｜User｜>, ...) are found first and cut the text; what lies between is
// normalised (NFC, where the model asks for it), cut into pieces by the pre-tokeniser, and each
// piece becomes the tokens that greedy merging gives: start from single bytes, join the
// neighbouring pair of the best rank, the leftmost first, until no rule applies (Sennrich et al.
// 2016; on bytes: Radford et al. 2019).
//
// Speed: most pieces of ordinary text are one token each. A hash table holds the tokens that
// merging reaches from their own bytes, so such a piece costs one look-up; other short pieces are
// kept in a small cache per thread; long ones merge with a heap, O(n log n).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocab_source.h"

namespace wels {

// Whether text like "<｜User｜>" means the token (text that we rendered) or just its characters
// (text from strangers).
enum class AddedTokens { kRecognise, kAsText };

// Immutable; copies share one vocabulary; every method may be called from many threads at once.
class Tokenizer {
 public:
  // Throws Error(source.where, ...) where ids or tokens are duplicated, or merges name tokens that
  // are not there.
  explicit Tokenizer(VocabSource source);

  // Reads tokenizer.json text; `where` names it in messages.
  static Tokenizer from_json(std::string_view json, const std::string& where = "tokenizer.json");
  // Reads a tokenizer.json, a folder that holds one (and a tokenizer_config.json, for the special
  // tokens' names), or a GGUF file.
  static Tokenizer load(const std::string& path);

  // Token ids of any bytes, nothing added (encode_document does that). Throws Error("text", ...) if
  // the vocabulary has no token for a byte of the text (only possible with vocabularies that lack
  // bytes, such as character-level ones).
  std::vector<int32_t> encode(std::string_view text,
                              AddedTokens added = AddedTokens::kRecognise) const;
  // The same, appended to out.
  void encode(std::string_view text, AddedTokens added, std::vector<int32_t>& out) const;
  // A document, or a prompt outside of a chat template: behind document_begin, unless the text
  // begins with that or bos itself. An empty one has bos or the end of the text before it in any
  // case, if there is either.
  std::vector<int32_t> encode_document(std::string_view text,
                                       AddedTokens added = AddedTokens::kAsText) const;
  // Every document on its own, on all threads.
  std::vector<std::vector<int32_t>> encode_parallel(std::span<const std::string_view> documents,
                                                    AddedTokens added = AddedTokens::kAsText) const;

  // The bytes of the tokens, not necessarily valid UTF-8 (utf8_lossy makes it so). Ids that name no
  // token give nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;
  // The bytes of one token; empty if the id names no token.
  std::string_view token_bytes(int32_t id) const;

  int32_t vocab_size() const;  // the largest id + 1
  bool is_special(int32_t id) const;
  // The id of an added token by its content, or of an ordinary token by its bytes.
  std::optional<int32_t> find(std::string_view content) const;
  // As the file states them, else by the names that the model families use.
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;
  std::optional<int32_t> pad() const;
  // What a document stands behind: bos where the tokeniser puts it before texts, nothing where its
  // files say that nothing is; where they do not say, the end of the text before, as wels packs
  // documents for training (data/prepare.h).
  std::optional<int32_t> document_begin() const;
  bool normalizes() const;  // decode(encode(x)) is NFC(x) instead of x
  const std::vector<AddedToken>& added_tokens() const;

  // The pieces of text without added tokens, for the trainer and tests; fast: by the scanner where
  // there is one.
  std::vector<std::string_view> pieces(std::string_view text, bool fast = true) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// Decodes a stream of tokens for display: bytes are held back until they make whole characters.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  // The text that became complete with this token: valid UTF-8, ill-formed bytes as U+FFFD.
  std::string push(int32_t id);
  // What is left; call once at the end.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string held_;
};

}  // namespace wels
