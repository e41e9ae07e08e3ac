#include "apps/new_folder.h"

#include <filesystem>

#include "base/file.h"

namespace wels {

NewFolder::NewFolder(const std::string& path) {
  bool there = std::filesystem::exists(path);
  make_folder(path);
  if (!there) path_ = path;
}

NewFolder::~NewFolder() {
  if (path_.empty()) return;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(path_, ec)) {
    if (entry.path().filename() != ".lock") return;
  }
  std::filesystem::remove(path_ + "/.lock", ec);
  std::filesystem::remove(path_, ec);
}

}  // namespace wels
