// find_local_text(): the first run's corpus, from what every Debian system has installed.
// Documentation repeats itself (the same licence in a thousand copyright files), so a file is left
// out when more than half of its paragraphs were seen before.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <unordered_set>

#include "base/error.h"
#include "data/corpus.h"
#include "data/file_kind.h"
#include "data/hash.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kSmallestFile = 512, kLargestFile = 4'000'000;  // stored bytes
constexpr int64_t kLeastText = 1'000'000;                         // or half of what is asked for
constexpr size_t kShortestParagraph = 40;  // shorter ones (headings) tell nothing

// In order of preference. The share of max_bytes that one place may fill keeps the mix when the
// first ones are large.
struct Place {
  const char* folder;
  double share;
};
constexpr Place kPlaces[] = {{"/usr/share/common-licenses", 1}, {"/usr/share/doc", 0.5},
                             {"/usr/share/man/man1", 0.3},      {"/usr/share/man/man5", 0.2},
                             {"/usr/share/man/man7", 0.3},      {"/usr/share/man/man8", 0.2},
                             {"/usr/share/perl", 0.2},          {"/usr/share/cmake-3.25/Help", 0.2},
                             {"/usr/share/man/man3", 0.3},      {"/usr/lib/python3.11", 0.3},
                             {"/usr/lib/python3", 0.3},         {"/usr/include", 1}};

bool tells_little(const std::string& path) {
  std::string name = fs::path(path).filename().string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string extension = file_extension(path);
  return name.starts_with("changelog") || name.starts_with("changes") || name == "copyright" ||
         extension == "html" || extension == "def" || extension == "inc";
}

// True if most of the text is new; remembers its paragraphs then.
bool mostly_new(const std::string& text, std::unordered_set<uint64_t>& seen) {
  std::vector<uint64_t> here;
  size_t old = 0, all = 0;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find("\n\n", begin), text.size());
    if (end - begin >= kShortestParagraph) {
      here.push_back(hash_bytes(std::string_view(text).substr(begin, end - begin)));
      all += end - begin;
      if (seen.contains(here.back())) old += end - begin;
    }
    begin = end + 2;
  }
  if (all == 0 || 2 * old > all) return false;
  seen.insert(here.begin(), here.end());
  return true;
}

// The file's text; empty if it cannot be read: what others installed may be odd, and there is more.
std::string text_of(const std::string& path) {
  std::string all;
  try {
    read_corpus({path}, [&](std::string_view document) { all.append(document).append("\n\n"); });
  } catch (const Error&) {
    all.clear();
  }
  return all;
}

// Files of one place in an order that mixes packages and letters and is always the same.
std::vector<std::string> files_in(const char* folder) {
  std::error_code ec;
  std::vector<std::string> files;
  if (!fs::is_directory(folder, ec)) return files;
  try {
    files = list_corpus({folder});
  } catch (const Error&) {
    return {};  // no text there
  }
  std::erase_if(files, [](const std::string& path) {
    std::error_code bad;
    auto size = static_cast<int64_t>(fs::file_size(path, bad));
    return bad || size < kSmallestFile || size > kLargestFile || tells_little(path);
  });
  std::sort(files.begin(), files.end(), [](const std::string& a, const std::string& b) {
    uint64_t x = hash_bytes(a), y = hash_bytes(b);
    return x != y ? x < y : a < b;
  });
  return files;
}

}  // namespace

std::vector<std::string> find_local_text(int64_t max_bytes) {
  std::vector<std::string> out;
  std::unordered_set<uint64_t> seen;
  int64_t bytes = 0;
  for (const Place& place : kPlaces) {
    auto limit = std::min(
        max_bytes, bytes + static_cast<int64_t>(place.share * static_cast<double>(max_bytes)));
    for (const std::string& path : files_in(place.folder)) {
      if (bytes >= limit - max_bytes / 50)
        break;  // near enough: the last files that fit are not worth reading all
      std::string text = text_of(path);
      auto size = static_cast<int64_t>(text.size());
      if (size == 0 || bytes + size > max_bytes || !mostly_new(text, seen)) continue;
      bytes += size;
      out.push_back(path);
    }
  }
  if (bytes < std::min(kLeastText, max_bytes / 2))
    throw Error("this machine", "has too little text of its own",
                "give your own: ./run.sh pretrain FILE...");
  return out;
}

}  // namespace wels
