// Corpora: files and folders of text → documents, one after another, in a fixed order, in bounded
// memory.
//
// .txt .md .rst and code: a file is a document; a .txt whose lines "<|doc|>" separate documents is
// split there. .jsonl: a document per line. Man pages (.1 ... .8) are reduced to their text. .gz
// and .zst around any of these are unpacked as they are read. Invalid UTF-8 is replaced by U+FFFD
// and counted; files that are binary (a NUL, or over 5 % invalid in their first megabyte) and files
// that were read already are skipped and counted.
//
// A document longer than kPieceBytes comes in pieces, cut after a line end at the start of a
// paragraph where there is one; the pieces are the document, byte for byte. Tokenisers never merge
// across such a place, so pieces can be encoded in parallel.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace wels {

constexpr int64_t kPieceBytes = 1 << 20;

struct CorpusStats {
  int64_t files = 0, documents = 0,
          bytes = 0;  // bytes: of the documents, after unpacking and cleaning
  int64_t skipped_binary = 0, skipped_duplicate = 0, skipped_unreadable = 0;
  int64_t invalid_utf8 = 0;  // ill-formed bytes and stray NULs, replaced
  // "812 files, 1034 documents, 45.2 MB of text; 3 bytes were not UTF-8; skipped 4 files (3 binary,
  // 1 duplicate)".
  std::string summary() const;
};

// Every readable text file under the given files and folders: folders recursively, sorted within
// each, hidden entries and links to folders left out. Throws Error for a missing or unreadable path
// and where nothing is found. What is a text file is decided by its name (file_kind.h); a file
// named directly is taken whatever its name.
std::vector<std::string> list_corpus(const std::vector<std::string>& paths);

// Calls document(text) for each document of each file, whole. Throws Error for broken archives and
// JSON lines (with the line), and where no document has any text.
CorpusStats read_corpus(const std::vector<std::string>& files,
                        const std::function<void(std::string_view document)>& document);

// Text that is on every machine: documentation, manuals, licences, Python's and Perl's libraries
// and headers, prose first, (near-)duplicates left out, at most `max_bytes` unpacked; the same
// files on the same machine. For a first run without data. Throws Error where there is too little
// (< 1 MB and < half of max_bytes).
std::vector<std::string> find_local_text(int64_t max_bytes);

// The document in a JSON line: "text" (after its "title", if there); "question" and "answer"; or
// "messages", as plain paragraphs "User: ..." (only the chat template turns messages into a model's
// own tokens). Throws Error(where) if it is none of these.
std::string json_line_text(std::string_view line, const std::string& where);

// A document or part of one.
struct Piece {
  std::string text;      // well-formed UTF-8, not empty
  int64_t document = 0;  // counts from 0
  bool first = true, last = true;
  uint64_t hash =
      0;  // of the document's first piece: splits go by it, so they survive a change of order
};

// The corpus piece by piece.
class CorpusReader {
 public:
  explicit CorpusReader(std::vector<std::string> files);
  ~CorpusReader();
  // The next piece; false at the end. Throws as read_corpus does. A file that became unreadable
  // since it was listed is an Error.
  bool next(Piece& out);
  const CorpusStats& stats() const { return stats_; }
  int64_t stored_bytes_done() const;  // of the files as they lie on disk, for progress
  int64_t stored_bytes_total() const { return stored_total_; }

 private:
  struct Open;
  void pump();
  bool skip_file();
  void pump_text();
  void pump_json_lines();
  void take_documents(bool at_end);
  void emit_document(std::string_view text);
  void emit(std::string text, bool last);

  std::vector<std::string> files_;
  size_t next_file_ = 0;
  std::unique_ptr<Open> open_;
  std::deque<Piece> ready_;
  // Files by a hash of their first megabyte and, of longer ones, their size.
  std::unordered_map<uint64_t, std::vector<std::string>> seen_;
  CorpusStats stats_;
  int64_t stored_total_ = 0, stored_done_ = 0;
  bool in_document_ = false;
  uint64_t hash_ = 0;
};

}  // namespace wels
