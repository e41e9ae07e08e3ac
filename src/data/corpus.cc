#include "data/corpus.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "data/byte_stream.h"
#include "data/file_kind.h"
#include "data/hash.h"
#include "data/man_page.h"
#include "data/utf8_cleaner.h"
#include "formats/json.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 1 << 20;            // read at once; also what the binary test sees
constexpr size_t kLongestLine = size_t{64} << 20;  // of JSON lines, and the largest manual page
constexpr double kBinaryShare = 0.05;
constexpr std::string_view kSeparator = "<|doc|>";

void walk(const fs::path& folder, std::vector<std::string>& files, bool top) {
  std::error_code ec;
  std::vector<fs::directory_entry> entries;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec))
    entries.push_back(*it);
  if (ec && top)
    throw Error(folder.string(), "cannot read the folder: " + ec.message(),
                "check its permissions");
  if (ec) log_warn("{}: cannot read the folder: {}; it is left out", folder.string(), ec.message());
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.path() < b.path(); });
  for (const fs::directory_entry& entry : entries) {
    std::string path = entry.path().string();
    if (entry.path().filename().string().starts_with(".")) continue;
    if (entry.is_directory(ec)) {
      if (!entry.is_symlink(ec)) walk(entry.path(), files, false);
    } else if (entry.is_regular_file(ec) && file_kind(path) != FileKind::kUnknown) {
      files.push_back(std::move(path));
    }
  }
}

bool blank(std::string_view text) { return text.find_first_not_of(" \t\n\r\f\v") == text.npos; }
bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

// Where to cut a text longer than kPieceBytes: after a blank line if possible, else after a line
// end, else before a blank, in the second half of the first kPieceBytes; the next piece never
// starts with white space, as a run of it is one token to some.
size_t cut_position(std::string_view text) {
  const size_t most = kPieceBytes, least = most / 2;
  size_t line = 0, word = 0;
  for (size_t i = most; i > least; --i) {
    if (text[i - 1] == '\n' && !is_space(text[i])) {
      if (text[i - 2] == '\n') return i;
      line = std::max(line, i);
    }
    if (text[i] == ' ' && !is_space(text[i - 1]) && !is_space(text[i + 1]))
      word = std::max(word, i);
  }
  if (line > 0) return line;
  if (word > 0) return word;
  size_t i = most;
  while ((static_cast<uint8_t>(text[i]) & 0xC0) == 0x80) --i;  // inside a character
  return i;
}

int64_t stored_size(const std::string& path) {
  std::error_code ec;
  auto size = fs::file_size(path, ec);
  return ec ? 0 : static_cast<int64_t>(size);
}

std::string count_of(int64_t n, std::string_view one) {
  return fmt::format("{} {}{}", n, one, n == 1 ? "" : "s");
}

}  // namespace

std::string CorpusStats::summary() const {
  std::string out = fmt::format("{}, {}, {:.1f} MB of text", count_of(files, "file"),
                                count_of(documents, "document"), static_cast<double>(bytes) / 1e6);
  if (invalid_utf8 > 0)
    out += fmt::format("; {} not UTF-8, replaced", count_of(invalid_utf8, "byte"));
  std::string reasons;
  auto add = [&](int64_t n, std::string_view reason) {
    if (n > 0) reasons += fmt::format("{}{} {}", reasons.empty() ? "" : ", ", n, reason);
  };
  add(skipped_binary, "binary");
  add(skipped_duplicate, "duplicate");
  add(skipped_unreadable, "unreadable");
  if (!reasons.empty()) {
    out += fmt::format("; skipped {} ({})",
                       count_of(skipped_binary + skipped_duplicate + skipped_unreadable, "file"),
                       reasons);
  }
  return out;
}

std::vector<std::string> list_corpus(const std::vector<std::string>& paths) {
  if (paths.empty()) throw Error("corpus", "no file or folder given");
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code ec;
    fs::file_status status = fs::status(path, ec);
    if (ec || !fs::exists(status))
      throw Error(path, "no such file or folder", "give text files or folders of them");
    if (fs::is_directory(status)) {
      walk(path, files, true);
    } else if (!fs::is_regular_file(status)) {
      throw Error(path, "neither a file nor a folder");
    } else if (::access(path.c_str(), R_OK) != 0) {
      throw Error(path, "cannot read the corpus: no permission", "change its permissions");
    } else {
      files.push_back(path);
    }
  }
  if (files.empty()) {
    throw Error(
        paths.front(), "holds no text file",
        "give .txt, .md, .jsonl or source files, plain or as .gz or .zst, or a folder with some");
  }
  return files;
}

CorpusStats read_corpus(const std::vector<std::string>& files,
                        const std::function<void(std::string_view)>& document) {
  CorpusReader reader(files);
  std::string whole;
  for (Piece piece; reader.next(piece);) {
    if (piece.first && piece.last) {
      document(piece.text);
      continue;
    }
    if (piece.first) whole.clear();
    whole += piece.text;
    if (piece.last) document(whole);
  }
  return reader.stats();
}

