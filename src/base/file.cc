#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/mapped_pages.h"

namespace wels {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

[[noreturn]] void fail(const std::string& path, const std::string& doing, int err) {
  const char* hint = "";
  if (err == ENOENT) hint = "check the path";
  if (err == EACCES || err == EPERM || err == EROFS)
    hint = "choose a folder you can write to, or change its permissions";
  if (err == ENOSPC || err == EDQUOT)
    hint = "free some space or choose another disk; the previous file is untouched";
  throw Error(path, doing + ": " + std::strerror(err), hint);
}

void write_all(int fd, const std::string& path, const char* data, size_t size, int64_t offset) {
  while (size > 0) {
    ssize_t n = offset < 0 ? ::write(fd, data, size) : ::pwrite(fd, data, size, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "cannot write", errno);
    data += n;
    size -= static_cast<size_t>(n);
    if (offset >= 0) offset += n;
  }
}

bool is_pipe_or_device(const std::string& path) {
  std::error_code none;
  return std::filesystem::is_other(path, none);
}

std::string unused_name(const std::string& path) {
  std::random_device random;
  return fmt::format("{}.{:08x}{:08x}.tmp", path, random(), random());
}

// Where a chain of symbolic links leads, which may be a file that is yet to be made.
std::string link_target(const std::string& path) {
  constexpr int kMostLinks = 40;
  std::error_code none;
  std::filesystem::path at = path;
  for (int links = 0; std::filesystem::is_symlink(at, none); ++links) {
    if (links == kMostLinks) fail(path, "cannot create", ELOOP);
    at = at.parent_path() / std::filesystem::read_symlink(at, none);
  }
  return at.string();
}

// The maps that there are, as the system knows them too: begin → end.
struct Maps {
  std::mutex mutex;
  std::map<uintptr_t, uintptr_t> ranges;
};
Maps& maps() {
  static Maps all;
  return all;
}
uintptr_t address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

}  // namespace

void drop_mapped_pages(const void* p, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  uintptr_t begin = (address(p) + page - 1) / page * page, end = (address(p) + bytes) / page * page;
  if (begin >= end) return;
  std::lock_guard lock(maps().mutex);
  auto after = maps().ranges.upper_bound(begin);
  if (after == maps().ranges.begin() || std::prev(after)->second < end) return;
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, "cannot open", errno);
  struct stat st;
  if (::fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    throw Error(path, "not a regular file", "give a file");
  }
  size_ = static_cast<size_t>(st.st_size);
  if (size_ > 0) {
    void* p = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    int err = errno;
    ::close(fd);
    if (p == MAP_FAILED) fail(path, "cannot map", err);
    data_ = static_cast<const uint8_t*>(p);
    std::lock_guard lock(maps().mutex);
    maps().ranges[address(p)] = address(p) + size_;
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (!data_) return;
  std::lock_guard lock(maps().mutex);
  maps().ranges.erase(address(data_));
  ::munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& o) noexcept
    : path_(std::move(o.path_)),
      data_(std::exchange(o.data_, nullptr)),
      size_(std::exchange(o.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  return *this;
}

std::string read_file(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, "cannot open", errno);
  std::string out;
  char chunk[1 << 16];
  for (;;) {
    ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int err = errno;
      ::close(fd);
      fail(path, "cannot read", err);
    }
    if (n == 0) break;
    out.append(chunk, static_cast<size_t>(n));
  }
  ::close(fd);
  return out;
}

AtomicFile::AtomicFile(const std::string& path) : path_(path), in_place_(is_pipe_or_device(path)) {
  if (in_place_) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    path_ = link_target(path);
    open_temporary();
  }
  if (fd_ < 0) fail(path, "cannot create", errno);
  buffer_.reserve(kBufferBytes);
}

