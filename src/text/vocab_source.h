// What a tokeniser is made of, wherever it was written down (tokenizer.json, GGUF metadata, our
// trainer): the common form that the Tokenizer is built from and that writers write. Contents are
// untrusted until a Tokenizer was built from them.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/pretokenizer.h"

namespace wels {

// A token that is found in the text as a whole, before byte pair encoding. Fields as in
// tokenizer.json.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;                 // left out by decode(skip_special)
  bool normalized = false;              // searched for after normalisation, not before
  bool lstrip = false, rstrip = false;  // takes the white space on that side with it
  bool single_word = false;             // not inside a word
};

struct VocabSource {
  std::string where;  // file name, for messages
  // Byte-level text ("Ġthe": each byte is one printable character, as GPT-2 defined) and id.
  struct Token {
    std::string text;
    int32_t id;
  };
  std::vector<Token> tokens;
  // Merge rules in order of rank: the two parts joined, and the size of the left one in bytes.
  struct Merge {
    std::string text;
    uint32_t left_size;
  };
  std::vector<Merge> merges;
  std::vector<AddedToken> added;
  std::vector<PreTokenizerStep> steps;
  bool nfc = false;
  // A piece that is a token is that token, whatever the merges say (Llama-3).
  bool ignore_merges = false;
  std::optional<int32_t> bos, eos, pad;
  // Whether bos precedes every text, as the files beside the vocabulary say. Not said: models
  // trained by wels, see Tokenizer::document_begin.
  std::optional<bool> add_bos;
};

// Texts of a model that learned chats begin as those do, with bos, where its files do not say. Says
// whether that is new.
bool begin_as_chats(VocabSource& source);

// tokenizer.json (byte-level BPE) → source. Throws Error(where, what, hint) on anything else: bad
// JSON, wrong types, a model, normaliser, pre-tokeniser or decoder that this program does not have.
VocabSource parse_tokenizer_json(std::string_view json, const std::string& where);

// A tokenizer.json, a folder that holds one (with the names in its tokenizer_config.json, if there
// is one), or a GGUF file.
VocabSource load_vocab_source(const std::string& path);

// The Jinja chat template that goes with such a vocabulary: a folder's chat_template.jinja, else
// "chat_template" of its tokenizer_config.json (a text, or a list of {"name", "template"} of which
// "default" counts), or tokenizer.chat_template of a GGUF file. Empty: none. Throws Error.
std::string load_chat_template(const std::string& path);

// source → tokenizer.json that other tools load. Tokens and merges are written in their order.
std::string write_tokenizer_json(const VocabSource& source);

// GPT-2's byte ↔ character table: printable Latin-1 bytes stand for themselves, the others for
// U+0100 and on.
uint32_t byte_to_char(uint8_t byte);
int char_to_byte(uint32_t code);  // -1: no such character
std::string bytes_to_text(std::string_view bytes);
bool text_to_bytes(std::string_view text,
                   std::string& bytes);  // false (bytes unspecified) if not byte-level text

}  // namespace wels