std::string json_line_text(std::string_view line, const std::string& where) {
  using nlohmann::json;
  json object = parse_json(line, where);
  if (!object.is_object())
    throw Error(where, "not a JSON object",
                "each line must be {\"text\": ...} or {\"messages\": [...]}");
  auto text_of = [&](const char* key) -> std::string {
    auto it = object.find(key);
    if (it == object.end()) return "";
    if (!it->is_string()) throw Error(where, fmt::format("\"{}\" is not a string", key));
    return it->get<std::string>();
  };
  if (object.contains("text")) {
    std::string title = text_of("title");
    return title.empty() ? text_of("text") : title + "\n\n" + text_of("text");
  }
  if (object.contains("question") && object.contains("answer")) {
    return "Question: " + text_of("question") + "\n\nAnswer: " + text_of("answer") + "\n";
  }
  auto messages = object.find("messages");
  if (messages == object.end()) {
    throw Error(where,
                "the object has none of \"text\", \"messages\", \"question\" with \"answer\"");
  }
  if (!messages->is_array()) throw Error(where, "\"messages\" is not an array");
  std::string out;
  for (const json& message : *messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      throw Error(where, "a message without a \"role\"");
    }
    std::string role = message["role"].get<std::string>();
    if (!role.empty() && role[0] >= 'a' && role[0] <= 'z')
      role[0] = static_cast<char>(role[0] - 'a' + 'A');
    if (!out.empty()) out += '\n';
    out += role + ":";
    if (message.contains("content") && message["content"].is_string()) {
      out += " " + message["content"].get<std::string>();
    } else if (message.contains("content") && !message["content"].is_null()) {
      throw Error(where, "a message's \"content\" is not a string");
    }
    if (message.contains("tool_calls")) out += " " + message["tool_calls"].dump();
    out += '\n';
  }
  return out;
}

// The file being read.
struct CorpusReader::Open {
  std::string path;
  FileKind kind;
  int64_t stored_bytes;
  ByteStream stream;
  Utf8Cleaner cleaner;
  std::string text;        // clean, not yet emitted
  size_t scanned = 0;      // text before it holds no separator
  bool line_start = true;  // text[0] starts a line
  bool judged = false;     // skip_file() was asked
  bool ended = false;
  int64_t line = 0;  // JSON lines read
  std::string chunk;

  Open(const std::string& file, int64_t size)
      : path(file), kind(file_kind(file)), stored_bytes(size), stream(file) {}
  // Reads a whole chunk unless the file ends, so that what skip_file() sees does not depend on how
  // reads are cut.
  void read() {
    chunk.resize(kChunkBytes);
    size_t have = 0;
    while (have < kChunkBytes) {
      size_t n = stream.read(chunk.data() + have, kChunkBytes - have);
      if (n == 0) break;
      have += n;
    }
    ended = have < kChunkBytes;
    chunk.resize(have);
    cleaner.append(chunk, ended, text);
  }
};

CorpusReader::CorpusReader(std::vector<std::string> files) : files_(std::move(files)) {
  for (const std::string& f : files_) stored_total_ += stored_size(f);
}
CorpusReader::~CorpusReader() = default;

int64_t CorpusReader::stored_bytes_done() const {
  return stored_done_ + (open_ ? open_->stream.stored_bytes() : 0);
}

bool CorpusReader::next(Piece& out) {
  while (ready_.empty()) {
    if (open_) {
      pump();
    } else if (next_file_ < files_.size()) {
      const std::string& path = files_[next_file_++];
      if (::access(path.c_str(), R_OK) != 0 && files_.size() > 1) {
        stats_.skipped_unreadable +=
            1;  // one of many in a folder; list_corpus refuses those that were named
        continue;
      }
      open_ = std::make_unique<Open>(path, stored_size(path));
    } else if (stats_.documents > 0) {
      return false;
    } else {
      std::string where = files_.empty() ? "corpus" : files_.front();
      if (stats_.skipped_binary > 0)
        throw Error(where, "is binary, or not UTF-8", "convert it to UTF-8 text");
      throw Error(where, "holds no text", "give files with text in them");
    }
  }
  out = std::move(ready_.front());
  ready_.pop_front();
  return true;
}

