// Corpora: files and folders of text → documents, one after another, in a fixed order.
//
// .txt .md .rst and code: a file is a document; a text whose lines "<|doc|>" separate documents is split there. .jsonl: a
// document per line, from its "text", or its "messages" (contents joined by blank lines). Man pages (.1 ... .8) are text. .gz and
// .zst around any of these are unpacked. One file is in memory at a time. Invalid UTF-8 is replaced by U+FFFD and counted;
// files that are binary (a NUL byte, or over 5 % invalid) are skipped and counted.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace wels {

struct CorpusStats {
  int64_t files = 0, documents = 0, bytes = 0;
  int64_t skipped_binary = 0, skipped_duplicate = 0, skipped_unreadable = 0;
  int64_t invalid_utf8 = 0;  // replaced sequences
};

// Every readable text file under the given files and folders, sorted within each. Throws Error for a missing path and where
// nothing is found. What is a text file is decided by its name; a file named directly is taken whatever its name.
std::vector<std::string> list_corpus(const std::vector<std::string>& paths);

// Calls document(text) for each document of each file. bytes_done counts unpacked bytes, for progress. Throws Error for broken
// archives and JSON lines (with the line), and where no document has any text.
CorpusStats read_corpus(const std::vector<std::string>& files, const std::function<void(std::string_view document)>& document);

// Text that is on every machine: documentation, manuals, licences and headers, prose first, duplicates left out, at most
// `max_bytes` unpacked. For a first run without data. Throws Error where there is too little (< 1 MB).
std::vector<std::string> find_local_text(int64_t max_bytes);

// Valid UTF-8: ill-formed sequences become U+FFFD (one per maximal subpart); returns how many.
int64_t repair_utf8(std::string& text);

}  // namespace wels
