#include "base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"

namespace wels {
namespace {

std::string scratch(const std::string& name) {
  auto dir =
      std::filesystem::temp_directory_path() / ("wels_file_test_" + std::to_string(::getpid()));
  std::filesystem::create_directories(dir);
  return (dir / name).string();
}

TEST(AtomicFile, LeavesTheOldFileUntilCommit) {
  std::string path = scratch("a.txt");
  write_file_atomic(path, "old");
  {
    AtomicFile f(path);
    f.write("new");
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  AtomicFile f(path);
  f.write("....!");
  f.write_at(0, "head", 4);
  f.commit();
  EXPECT_EQ(read_file(path), "head!");
}

TEST(MappedFile, MapsContentAndRefusesFoldersAndMissingFiles) {
  std::string path = scratch("b.bin");
  write_file_atomic(path, "bytes");
  EXPECT_EQ(MappedFile(path).text(), "bytes");
  EXPECT_THROW(MappedFile(path + ".missing"), Error);
  EXPECT_THROW(MappedFile(std::filesystem::path(path).parent_path().string()), Error);
}

TEST(FolderLock, IsExclusive) {
  std::string dir = scratch("locked");
  make_folder(dir);
  FolderLock held(dir);
  EXPECT_THROW(FolderLock again(dir), Error);
}

}  // namespace
}  // namespace wels
