// Where the tests of this folder find the tokenizer fixtures: $WELS_TOKENIZERS, else
// ../shared/tokenizers. Test code only.
#pragma once
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"

namespace wels {

inline std::string fixture(const std::string& name) {
  const char* folder = std::getenv("WELS_TOKENIZERS");
  return std::string(folder ? folder : "../shared/tokenizers") + "/" + name;
}
inline bool have_fixture(const std::string& name) {
  struct stat info;
  return ::stat(fixture(name).c_str(), &info) == 0;
}
// The names of what lies there and fits, sorted; empty where the folder is absent.
inline std::vector<std::string> fixtures(const std::function<bool(const std::string&)>& fits) {
  std::vector<std::string> out;
  std::error_code ec;
  for (auto& entry : std::filesystem::directory_iterator(fixture(""), ec)) {
    if (fits(entry.path().filename().string())) out.push_back(entry.path().filename().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}
// The folders that hold this file.
inline std::vector<std::string> folders_with(const std::string& file) {
  return fixtures([&](const std::string& name) { return have_fixture(name + "/" + file); });
}
#define SKIP_IF_NONE(found, what) \
  if ((found).empty())            \
  GTEST_SKIP() << "no " << (what) << " in " << fixture("") << " (set WELS_TOKENIZERS)"

#define SKIP_WITHOUT(name) \
  if (!have_fixture(name)) GTEST_SKIP() << fixture(name) << " is not there (set WELS_TOKENIZERS)"

inline std::vector<nlohmann::json> read_jsonl(const std::string& name) {
  std::string text = read_file(fixture(name));
  std::vector<nlohmann::json> out;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    if (end > at) out.push_back(nlohmann::json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  return out;
}

}  // namespace wels
