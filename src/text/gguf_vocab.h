// Vocabularies in GGUF metadata, as llama.cpp's converter writes them for byte-level BPE:
//   tokenizer.ggml.model "gpt2" · tokenizer.ggml.pre name of the pre-tokeniser · tokens: strings,
//   by id · token_type: i32 each (1 normal, 3 control, 4 user defined, 5 unused) · merges: "left
//   right" · bos_token_id, eos_token_id, padding_token_id
// Control and user-defined tokens are what tokenizer.json calls added tokens: special, and not.
// Vocabularies of characters are written as byte-level BPE whose merges join the bytes of each
// character (pre "gpt-2"), and read back as characters.
#pragma once
#include "formats/gguf.h"
#include "text/vocab_source.h"

namespace wels {

// Whether the file names a vocabulary at all. Throws Error on a name that is no text.
bool has_vocab(const GgufContent& gguf);

// Throws Error naming the key: another model than gpt2, an unknown pre-tokeniser, missing or
// mismatched arrays.
VocabSource parse_gguf_vocab(const GgufContent& gguf);

// Appends the keys above for a model with `rows` embedding rows (≥ every id + 1); rows without a
// token become unused
// "[PAD<id>]" tokens. Throws Error if GGUF has no name for the pre-tokeniser.
void append_gguf_vocab(const VocabSource& source, int64_t rows, GgufMetadata& out);

}  // namespace wels
