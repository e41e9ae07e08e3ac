#include "text/gguf_vocab.h"

#include <fmt/format.h>

#include <set>

#include "base/error.h"
#include "base/log.h"
#include "formats/json.h"
#include "text/unicode.h"

namespace wels {
namespace {

struct Pre {
  const char* name;  // the first of each kind is the one written
  std::vector<PreTokenizerStep> (*steps)();
  bool nfc, ignore_merges;
};
// Qwen2's own tokenizer normalises; the file format has no key for that, nor for Llama-3's
// preference for whole tokens.
constexpr Pre kPres[] = {{"deepseek-v3", deepseek_v3_steps, false, false},
                         {"deepseek3", deepseek_v3_steps, false, false},
                         {"deepseek-r1-qwen", qwen2_steps, true, false},
                         {"deepseek-llm", deepseek_llm_steps, false, false},
                         {"deepseek-coder", deepseek_coder_steps, false, false},
                         {"qwen2", qwen2_steps, true, false},
                         {"llama-bpe", llama3_steps, false, true},
                         {"llama3", llama3_steps, false, true},
                         {"llama-v3", llama3_steps, false, true},
                         {"gpt-2", gpt2_steps, false, false}};

enum TokenType : int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

// The pre-tokeniser that character vocabularies are written with: as merges stay within
// characters, it does not matter where it cuts.
constexpr std::string_view kPreOfCharacters = "gpt-2";

// Adds, for a token that is one character, its beginnings of two bytes and more to `prefixes`, in
// byte-level text with the size of what precedes the last byte. False: it is no single character.
bool add_prefixes(const std::string& token, std::set<std::pair<std::string, uint32_t>>& prefixes) {
  std::string bytes;
  if (!text_to_bytes(token, bytes) || bytes.empty()) return false;
  auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
  if (read_char(p, p + bytes.size()).size != bytes.size()) return false;
  std::string text = bytes_to_text(bytes.substr(0, 1));
  for (size_t i = 1; i < bytes.size(); ++i) {
    auto left = static_cast<uint32_t>(text.size());
    text += bytes_to_text(bytes.substr(i, 1));
    prefixes.emplace(text, left);
  }
  return true;
}

// A byte-level BPE that gives the same tokens as one token a character: merges join a character's
// first byte with its second, these with its third, and so on. What merges join before the whole
// character need not be a token, in llama.cpp.
std::vector<VocabSource::Merge> merges_of_characters(const VocabSource& source) {
  std::set<std::pair<std::string, uint32_t>> prefixes;
  for (const auto& t : source.tokens) add_prefixes(t.text, prefixes);
  std::vector<VocabSource::Merge> out;
  for (const auto& [text, left] : prefixes) out.push_back({text, left});
  return out;
}

// Reads such a vocabulary as what it was: characters.
void restore_characters(VocabSource& source) {
  std::set<std::pair<std::string, uint32_t>> prefixes;
  for (const auto& t : source.tokens) {
    if (!add_prefixes(t.text, prefixes)) return;
  }
  for (const auto& m : source.merges) {
    if (!prefixes.contains({m.text, m.left_size})) return;
  }
  source.steps = character_steps();
  source.ignore_merges = true;
  source.merges.clear();
}

// Of the names for the source's steps, the one whose other properties agree, else the first:
// without Qwen2's normaliser a file is still best read as Qwen2's. deepseek-r1-qwen is read, never
// written. nullptr: there is no name.
const Pre* pre_for(const VocabSource& source) {
  const Pre* found = nullptr;
  for (const Pre& p : kPres) {
    if (source.steps != p.steps() || std::string_view(p.name) == "deepseek-r1-qwen") continue;
    if (!found || (source.nfc == p.nfc && source.nfc != found->nfc)) found = &p;
  }
  return found;
}

}  // namespace

bool has_vocab(const GgufContent& gguf) {
  return gguf.has("tokenizer.ggml.model") && gguf.text("tokenizer.ggml.model") != "none";
}

VocabSource parse_gguf_vocab(const GgufContent& gguf) {
  auto fail = [&](const std::string& what, const std::string& hint) {
    throw Error(gguf.where, what, hint);
  };
  const std::string& model = gguf.text("tokenizer.ggml.model");
  if (model != "gpt2") {
    fail(fmt::format("tokenizer.ggml.model '{}' is not supported", printable(model)),
         "byte-level BPE ('gpt2') can be read");
  }
  const std::string& name = gguf.text("tokenizer.ggml.pre");
  const Pre* pre = nullptr;
  std::string known;
  for (const Pre& p : kPres) {
    if (name == p.name) pre = &p;
    known += (known.empty() ? "" : ", ") + std::string(p.name);
  }
  if (!pre)
    fail(fmt::format("tokenizer.ggml.pre '{}' is not supported", printable(name)),
         "known: " + known);

  VocabSource out;
  out.where = gguf.where;
  out.steps = pre->steps();
  out.nfc = pre->nfc;
  out.ignore_merges = pre->ignore_merges;
  const auto& tokens = gguf.strings("tokenizer.ggml.tokens");
  auto types = gguf.integers("tokenizer.ggml.token_type");
  if (tokens.size() != types.size()) {
    fail(fmt::format("tokenizer.ggml.tokens has {} entries, token_type {}", tokens.size(),
                     types.size()),
         "the file may be damaged");
  }
  if (tokens.size() >= size_t{1} << 22)
    fail(fmt::format("{} tokens", tokens.size()), "fewer than 4194304 can be read");
  for (size_t i = 0; i < tokens.size(); ++i) {
    auto id = static_cast<int32_t>(i);
    // Rows that only fill the embedding are called [PAD<id>], whatever their type says.
    if (types[i] == kUnused || tokens[i] == fmt::format("[PAD{}]", i)) continue;
    if (types[i] == kControl || types[i] == kUserDefined) {
      AddedToken token;
      token.id = id;
      token.content = tokens[i];
      token.special = types[i] == kControl;
      out.added.push_back(std::move(token));
    } else {
      out.tokens.push_back({tokens[i], id});
    }
  }
  const auto& merges = gguf.strings("tokenizer.ggml.merges");
  out.merges.reserve(merges.size());
  for (const std::string& merge : merges) {
    size_t space = merge.find(' ');
    if (space == std::string::npos) {
      fail(fmt::format("merge {} '{}' is not two tokens with a space between", out.merges.size(),
                       printable(merge)),
           "the file may be damaged");
    }
    out.merges.push_back(
        {merge.substr(0, space) + merge.substr(space + 1), static_cast<uint32_t>(space)});
  }
  auto special = [&](const char* key) -> std::optional<int32_t> {
    if (!gguf.has(key)) return std::nullopt;
    int64_t id = gguf.integer(key);
    if (id < 0 || id >= static_cast<int64_t>(tokens.size())) {
      log_info("{}: {} {} is outside the vocabulary of {}: left out", gguf.where, key, id,
               tokens.size());
      return std::nullopt;
    }
    return static_cast<int32_t>(id);
  };
  if (name == kPreOfCharacters) restore_characters(out);
  out.bos = special("tokenizer.ggml.bos_token_id");
  out.eos = special("tokenizer.ggml.eos_token_id");
  out.pad = special("tokenizer.ggml.padding_token_id");
  if (gguf.has("tokenizer.ggml.add_bos_token")) {
    out.add_bos = gguf.boolean("tokenizer.ggml.add_bos_token");
  } else if (pre->ignore_merges ||
             (name.starts_with("deepseek") && gguf.has("tokenizer.chat_template"))) {
    out.add_bos = true;  // Llama-3's, as llama.cpp does; or DeepSeek's that has learned chats
  } else if (name == "qwen2") {
    out.add_bos = false;  // llama.cpp's default; Qwen2 has no bos
  }
  return out;
}

void append_gguf_vocab(const VocabSource& source, int64_t rows, GgufMetadata& out) {
  bool characters = source.steps == character_steps() && source.merges.empty();
  const Pre* pre = pre_for(source);
  if (!characters && (!pre || source.ignore_merges != pre->ignore_merges)) {
    throw Error(source.where,
                "GGUF has no name for this tokenizer's way of cutting text into pieces",
                "export a model whose tokenizer is of the DeepSeek, Qwen2, Llama-3 or GPT-2 kind");
  }
  std::vector<std::string> tokens;
  for (int64_t i = 0; i < rows; ++i) tokens.push_back(fmt::format("[PAD{}]", i));
  std::vector<int32_t> types(tokens.size(), kUnused);
  auto put = [&](int32_t id, const std::string& text, int32_t type) {
    if (id < 0 || id >= rows) {
      throw Error(source.where,
                  fmt::format("token {} does not fit a model of {} embedding rows", id, rows),
                  "use the tokenizer that the model was trained with");
    }
    tokens[static_cast<size_t>(id)] = text;
    types[static_cast<size_t>(id)] = type;
  };
  for (const auto& t : source.tokens) put(t.id, t.text, kNormal);
  for (const auto& t : source.added) put(t.id, t.content, t.special ? kControl : kUserDefined);
  std::vector<std::string> merges;
  for (const auto& m : characters ? merges_of_characters(source) : source.merges)
    merges.push_back(m.text.substr(0, m.left_size) + " " + m.text.substr(m.left_size));
  out.emplace_back("tokenizer.ggml.model", gguf_string("gpt2"));
  out.emplace_back("tokenizer.ggml.pre",
                   gguf_string(characters ? std::string(kPreOfCharacters) : pre->name));
  out.emplace_back("tokenizer.ggml.tokens", gguf_strings(std::move(tokens)));
  out.emplace_back("tokenizer.ggml.token_type", gguf_i32s(types));
  out.emplace_back("tokenizer.ggml.merges", gguf_strings(std::move(merges)));
  auto special = [&](const char* key, std::optional<int32_t> id) {
    if (id) out.emplace_back(key, gguf_u32(static_cast<uint32_t>(*id)));
  };
  special("tokenizer.ggml.bos_token_id", source.bos);
  special("tokenizer.ggml.eos_token_id", source.eos);
  special("tokenizer.ggml.padding_token_id", source.pad);
}

}  // namespace wels
