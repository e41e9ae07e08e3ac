#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/machine.h"
#include "base/mapped_pages.h"
#include "base/test_folder.h"

namespace wels {
namespace {

int64_t entries(const TestFolder& folder) {
  namespace fs = std::filesystem;
  return std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator());
}

TEST(AtomicFile, LeavesTheOldFileUntilCommit) {
  TestFolder folder;
  std::string path = folder / "a.txt";
  write_file_atomic(path, "old");
  {
    AtomicFile f(path);
    f.write("new");
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(folder), 1);
  AtomicFile f(path);
  f.write("....!");
  f.write_at(0, "head", 4);
  f.commit();
  EXPECT_EQ(read_file(path), "head!");
}

TEST(AtomicFile, TwoWritersDoNotMeetAndNeighboursAreLeftAlone) {
  TestFolder folder;
  std::string path = folder / "a.txt";
  write_file_atomic(path + ".tmp", "a neighbour");
  AtomicFile first(path), second(path);
  first.write("the first");
  second.write("the second");
  second.commit();
  EXPECT_EQ(read_file(path), "the second");
  first.commit();
  EXPECT_EQ(read_file(path), "the first");
  EXPECT_EQ(read_file(path + ".tmp"), "a neighbour");
  EXPECT_EQ(entries(folder), 2);
}

TEST(AtomicFile, ReplacesWhatALinkLeadsToAndKeepsTheLink) {
  TestFolder folder;
  namespace fs = std::filesystem;
  fs::create_directory(folder / "there");
  write_file_atomic(folder / "there/old", "old");
  fs::create_symlink("there/old", folder / "link");
  fs::create_symlink("link", folder / "second");
  fs::create_symlink(folder / "there/new", folder / "to_nothing");
  fs::create_symlink("loop", folder / "loop");
  for (const char* name : {"second", "to_nothing"}) write_file_atomic(folder / name, "new");
  for (const char* name : {"link", "second", "to_nothing"})
    EXPECT_TRUE(fs::is_symlink(folder / name)) << name;
  for (const char* name : {"there/old", "there/new"}) EXPECT_EQ(read_file(folder / name), "new");
  EXPECT_THROW(write_file_atomic(folder / "loop", "x"), Error);
}

TEST(AtomicFile, WritesThroughToAPipeWhichStaysOne) {
  TestFolder folder;
  std::string path = folder / "pipe", read;
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::thread reader([&] { read = read_file(path); });
  {
    AtomicFile f(path);
    f.write("bytes");
    EXPECT_THROW(f.write_at(0, "B", 1), Error);
    f.commit();
  }
  reader.join();
  EXPECT_EQ(read, "bytes");
  EXPECT_TRUE(std::filesystem::is_fifo(path));
  EXPECT_EQ(entries(folder), 1);
}

TEST(MappedFile, MapsContentAndRefusesFoldersAndMissingFiles) {
  TestFolder folder;
  std::string path = folder / "b.bin";
  write_file_atomic(path, "bytes");
  EXPECT_EQ(MappedFile(path).text(), "bytes");
  EXPECT_THROW(MappedFile(path + ".missing"), Error);
  EXPECT_THROW(MappedFile(std::filesystem::path(path).parent_path().string()), Error);
}

TEST(ReplaceFolder, PutsTheNewOneThereWithOrWithoutAnOldOne) {
  TestFolder folder;
  for (const char* text : {"first", "second"}) {
    make_folder(folder / "fresh");
    write_file_atomic(folder / "fresh/a.txt", text);
    replace_folder(folder / "fresh", folder / "place");
    EXPECT_EQ(read_file(folder / "place/a.txt"), text);
    EXPECT_FALSE(std::filesystem::exists(folder / "fresh"));
  }
  make_folder(folder / "fresh");
  EXPECT_THROW(replace_folder(folder / "fresh", folder / "none/place"), Error);
}

TEST(FolderName, IsTheLastPartHoweverItIsWritten) {
  for (const char* path : {"out/mine", "out/mine/", "out/mine//", "out/./mine/.", "out/x/../mine"})
    EXPECT_EQ(folder_name(path), "mine") << path;
  EXPECT_EQ(folder_name("."), std::filesystem::current_path().filename().string());
}

TEST(FolderLock, IsExclusive) {
  TestFolder folder;
  std::string dir = folder / "locked";
  make_folder(dir);
  FolderLock held(dir);
  EXPECT_THROW(FolderLock again(dir), Error);
}

TEST(MappedPages, AreDroppedAndReadAgainAndOtherMemoryIsLeftAlone) {
  TestFolder folder;
  std::string content(size_t{16} << 20, 'a'), path = folder / "large";
  for (size_t i = 0; i < content.size(); i += 999) content[i] = static_cast<char>(i);
  write_file_atomic(path, content);
  MappedFile file(path);
  auto touch = [&] { EXPECT_EQ(file.text(), content); };
  touch();
  int64_t before = rss_bytes();
  drop_mapped_pages(file.bytes().data() + 5, content.size() - 10);
  EXPECT_LT(rss_bytes(), before - (int64_t{12} << 20));
  touch();
  std::string own = content;
  drop_mapped_pages(own.data(), own.size());
  EXPECT_EQ(own, content);
  // Beyond the map's end, and a map that is gone.
  const uint8_t* at = file.bytes().data();
  drop_mapped_pages(at, content.size() * 2);
  { MappedFile gone = std::move(file); }
  drop_mapped_pages(at, content.size());
}

}  // namespace
}  // namespace wels
