// The folder of a command that may still be refused.
#pragma once
#include <string>

namespace wels {

// Makes the folder; where it was not there before and holds nothing but a lock when the object
// goes, it is removed again. Throws Error as make_folder does (base/file.h).
class NewFolder {
 public:
  explicit NewFolder(const std::string& path);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;

 private:
  std::string path_;  // empty: it was there
};

}  // namespace wels
