#include "data/json_lines.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "data/byte_stream.h"
#include "data/corpus.h"
#include "data/file_kind.h"
#include "data/utf8_cleaner.h"

namespace wels {
namespace {

constexpr size_t kChunkBytes = 1 << 20, kLongestLine = 64 << 20;

// One file; false: stopped.
bool read_file_lines(const std::string& path,
                     const std::function<bool(std::string_view, const std::string&)>& use) {
  ByteStream stream(path);
  Utf8Cleaner cleaner;
  std::string chunk(kChunkBytes, '\0'), text;
  int64_t number = 0;
  auto take = [&](std::string_view line) {
    std::string where = fmt::format("{}:{}", path, ++number);
    size_t first = line.find_first_not_of(" \t\r");
    if (first == line.npos) return true;
    if (number == 1 && line[first] == '[') {
      throw Error(where, "is a JSON array, not an object a line",
                  "write its elements one a line: jq -c '.[]'");
    }
    return use(line, where);
  };
  for (bool ended = false; !ended;) {
    size_t n = stream.read(chunk.data(), kChunkBytes), scanned = text.size();
    ended = n == 0;
    cleaner.append(std::string_view(chunk).substr(0, n), ended, text);
    size_t begin = 0;
    for (size_t newline; (newline = text.find('\n', std::max(begin, scanned))) != text.npos;
         begin = newline + 1) {
      if (!take(std::string_view(text).substr(begin, newline - begin))) return false;
    }
    text.erase(0, begin);
    if (text.size() > kLongestLine) {
      throw Error(fmt::format("{}:{}", path, number + 1),
                  fmt::format("a line longer than {} MiB", kLongestLine >> 20),
                  "one JSON object a line");
    }
  }
  return text.empty() || take(text);
}

}  // namespace

void read_json_lines(const std::vector<std::string>& files,
                     const std::function<bool(std::string_view, const std::string&)>& line) {
  for (const std::string& path : files) {
    if (!read_file_lines(path, line)) return;
  }
}

std::vector<std::string> list_json_lines(const std::vector<std::string>& paths) {
  std::vector<std::string> out;
  for (const std::string& path : paths) {
    for (const std::string& file : list_corpus({path})) {
      if (file == path || file_kind(file) == FileKind::kJsonLines) out.push_back(file);
    }
  }
  if (out.empty())
    throw Error(paths.empty() ? "data" : paths.front(), "holds no .jsonl file",
                "give .jsonl files, plain or as .gz or .zst, or a folder with some");
  return out;
}

}  // namespace wels
