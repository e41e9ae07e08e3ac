// What kind of text a file holds, by its name. One table; a row added there is read everywhere.
#pragma once
#include <string>
#include <string_view>

namespace wels {

enum class FileKind {
  kSeparated,  // .txt: documents between lines that hold only <|doc|> (a file without such lines is
               // one document)
  kText,       // prose and code: one file is one document
  kJsonLines,  // .jsonl, .ndjson: one object a line
  kManPage,    // .1 ... .8 and the like: troff source, reduced to its text
  kUnknown  // not in the table: left out of folders, but read as text where a file is named on its
            // own
};

// path: compression suffixes (.gz, .zst) are looked through. Names without an extension (README,
// LICENSE, Makefile) are kText.
FileKind file_kind(std::string_view path);

// The extension that decided, without compression suffixes: "txt", "3pm", "" (for messages).
std::string file_extension(std::string_view path);

}  // namespace wels