// commit() gives a file without a name one by way of /proc.
void AtomicFile::open_temporary() {
  constexpr mode_t kMode = 0644;
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  if (::access("/proc/self/fd", X_OK) == 0)
    fd_ = ::open(folder.empty() ? "." : folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, kMode);
  if (fd_ >= 0) return;
  tmp_ = unused_name(path_);
  fd_ = ::open(tmp_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!tmp_.empty()) ::unlink(tmp_.c_str());
}

void AtomicFile::flush() {
  write_all(fd_, path_, buffer_.data(), buffer_.size(), -1);
  buffer_.clear();
}

void AtomicFile::write(const void* data, size_t size) {
  size_ += static_cast<int64_t>(size);
  if (buffer_.size() + size > kBufferBytes) flush();
  if (size >= kBufferBytes) {
    write_all(fd_, path_, static_cast<const char*>(data), size, -1);
  } else {
    buffer_.append(static_cast<const char*>(data), size);
  }
}

void AtomicFile::write_at(int64_t offset, const void* data, size_t size) {
  if (in_place_)
    throw Error(path_, "is a pipe or device, where nothing can be written twice", "give a file");
  flush();
  write_all(fd_, path_, static_cast<const char*>(data), size, offset);
}

void AtomicFile::commit(bool sync) {
  flush();
  if (in_place_) {
    ::close(std::exchange(fd_, -1));
    return;
  }
  if (sync && ::fsync(fd_) != 0) fail(path_, "cannot sync", errno);
  if (tmp_.empty()) {
    const std::string name = unused_name(path_), unnamed = fmt::format("/proc/self/fd/{}", fd_);
    if (::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0)
      fail(path_, "cannot create", errno);
    tmp_ = name;
  }
  ::close(std::exchange(fd_, -1));
  if (::rename(tmp_.c_str(), path_.c_str()) != 0) {
    int err = errno;
    ::unlink(tmp_.c_str());
    fail(path_, "cannot rename", err);
  }
  if (sync) sync_folder(std::filesystem::path(path_).parent_path().string());
}

void write_file_atomic(const std::string& path, std::string_view text) {
  AtomicFile f(path);
  f.write(text);
  f.commit();
}

FolderLock::FolderLock(const std::string& folder) {
  std::string path = folder + "/.lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path, "cannot create", errno);
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    char pid[32] = {};
    ssize_t n = ::pread(fd_, pid, sizeof pid - 1, 0);
    ::close(std::exchange(fd_, -1));
    throw Error(folder,
                fmt::format("another run holds this folder (process {})", n > 0 ? pid : "unknown"),
                "wait for it, stop it, or choose another folder");
  }
  std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, pid.data(), pid.size(), 0) < 0) {
    int err = errno;
    ::close(std::exchange(fd_, -1));
    fail(path, "cannot write", err);
  }
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

void make_folder(const std::string& path) {
  std::error_code ec;
  std::filesystem::create_directories(path, ec);
  if (ec) fail(path, "cannot make the folder", ec.value());
  if (::access(path.c_str(), W_OK) != 0) fail(path, "cannot write to the folder", errno);
}

std::string new_folder_beside(const std::string& path) {
  const std::string folder = unused_name(path);
  make_folder(folder);
  return folder;
}

void replace_folder(const std::string& fresh, const std::string& folder) {
  std::error_code ec;
#ifdef RENAME_EXCHANGE
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) {
    std::filesystem::remove_all(fresh, ec);
    return;
  }
#endif
  std::filesystem::remove_all(folder, ec);
  std::filesystem::rename(fresh, folder, ec);
  if (ec) fail(folder, "cannot rename the new folder here", ec.value());
}

std::string folder_name(const std::string& path) {
  std::filesystem::path p = std::filesystem::absolute(path).lexically_normal();
  return (p.has_filename() ? p : p.parent_path()).filename().string();
}

void sync_folder(const std::string& path) {
  int fd = ::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail(path, "cannot open the folder", errno);
  ::fsync(fd);
  ::close(fd);
}

}  // namespace wels
