#include "data/file_kind.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace wels {
namespace {

constexpr std::array kProse = {"md",   "markdown", "rst", "text",   "tex",  "org",
                               "adoc", "asciidoc", "pod", "html",   "htm",  "xhtml",
                               "texi", "bib",      "srt", "readme", "news", "debian"};
constexpr std::array kCode = {
    "c",     "h",   "cc",   "cpp",  "cxx", "hh",  "hpp",   "hxx",  "inl",   "inc", "ipp",
    "tcc",   "cu",  "cuh",  "m",    "mm",  "py",  "pyi",   "js",   "mjs",   "cjs", "ts",
    "tsx",   "jsx", "java", "go",   "rs",  "rb",  "pl",    "pm",   "lua",   "sh",  "bash",
    "zsh",   "css", "scss", "sql",  "r",   "jl",  "swift", "kt",   "scala", "hs",  "ml",
    "mli",   "cs",  "fs",   "php",  "asm", "s",   "f90",   "f",    "pas",   "vim", "el",
    "lisp",  "scm", "clj",  "ex",   "erl", "nim", "zig",   "d",    "v",     "sv",  "vhd",
    "cmake", "mk",  "toml", "yaml", "yml", "ini", "cfg",   "conf", "proto", "cl",  "glsl",
    "tcl",   "awk", "dart", "pp",   "def", "td",  "vue"};

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

template <class Table>
bool in(const Table& table, const std::string& extension) {
  return std::find(table.begin(), table.end(), extension) != table.end();
}

}  // namespace

std::string file_extension(std::string_view path) {
  size_t slash = path.rfind('/');
  std::string name = lower(slash == path.npos ? path : path.substr(slash + 1));
  for (;;) {
    size_t dot = name.rfind('.');
    if (dot == name.npos || dot == 0) return "";
    std::string extension = name.substr(dot + 1);
    if (extension != "gz" && extension != "zst" && extension != "zstd") return extension;
    name.resize(dot);
  }
}

FileKind file_kind(std::string_view path) {
  std::string e = file_extension(path);
  if (e == "txt") return FileKind::kSeparated;
  if (e == "jsonl" || e == "ndjson") return FileKind::kJsonLines;
  if (e.empty() || in(kProse, e) || in(kCode, e)) return FileKind::kText;
  bool section = e[0] >= '1' && e[0] <= '8' && e.size() <= 5 &&
                 std::all_of(e.begin() + 1, e.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  return section ? FileKind::kManPage : FileKind::kUnknown;
}

}  // namespace wels
