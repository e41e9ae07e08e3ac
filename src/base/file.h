// Files: read-only memory maps, whole-file reads, and writes that are atomic (temporary name,
// fsync, rename, fsync of the folder), so that a crash or a full disk leaves the old file
// untouched. All failures throw Error with the system's reason.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace wels {

// A file mapped read-only into memory. Empty files map to an empty span. Keeps the mapping while
// alive; movable.
class MappedFile {
 public:
  explicit MappedFile(
      const std::string& path);  // throws Error if missing, unreadable or not a regular file
  ~MappedFile();
  MappedFile(MappedFile&& o) noexcept;
  MappedFile& operator=(MappedFile&& o) noexcept;
  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

std::string read_file(const std::string& path);

// Writes to a file without a name in path's folder (where the file system has none such, to
// "<path>.<16 letters>.tmp"); commit() syncs it and puts it into path's place, or that of what a
// symbolic link there leads to. Without commit() nothing of it stays, even after kill -9 (but for
// a named one). Two writers of one path do not meet: the last to commit stays. A pipe or device is
// written to as it is, byte by byte. Every write checks for a full disk and throws Error ("disk
// full: N bytes needed ...").
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  void write(const void* data, size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Overwrites bytes already written (headers whose content is known last). Throws Error for a pipe
  // or device.
  void write_at(int64_t offset, const void* data, size_t size);
  int64_t size() const { return size_; }
  // sync: whether it waits until the disk has everything. Without, a crash of the machine may leave
  // any content.
  void commit(bool sync = true);

 private:
  void flush();
  void open_temporary();
  std::string path_, buffer_;
  std::string tmp_;        // the temporary's name, where it has one
  bool in_place_ = false;  // a pipe or device
  int fd_ = -1;
  int64_t size_ = 0;
};

void write_file_atomic(const std::string& path, std::string_view text);

// Exclusive lock on "<folder>/.lock" for the life of the object (released by the kernel if the
// process dies). Throws Error naming the process id that holds it.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

// Makes the folder and its parents; throws Error where it can't be made or written to.
void make_folder(const std::string& path);
// Makes an empty folder "<path>.<16 letters>.tmp", and path's parents; throws Error.
std::string new_folder_beside(const std::string& path);
// Puts a finished folder into the place of another, or where none is: a kill leaves the old or the
// new one whole. (Where the file system cannot exchange two folders, there is a moment with
// neither.) Throws Error.
void replace_folder(const std::string& fresh, const std::string& folder);
// The folder's own name: "mine" of "out/mine", "out/mine/" and, within it, of ".".
std::string folder_name(const std::string& path);
// fsync of a folder, so that renames in it are durable.
void sync_folder(const std::string& path);

}  // namespace wels
