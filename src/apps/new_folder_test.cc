#include "apps/new_folder.h"

#include <gtest/gtest.h>

#include "base/test_folder.h"

namespace wels {
namespace {

TEST(NewFolder, GoesWhereNothingButALockIsInIt) {
  TestFolder folder;
  std::string path = folder / "run";
  {
    NewFolder made(path);
    FolderLock lock(path);
    EXPECT_TRUE(std::filesystem::exists(path + "/.lock"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  {
    NewFolder made(path);
    write_file_atomic(path + "/run.json", "{}");
  }
  EXPECT_TRUE(std::filesystem::exists(path + "/run.json"));
  std::filesystem::remove(path + "/run.json");
  { NewFolder made(path); }
  EXPECT_TRUE(std::filesystem::exists(path));  // it was there before
}

}  // namespace
}  // namespace wels
