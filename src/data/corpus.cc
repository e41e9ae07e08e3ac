#include "data/corpus.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"

namespace wels {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kSeparator = "<|doc|>";
constexpr int64_t kMaxFileBytes = int64_t{4} << 30;  // unpacked; larger corpora come in several files

const std::set<std::string, std::less<>> kTextEndings = {
    "",    ".txt", ".md", ".jsonl", ".rst", ".c",  ".h",  ".cc", ".cpp", ".hpp", ".py", ".js", ".ts", ".go", ".rs", ".java",
    ".sh", ".pl",  ".pm", ".pod",   ".tex", ".html", ".1", ".2", ".3",   ".4",   ".5",  ".6",  ".7",  ".8"};

// The ending that says what is inside: of "a.txt.zst" it is ".txt".
std::string inner_ending(const fs::path& p) {
  std::string e = p.extension().string();
  return e == ".gz" || e == ".zst" ? p.stem().extension().string() : e;
}

std::string gunzip(std::string_view in, const std::string& path) {
  z_stream z{};
  if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) throw Error(path, "cannot start zlib");
  std::string out;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
  z.avail_in = static_cast<uInt>(in.size());
  int rc = Z_OK;
  char chunk[1 << 16];
  while (rc != Z_STREAM_END || z.avail_in > 0) {
    if (rc == Z_STREAM_END) inflateReset(&z);  // several members in one file
    z.next_out = reinterpret_cast<Bytef*>(chunk);
    z.avail_out = sizeof chunk;
    rc = inflate(&z, Z_NO_FLUSH);
    out.append(chunk, sizeof chunk - z.avail_out);
    bool stuck = rc == Z_BUF_ERROR || (rc == Z_OK && z.avail_in == 0 && z.avail_out > 0);
    if ((rc != Z_OK && rc != Z_STREAM_END) || stuck || static_cast<int64_t>(out.size()) > kMaxFileBytes) {
      inflateEnd(&z);
      throw Error(path, "is no complete gzip file", "fetch it again");
    }
  }
  inflateEnd(&z);
  return out;
}

std::string unzstd(std::string_view in, const std::string& path) {
  ZSTD_DStream* d = ZSTD_createDStream();
  std::string out;
  std::vector<char> chunk(ZSTD_DStreamOutSize());
  ZSTD_inBuffer input{in.data(), in.size(), 0};
  size_t left = 1;
  while (input.pos < input.size || left != 0) {
    ZSTD_outBuffer output{chunk.data(), chunk.size(), 0};
    size_t before = input.pos;
    left = ZSTD_decompressStream(d, &output, &input);
    out.append(chunk.data(), output.pos);
    bool stuck = left != 0 && !ZSTD_isError(left) && input.pos == before && output.pos == 0;
    if (ZSTD_isError(left) || stuck || static_cast<int64_t>(out.size()) > kMaxFileBytes) {
      std::string why = ZSTD_isError(left) ? ZSTD_getErrorName(left) : "it ends too early";
      ZSTD_freeDStream(d);
      throw Error(path, "is no complete zstd file (" + why + ")", "fetch it again");
    }
  }
  ZSTD_freeDStream(d);
  return out;
}

std::string unpacked(const std::string& path) {
  MappedFile file(path);
  std::string ending = fs::path(path).extension().string();
  if (ending == ".gz") return gunzip(file.text(), path);
  if (ending == ".zst") return unzstd(file.text(), path);
  return std::string(file.text());
}

// Length of the well-formed UTF-8 sequence at s[i], or -(length of the maximal ill-formed subpart).
int sequence_length(std::string_view s, size_t i) {
  uint8_t b = static_cast<uint8_t>(s[i]);
  if (b < 0x80) return 1;
  int need = b >= 0xc2 && b <= 0xdf ? 1 : b >= 0xe0 && b <= 0xef ? 2 : b >= 0xf0 && b <= 0xf4 ? 3 : 0;
  if (need == 0) return -1;
  uint8_t low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80, high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
  for (int k = 1; k <= need; ++k) {
    if (i + static_cast<size_t>(k) >= s.size()) return -k;
    uint8_t c = static_cast<uint8_t>(s[i + static_cast<size_t>(k)]);
    if (c < low || c > high) return -k;
    low = 0x80;
    high = 0xbf;
  }
  return need + 1;
}

std::string json_document(std::string_view line, const std::string& where) {
  nlohmann::json j = nlohmann::json::parse(line, nullptr, false);
  if (j.is_discarded()) throw Error(where, "is not JSON", "a .jsonl file has one JSON object a line");
  if (j.is_object() && j.contains("text") && j["text"].is_string()) return j["text"].get<std::string>();
  if (j.is_object() && j.contains("messages") && j["messages"].is_array()) {
    std::string out;
    for (const auto& m : j["messages"]) {
      if (!m.is_object() || !m.contains("content")) throw Error(where, "a message has no content");
      if (!m["content"].is_string()) continue;  // a tool call
      out += (out.empty() ? "" : "\n\n") + m["content"].get<std::string>();
    }
    return out;
  }
  throw Error(where, "has neither \"text\" nor \"messages\"", "see docs/formats.md");
}

