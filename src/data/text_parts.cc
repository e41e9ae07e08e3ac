#include "data/text_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>

#include "base/check.h"
#include "base/error.h"
#include "data/corpus.h"
#include "data/examples.h"
#include "data/hash.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

constexpr int64_t kDocumentsToSplit = 20;
constexpr size_t kBytesPerToken = 4;  // of a window of a corpus that is sampled, about

int64_t tokens_of(std::string_view text, const Tokenizer& tokenizer) {
  return static_cast<int64_t>(tokenizer.encode(text, AddedTokens::kAsText).size());
}

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Where a text of at least two characters is cut: behind the last blank of its first half, else at
// a character near the middle.
size_t middle(std::string_view text) {
  size_t half = text.size() / 2, blank = text.find_last_of(" \t", half);
  if (blank != std::string_view::npos && blank > 0) return blank + 1;
  size_t at = half;
  while (at > 0 && continues_character(text[at])) --at;
  if (at > 0) return at;
  for (at = half + 1; at < text.size() && continues_character(text[at]);) ++at;
  return at;
}

void cut_line(std::string_view line, const Tokenizer& tokenizer, int64_t longest,
              std::vector<std::string_view>& out, std::vector<int64_t>& sizes) {
  int64_t n = tokens_of(line, tokenizer);
  size_t at = n > longest ? middle(line) : line.size();
  if (at >= line.size()) {  // short enough, or one character
    out.push_back(line);
    sizes.push_back(n);
    return;
  }
  cut_line(line.substr(0, at), tokenizer, longest, out, sizes);
  cut_line(line.substr(at), tokenizer, longest, out, sizes);
}

// The documents of a corpus, whole, one after another.
template <class Document>
void each_document(const std::vector<std::string>& files, const std::function<bool()>& more,
                   Document&& document) {
  CorpusReader reader(files);
  Piece piece;
  std::string text;
  uint64_t hash = 0;
  while (more() && reader.next(piece)) {
    if (piece.first) text.clear();
    if (piece.first) hash = piece.hash;
    text += piece.text;
    if (piece.last) document(text, piece.document, hash);
  }
}

void append_document(std::string_view text, int64_t document, uint64_t hash,
                     const Tokenizer& tokenizer, int64_t longest, std::vector<TextPart>& out) {
  for (std::string& part : cut_text(text, tokenizer, longest))
    out.push_back({std::move(part), false, document, hash});
  if (!out.empty() && out.back().document == document) out.back().ends = true;
}

}  // namespace

std::vector<std::string> cut_text(std::string_view text, const Tokenizer& tokenizer,
                                  int64_t longest) {
  CHECK(longest >= 1);
  std::vector<std::string_view> lines;
  std::vector<int64_t> sizes;
  while (!text.empty()) {
    size_t end = text.find('\n');
    size_t n = end == std::string_view::npos ? text.size() : end + 1;
    cut_line(text.substr(0, n), tokenizer, longest, lines, sizes);
    text.remove_prefix(n);
  }
  std::vector<std::string> out;
  int64_t room = 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (out.empty() || sizes[i] > room) {
      out.emplace_back();
      room = longest;
    }
    out.back() += lines[i];
    room -= sizes[i];
  }
  return out;
}

std::vector<TextPart> read_text_parts(const std::vector<std::string>& files,
                                      const Tokenizer& tokenizer, int64_t longest,
                                      const std::function<bool()>& more) {
  std::vector<TextPart> out;
  each_document(files, more, [&](std::string_view text, int64_t document, uint64_t hash) {
    append_document(text, document, hash, tokenizer, longest, out);
  });
  return out;
}

HeldOutParts hold_out(std::vector<TextPart> parts, double share, const std::string& where) {
  int64_t documents = parts.empty() ? 0 : parts.back().document + 1;
  HeldOutParts out;
  if (documents >= kDocumentsToSplit) {
    for (TextPart& p : parts)
      (in_held_out_share(p.hash, share) ? out.held_out : out.train).push_back(p);
  }
  if (out.held_out.empty() || out.train.empty()) {
    out = {};
    auto n = static_cast<double>(parts.size());
    size_t last = std::max<size_t>(static_cast<size_t>(n * share), 1);
    if (parts.size() < 2) {
      throw Error(
          where,
          fmt::format("{} bytes of text in {} documents: too little to hold a part of it out",
                      bytes_of(parts), documents),
          "give more text, or a smaller --seq");
    }
    auto middle = parts.end() - static_cast<std::ptrdiff_t>(last);
    out.train.assign(parts.begin(), middle);
    out.held_out.assign(middle, parts.end());
  }
  return out;
}

std::vector<TextPart> sample_text_parts(const std::vector<std::string>& files,
                                        const Tokenizer& tokenizer, int64_t longest, int64_t bytes,
                                        const std::function<bool()>& more) {
  struct Window {
    uint64_t rank;
    int64_t place, document;
    std::string text;
    bool ends;
    bool operator<(const Window& o) const {
      return rank != o.rank ? rank < o.rank : place < o.place;
    }
  };
  std::priority_queue<Window> kept;  // the highest rank on top
  int64_t held = 0, place = 0;
  auto width = static_cast<size_t>(longest) * kBytesPerToken;
  each_document(files, more, [&](std::string_view text, int64_t document, uint64_t) {
    while (!text.empty()) {
      size_t n = text.size();
      if (n > width) {
        size_t line = text.rfind('\n', width);
        n = line == std::string_view::npos ? width : line + 1;
        while (n < text.size() && continues_character(text[n])) ++n;
      }
      std::string_view window = text.substr(0, n);
      text.remove_prefix(n);
      uint64_t rank = hash_bytes(window);
      ++place;
      if (held >= bytes && rank >= kept.top().rank) continue;
      kept.push({rank, place, document, std::string(window), text.empty()});
      held += static_cast<int64_t>(n);
      while (held - static_cast<int64_t>(kept.top().text.size()) >= bytes) {
        held -= static_cast<int64_t>(kept.top().text.size());
        kept.pop();
      }
    }
  });
  std::vector<Window> windows;
  for (; !kept.empty(); kept.pop()) windows.push_back(kept.top());
  std::sort(windows.begin(), windows.end(),
            [](const Window& a, const Window& b) { return a.place < b.place; });
  std::vector<TextPart> out;
  for (const Window& w : windows) {
    size_t before = out.size();
    append_document(w.text, w.document, w.rank, tokenizer, longest, out);
    if (out.size() > before) out.back().ends = w.ends;
  }
  return out;
}

int64_t bytes_of(const std::vector<TextPart>& parts) {
  int64_t n = 0;
  for (const TextPart& p : parts) n += static_cast<int64_t>(p.text.size());
  return n;
}

std::string json_lines_of(const std::vector<TextPart>& parts) {
  std::string out;
  for (const TextPart& p : parts) {
    nlohmann::ordered_json line = {{"text", p.text}};
    if (!p.ends) line["ends"] = false;
    out += line.dump() + "\n";
  }
  return out;
}

}  // namespace wels