// Judges a file by its first chunk: true if it is to be left out, which is counted.
bool CorpusReader::skip_file() {
  Open& o = *open_;
  if (o.judged) return false;
  o.judged = true;
  bool wide = o.chunk.starts_with("\xFF\xFE") || o.chunk.starts_with("\xFE\xFF");  // UTF-16
  auto bad = static_cast<double>(o.cleaner.bad_bytes()), all = static_cast<double>(o.chunk.size());
  if (wide || o.cleaner.nul_bytes() > 0 || bad > kBinaryShare * all) {
    stats_.skipped_binary += 1;
    return true;
  }
  if (o.chunk.empty()) return false;
  uint64_t id = hash_bytes(o.chunk, o.ended ? 0 : static_cast<uint64_t>(o.stored_bytes));
  std::vector<std::string>& alike = seen_[id];
  bool again = std::any_of(alike.begin(), alike.end(), [&](const std::string& path) {
    return o.ended || MappedFile(path).text() == MappedFile(o.path).text();
  });
  if (!again) alike.push_back(o.path);
  stats_.skipped_duplicate += again;
  return again;
}

void CorpusReader::pump() {
  Open& o = *open_;
  o.read();
  bool skip = skip_file();
  if (!skip) o.kind == FileKind::kJsonLines ? pump_json_lines() : pump_text();
  if (!skip && !o.ended) return;
  if (!skip) {
    stats_.files += 1;
    stats_.invalid_utf8 += o.cleaner.bad_bytes();
  }
  stored_done_ += o.stored_bytes;
  open_.reset();
}

void CorpusReader::pump_json_lines() {
  Open& o = *open_;
  std::string& text = o.text;
  size_t begin = 0;
  for (;;) {
    size_t newline = text.find('\n', std::max(begin, o.scanned));
    if (newline == text.npos && !(o.ended && begin < text.size())) break;
    std::string_view line =
        std::string_view(text).substr(begin, newline == text.npos ? text.npos : newline - begin);
    o.line += 1;
    if (!blank(line)) emit_document(json_line_text(line, fmt::format("{}:{}", o.path, o.line)));
    begin = newline == text.npos ? text.size() : newline + 1;
    o.scanned = begin;
  }
  text.erase(0, begin);
  o.scanned = text.size();
  if (text.size() > kLongestLine) {
    throw Error(fmt::format("{}:{}", o.path, o.line + 1),
                fmt::format("a JSON line longer than {} MiB", kLongestLine >> 20));
  }
}

void CorpusReader::pump_text() {
  Open& o = *open_;
  if (o.kind == FileKind::kManPage) {
    if (o.text.size() > kLongestLine)
      throw Error(o.path, "a manual page larger than 64 MiB", "is it one? rename it");
    if (o.ended) emit_document(man_page_text(o.text));
    return;
  }
  if (o.kind == FileKind::kSeparated) take_documents(o.ended);
  while (o.text.size() > kPieceBytes + 8) {
    size_t cut = cut_position(o.text);
    o.line_start = o.text[cut - 1] == '\n';
    std::string head = o.text.substr(0, cut);
    o.text.erase(0, cut);
    o.scanned -= std::min(o.scanned, cut);
    emit(std::move(head), false);
  }
  if (o.ended) emit(std::move(o.text), true);
}

// Emits the documents that end with a separator line inside the text at hand.
void CorpusReader::take_documents(bool at_end) {
  Open& o = *open_;
  size_t begin = 0, from = o.scanned;  // the document's start in the text at hand; where to look on
  auto drop_emitted = [&](size_t scanned) {
    o.text.erase(0, begin);
    o.scanned = scanned - begin;
  };
  for (;;) {
    size_t at = o.text.find(kSeparator, from);
    if (at == o.text.npos) break;
    size_t after = at + kSeparator.size();
    if (after == o.text.size() && !at_end) return drop_emitted(at);  // the line may go on
    bool starts_line = at == 0 ? o.line_start : o.text[at - 1] == '\n';
    if (!starts_line || (after < o.text.size() && o.text[after] != '\n')) {
      from = after;
      continue;
    }
    emit_document(std::string_view(o.text).substr(begin, at - begin));
    begin = from = std::min(after + 1, o.text.size());
    o.line_start = true;
  }
  drop_emitted(std::max(begin, o.text.size() - std::min(o.text.size(), kSeparator.size())));
}

// The (rest of the) present document, cut into pieces where it is long.
void CorpusReader::emit_document(std::string_view text) {
  while (text.size() > kPieceBytes + 8) {
    size_t cut = cut_position(text);
    emit(std::string(text.substr(0, cut)), false);
    text.remove_prefix(cut);
  }
  emit(std::string(text), true);
}

void CorpusReader::emit(std::string text, bool last) {
  if (!in_document_ && last && blank(text)) return;
  CHECK(!text.empty());  // cuts leave something on both sides
  if (!in_document_) hash_ = hash_bytes(text);
  Piece piece;
  piece.document = stats_.documents;
  piece.first = !in_document_;
  piece.last = last;
  piece.hash = hash_;
  stats_.bytes += static_cast<int64_t>(text.size());
  piece.text = std::move(text);
  ready_.push_back(std::move(piece));
  in_document_ = !last;
  if (last) stats_.documents += 1;
}

}  // namespace wels
