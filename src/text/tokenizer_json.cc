// Reading and writing tokenizer.json, the Hugging Face tokenizers library's format (version 1.0):
//   {"added_tokens": [{"id", "content", "special", "normalized", "lstrip", "rstrip",
//   "single_word"}, ...],
//    "normalizer": null | {"type": "NFC"} | {"type": "Sequence", "normalizers": [...]},
//    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split" | "Digits" |
//    "ByteLevel", ...}, ...]}, "post_processor": null | {"type": "TemplateProcessing", "single":
//    [{"SpecialToken": {"id": "<bos>"}}, ...]}, "decoder": {"type": "ByteLevel"}, "model": {"type":
//    "BPE", "vocab":
//    {"text": id, ...}, "merges": ["left right" | ["left", "right"], ...]}}
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/json.h"
#include "text/unicode.h"
#include "text/vocab_source.h"

namespace wels {
namespace {

using Json = nlohmann::json;

struct Reader {
  const std::string& where;

  [[noreturn]] void fail(const std::string& what,
                         const std::string& hint = "the file may be damaged") const {
    throw Error(where, what, hint);
  }
  const Json* find(const Json& object, const char* key) const {
    auto it = object.find(key);
    return it == object.end() || it->is_null() ? nullptr : &*it;
  }
  const Json& need(const Json& object, const char* path, const char* key) const {
    const Json* value = find(object, key);
    if (!value) fail(fmt::format("{}{} is missing", path, key));
    return *value;
  }
  std::string text(const Json& object, const char* path, const char* key) const {
    const Json& value = need(object, path, key);
    if (!value.is_string())
      fail(fmt::format("{}{} is a {}, not a string", path, key, value.type_name()));
    return value.get<std::string>();
  }
  bool flag(const Json& object, const char* path, const char* key, bool otherwise) const {
    const Json* value = find(object, key);
    if (!value) return otherwise;
    if (!value->is_boolean())
      fail(fmt::format("{}{} is a {}, not true or false", path, key, value->type_name()));
    return value->get<bool>();
  }
  int32_t id(const Json& value, std::string_view of) const {
    if (!value.is_number_integer()) {
      fail(fmt::format("the id of '{}' is a {}, not a whole number", printable(of),
                       value.type_name()));
    }
    constexpr int64_t kMost = int64_t{1} << 22;
    bool fits = value.is_number_unsigned()
                    ? value.get<uint64_t>() < kMost
                    : value.get<int64_t>() >= 0 && value.get<int64_t>() < kMost;
    if (!fits)
      fail(fmt::format("the id {} of '{}' is not in 0 ... {}", value.dump(), printable(of),
                       kMost - 1));
    return value.get<int32_t>();
  }
  void unsupported(const char* part, const std::string& type) const {
    fail(fmt::format("{} of type '{}' is not supported", part, printable(type)),
         "byte-level BPE tokenizers (DeepSeek, Qwen2, Llama-3, GPT-2) can be read");
  }

  void model(const Json& root, VocabSource& out) const {
    const Json& model = need(root, "", "model");
    if (!model.is_object()) fail("model is not an object");
    if (const Json* type = find(model, "type"); type && *type != "BPE") {
      unsupported("a model", type->is_string() ? type->get<std::string>() : type->dump());
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix", "unk_token"}) {
      const Json* value = find(model, key);
      if (value && *value != "")
        fail(fmt::format("model.{} is set, which is not supported", key),
             "byte-level BPE has none");
    }
    if (const Json* dropout = find(model, "dropout"); dropout && *dropout != 0.0)
      fail("model.dropout is not supported", "remove it");
    if (flag(model, "model.", "byte_fallback", false))
      unsupported("a model with byte_fallback", "SentencePiece BPE");
    out.ignore_merges = flag(model, "model.", "ignore_merges", false);
    const Json& vocab = need(model, "model.", "vocab");
    if (!vocab.is_object()) fail("model.vocab is not an object");
    out.tokens.reserve(vocab.size());
    for (auto it = vocab.begin(); it != vocab.end(); ++it)
      out.tokens.push_back({it.key(), id(it.value(), it.key())});
    merges(need(model, "model.", "merges"), out);
  }

  void merges(const Json& list, VocabSource& out) const {
    if (!list.is_array()) fail("model.merges is not an array");
    out.merges.reserve(list.size());
    for (const Json& merge : list) {
      std::string left, right;
      if (merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
          fail(fmt::format("merge {} '{}' is not two tokens with one space between",
                           out.merges.size(), printable(text)));
        }
        left = text.substr(0, space);
        right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else {
        fail(fmt::format("merge {} is neither \"left right\" nor [\"left\", \"right\"]",
                         out.merges.size()));
      }
      auto left_size = static_cast<uint32_t>(left.size());
      out.merges.push_back({left + right, left_size});
    }
  }