struct Splitter {
  CorpusStats& stats;
  const std::function<void(std::string_view)>& document;
  void operator()(std::string_view text) {
    if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
    ++stats.documents;
    stats.bytes += static_cast<int64_t>(text.size());
    document(text);
  }
};

void split_lines(const std::string& path, std::string_view text, Splitter& emit) {
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    emit(json_document(line, fmt::format("{}, line {}", path, number)));
  }
}

void split_documents(std::string_view text, Splitter& emit) {
  std::string mark = "\n" + std::string(kSeparator) + "\n";
  for (size_t begin = 0; begin <= text.size();) {
    size_t end = std::min(text.find(mark, begin), text.size());
    emit(text.substr(begin, end - begin));
    begin = end + mark.size();
  }
}

}  // namespace

int64_t repair_utf8(std::string& text) {
  int64_t bad = 0;
  std::string fixed;
  size_t kept = 0;  // text[0, kept) is in `fixed` once the first bad sequence was seen
  for (size_t i = 0; i < text.size();) {
    int n = sequence_length(text, i);
    if (n > 0) {
      i += static_cast<size_t>(n);
      continue;
    }
    ++bad;
    fixed.append(text, kept, i - kept);
    fixed += "\xEF\xBF\xBD";
    i += static_cast<size_t>(-n);
    kept = i;
  }
  if (bad > 0) {
    fixed.append(text, kept, text.size() - kept);
    text = std::move(fixed);
  }
  return bad;
}

std::vector<std::string> list_corpus(const std::vector<std::string>& paths) {
  std::vector<std::string> out;
  for (const std::string& path : paths) {
    std::error_code ec;
    if (fs::is_regular_file(path, ec)) {
      out.push_back(path);
      continue;
    }
    if (!fs::is_directory(path, ec)) throw Error(path, "no such file or folder", "give text files or folders of them");
    std::vector<std::string> here;
    auto options = fs::directory_options::skip_permission_denied;
    for (fs::recursive_directory_iterator it(path, options, ec), end; it != end; it.increment(ec)) {
      if (ec) throw Error(path, "cannot list the folder: " + ec.message());
      if (it->is_regular_file(ec) && kTextEndings.contains(inner_ending(it->path()))) here.push_back(it->path().string());
    }
    std::sort(here.begin(), here.end());
    out.insert(out.end(), here.begin(), here.end());
  }
  if (out.empty()) throw Error(paths.empty() ? "corpus" : paths[0], "holds no text files", "give .txt, .md or .jsonl files (.gz and .zst too)");
  return out;
}

CorpusStats read_corpus(const std::vector<std::string>& files, const std::function<void(std::string_view)>& document) {
  CorpusStats stats;
  std::set<uint64_t> seen;
  Splitter emit{stats, document};
  for (const std::string& path : files) {
    std::string text = unpacked(path);
    if (text.empty()) continue;
    int64_t size = static_cast<int64_t>(text.size());
    bool binary = std::memchr(text.data(), 0, text.size()) != nullptr;
    int64_t bad = binary ? 0 : repair_utf8(text);
    if (binary || bad * 20 > size) {
      ++stats.skipped_binary;
      continue;
    }
    if (!seen.insert(hash_name(text)).second) {
      ++stats.skipped_duplicate;
      continue;
    }
    stats.invalid_utf8 += bad;
    ++stats.files;
    if (inner_ending(path) == ".jsonl") {
      split_lines(path, text, emit);
    } else {
      split_documents(text, emit);
    }
  }
  if (stats.documents == 0) throw Error(files.empty() ? "corpus" : files[0], "holds no text", "give files with text in them");
  return stats;
}

std::vector<std::string> find_local_text(int64_t max_bytes) {
  // Prose before code. Only readable, regular files; an estimate of the unpacked size keeps the budget.
  const char* const places[] = {"/usr/share/common-licenses", "/usr/share/perl", "/usr/share/doc", "/usr/share/man/man1",
                                "/usr/share/man/man5", "/usr/share/man/man7", "/usr/share/man/man8", "/usr/lib/python3",
                                "/usr/share/cmake-3.25/Help", "/usr/include"};
  std::vector<std::string> out;
  std::set<std::pair<int64_t, std::string>> seen;  // same size and name: the same copyright or changelog again
  int64_t bytes = 0;
  for (const char* place : places) {
    std::error_code ec;
    if (!fs::is_directory(place, ec)) continue;
    std::vector<std::string> files;
    try {
      files = list_corpus({place});
    } catch (const Error&) {
      continue;  // an empty place
    }
    for (const std::string& path : files) {
      int64_t size = static_cast<int64_t>(fs::file_size(path, ec));
      if (ec || size < 512 || size > 4'000'000 || bytes > max_bytes) continue;
      std::string name = fs::path(path).filename().string();
      if (name.starts_with("changelog") || !seen.emplace(size, name).second) continue;
      bytes += path.ends_with(".gz") ? 3 * size : size;
      out.push_back(path);
    }
  }
  if (bytes < 1'000'000) throw Error("this machine", "has too little text of its own", "give your own: ./run.sh FILE...");
  return out;
}

}  // namespace wels