  void added(const Json& root, VocabSource& out) const {
    const Json* list = find(root, "added_tokens");
    if (!list) return;
    if (!list->is_array()) fail("added_tokens is not an array");
    for (const Json& item : *list) {
      if (!item.is_object()) fail("added_tokens holds something that is not an object");
      AddedToken token;
      token.content = text(item, "added_tokens[].", "content");
      token.id = id(need(item, "added_tokens[].", "id"), token.content);
      token.special = flag(item, "added_tokens[].", "special", false);
      token.normalized = flag(item, "added_tokens[].", "normalized", !token.special);
      token.lstrip = flag(item, "added_tokens[].", "lstrip", false);
      token.rstrip = flag(item, "added_tokens[].", "rstrip", false);
      token.single_word = flag(item, "added_tokens[].", "single_word", false);
      out.added.push_back(std::move(token));
    }
  }

  void normalizer(const Json& value, VocabSource& out) const {
    if (!value.is_object()) fail("normalizer is not an object");
    std::string type = text(value, "normalizer.", "type");
    if (type == "NFC") {
      out.nfc = true;
    } else if (type == "Sequence") {
      const Json& list = need(value, "normalizer.", "normalizers");
      if (!list.is_array()) fail("normalizer.normalizers is not an array");
      for (const Json& item : list) normalizer(item, out);
    } else {
      unsupported("a normalizer", type);
    }
  }

  // A template for one text that begins with a special token: Llama-3's puts bos before every text.
  void post_processor(const Json& value, VocabSource& out) const {
    if (!value.is_object()) fail("post_processor is not an object");
    std::string type = text(value, "post_processor.", "type");
    if (type == "Sequence") {
      const Json& list = need(value, "post_processor.", "processors");
      if (!list.is_array()) fail("post_processor.processors is not an array");
      for (const Json& item : list) post_processor(item, out);
    }
    if (type != "TemplateProcessing") return;
    const Json& single = need(value, "post_processor.", "single");
    if (!single.is_array()) fail("post_processor.single is not an array");
    const Json* first =
        single.empty() || !single[0].is_object() ? nullptr : find(single[0], "SpecialToken");
    if (!first) return;
    if (!first->is_object()) fail("post_processor.single[0].SpecialToken is not an object");
    std::string name = text(*first, "post_processor.single[0].SpecialToken.", "id");
    for (const AddedToken& token : out.added) {
      if (token.content != name) continue;
      out.bos = token.id;
      out.add_bos = true;
    }
  }

  void pre_tokenizer(const Json& value, VocabSource& out, bool& byte_level) const {
    if (!value.is_object()) fail("pre_tokenizer is not an object");
    std::string type = text(value, "pre_tokenizer.", "type");
    if (type == "Sequence") {
      const Json& list = need(value, "pre_tokenizer.", "pretokenizers");
      if (!list.is_array()) fail("pre_tokenizer.pretokenizers is not an array");
      for (const Json& item : list) pre_tokenizer(item, out, byte_level);
      return;
    }
    if (byte_level)
      fail("pre_tokenizer has a step after ByteLevel, which is not supported",
           "ByteLevel must be the last");
    if (type == "ByteLevel") {
      byte_level = true;
      if (flag(value, "pre_tokenizer.", "add_prefix_space", true)) {
        fail("pre_tokenizer ByteLevel adds a space before the text, which is not supported",
             "tokenizers of this kind do not give back the text they were given");
      }
      if (flag(value, "pre_tokenizer.", "use_regex", true)) out.steps.push_back(gpt2_steps()[0]);
      return;
    }
    PreTokenizerStep step;
    if (type == "Digits") {
      step.kind = PreTokenizerStep::kDigits;
      step.individual_digits = flag(value, "pre_tokenizer.", "individual_digits", false);
    } else if (type == "Split") {
      split(value, step);
    } else {
      unsupported("a pre_tokenizer", type);
    }
    out.steps.push_back(std::move(step));
  }

  void split(const Json& value, PreTokenizerStep& step) const {
    const Json& pattern = need(value, "pre_tokenizer.Split.", "pattern");
    if (!pattern.is_object()) fail("pre_tokenizer.Split.pattern is not an object");
    bool literal = find(pattern, "String") != nullptr;
    step.kind = literal ? PreTokenizerStep::kLiteral : PreTokenizerStep::kRegex;
    step.pattern = text(pattern, "pre_tokenizer.Split.pattern.", literal ? "String" : "Regex");
    std::string behavior = text(value, "pre_tokenizer.Split.", "behavior");
    constexpr std::pair<const char*, PreTokenizerStep::Behavior> kBehaviors[] = {
        {"Isolated", PreTokenizerStep::kIsolated},
        {"Removed", PreTokenizerStep::kRemoved},
        {"MergedWithPrevious", PreTokenizerStep::kMergedWithPrevious},
        {"MergedWithNext", PreTokenizerStep::kMergedWithNext},
        {"Contiguous", PreTokenizerStep::kContiguous}};
    auto* it = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                            [&](auto& b) { return behavior == b.first; });
    if (it == std::end(kBehaviors))
      fail(fmt::format("pre_tokenizer.Split.behavior '{}' is unknown", printable(behavior)));
    step.behavior = it->second;
    step.invert = flag(value, "pre_tokenizer.Split.", "invert", false);
  }
};

// JSON text of a string: escapes only what JSON requires, so that the file stays readable.
void quote(std::string& out, std::string_view text) {
  out += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<uint8_t>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<int>(c));
    } else {
      out += c;
    }
  }
  out += '"';
}

void write_steps(std::string& out, const std::vector<PreTokenizerStep>& steps) {
  constexpr const char* kBehaviors[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
  out += "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n";
  for (const PreTokenizerStep& step : steps) {
    if (step.kind == PreTokenizerStep::kDigits) {
      out += fmt::format("    {{\"type\": \"Digits\", \"individual_digits\": {}}},\n",
                         step.individual_digits);
      continue;
    }
    out += fmt::format("    {{\"type\": \"Split\", \"pattern\": {{\"{}\": ",
                       step.kind == PreTokenizerStep::kRegex ? "Regex" : "String");
    quote(out, step.pattern);
    out += fmt::format("}}, \"behavior\": \"{}\", \"invert\": {}}},\n", kBehaviors[step.behavior],
                       step.invert);
  }
  out +=
      "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
      "\"use_regex\": false}]},\n";
}

}  // namespace

VocabSource parse_tokenizer_json(std::string_view json, const std::string& where) {
  Json root = parse_json(json, where);
  Reader reader{where};
  if (!root.is_object())
    reader.fail("not a JSON object", "a tokenizer.json of the Hugging Face format is needed");
  VocabSource out;
  out.where = where;
  reader.model(root, out);
  reader.added(root, out);
  if (const Json* normalizer = reader.find(root, "normalizer")) reader.normalizer(*normalizer, out);
  if (const Json* post = reader.find(root, "post_processor")) reader.post_processor(*post, out);
  bool byte_level = false;
  reader.pre_tokenizer(reader.need(root, "", "pre_tokenizer"), out, byte_level);
  const Json* decoder = reader.find(root, "decoder");
  if (!byte_level || !decoder || !decoder->is_object() ||
      reader.text(*decoder, "decoder.", "type") != "ByteLevel") {
    reader.fail("not byte-level (pre_tokenizer and decoder must be of type ByteLevel)",
                "byte-level BPE tokenizers (DeepSeek, Qwen2, Llama-3, GPT-2) can be read");
  }
  return out;
}

std::string write_tokenizer_json(const VocabSource& source) {
  std::string out =
      "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  "
      "\"added_tokens\": [";
  const char* comma = "\n";
  for (const AddedToken& t : source.added) {
    out += fmt::format("{}    {{\"id\": {}, \"content\": ", comma, t.id);
    quote(out, t.content);
    out += fmt::format(
        ", \"single_word\": {}, \"lstrip\": {}, \"rstrip\": {}, \"normalized\": {}, \"special\": "
        "{}}}",
        t.single_word, t.lstrip, t.rstrip, t.normalized, t.special);
    comma = ",\n";
  }
  out += "],\n";
  out += source.nfc ? "  \"normalizer\": {\"type\": \"NFC\"},\n" : "  \"normalizer\": null,\n";
  write_steps(out, source.steps);
  out +=
      "  \"post_processor\": null,\n"
      "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": "
      "true, \"use_regex\": false},\n"
      "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
      "\"continuing_subword_prefix\": null,\n"
      "    \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, ";
  out += fmt::format("\"ignore_merges\": {},\n    \"vocab\": {{", source.ignore_merges);
  comma = "\n";
  for (const VocabSource::Token& t : source.tokens) {
    out += comma;
    out += "      ";
    quote(out, t.text);
    out += fmt::format(": {}", t.id);
    comma = ",\n";
  }
  out += "},\n    \"merges\": [";
  comma = "\n";
  for (const VocabSource::Merge& m : source.merges) {
    out += comma;
    out += "      ";
    std::string_view text = m.text;
    quote(out,
          std::string(text.substr(0, m.left_size)) + " " + std::string(text.substr(m.left_size)));
    comma = ",\n";
  }
  out += "]}\n}\n";
  return out;
}

}  // namespace wels
