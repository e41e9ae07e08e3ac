#include "tasks/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "base/progress.h"
#include "base/signal.h"
#include "tasks/plain.h"

extern char** environ;

namespace wels {
namespace {

constexpr int kFirstOwn = 100;  // our ends lie above every number that the program sees
constexpr size_t kMostErrors = 4096;

// A file descriptor that is closed once.
struct Fd {
  int fd = -1;
  Fd() = default;
  explicit Fd(int f) : fd(f) {}
  Fd(Fd&& o) noexcept : fd(o.fd) { o.fd = -1; }
  Fd& operator=(Fd&& o) noexcept {
    std::swap(fd, o.fd);
    return *this;
  }
  ~Fd() { close(); }
  void close() {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

// The same file at a number of at least kFirstOwn.
Fd moved_up(Fd f) { return f.fd < 0 ? Fd() : Fd(::fcntl(f.fd, F_DUPFD_CLOEXEC, kFirstOwn)); }

// A file in memory with this content, at its beginning.
Fd memory_file(std::string_view content) {
  Fd f = moved_up(Fd(::memfd_create("wels", MFD_CLOEXEC)));
  for (size_t done = 0; f.fd >= 0 && done < content.size();) {
    ssize_t n =
        ::pwrite(f.fd, content.data() + done, content.size() - done, static_cast<off_t>(done));
    if (n <= 0) return Fd();
    done += static_cast<size_t>(n);
  }
  return f;
}

struct Pipe {
  Fd read, write;
};
Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  Pipe p{Fd(ends[0]), moved_up(Fd(ends[1]))};
  ::fcntl(p.read.fd, F_SETFL, O_NONBLOCK);
  return p;
}

// Starts the program; 0: ok, else errno.
int spawn(const ProcessJob& job, int in, int out, int err, const std::vector<Fd>& files,
          pid_t& pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawnattr_init(&attributes);
  ::posix_spawn_file_actions_adddup2(&actions, in, 0);
  ::posix_spawn_file_actions_adddup2(&actions, out, 1);
  ::posix_spawn_file_actions_adddup2(&actions, err, 2);
  for (size_t i = 0; i < files.size(); ++i)
    ::posix_spawn_file_actions_adddup2(&actions, files[i].fd, kFirstFile + static_cast<int>(i));
  // A session of its own: Ctrl-C is for us, and one kill reaches all of it.
  ::posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  sigset_t signals;
  ::sigemptyset(&signals);
  ::posix_spawnattr_setsigmask(&attributes, &signals);
  for (int s : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&signals, s);
  ::posix_spawnattr_setsigdefault(&attributes, &signals);
  std::vector<char*> argv;
  for (const std::string& a : job.argv) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  int error = ::posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Takes what there is; closes at the end of the stream. False: more than `most` bytes came, what is
// above is dropped.
bool drain(Fd& fd, std::string& into, size_t most) {
  char buffer[16384];
  while (fd.fd >= 0) {
    ssize_t n = ::read(fd.fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return true;
    if (n <= 0) {
      fd.close();
      return true;
    }
    size_t taken = std::min(static_cast<size_t>(n), most - into.size());
    into.append(buffer, taken);
    if (taken < static_cast<size_t>(n)) return false;
  }
  return true;
}

// Waits until the process is over and its output read, a limit is passed or a signal came. True:
// `status` is set.
bool watch(pid_t pid, const ProcessJob& job, Fd& out, Fd& err, ProcessResult& result, int& status) {
  double deadline = monotonic_seconds() + job.limit_s;
  for (bool over = false;;) {
    double left = deadline - monotonic_seconds();
    if (left <= 0 || stop_requested()) {
      result.end = ProcessResult::kTimeLimit;
      return over;
    }
    // Waits for output; where both streams are at their end, or what the program left behind holds
    // them open, looks again every few milliseconds.
    pollfd fds[2] = {{out.fd, POLLIN, 0}, {err.fd, POLLIN, 0}};
    bool open = out.fd >= 0 || err.fd >= 0;
    int wait_ms = open && !over ? 50 : 2;
    ::poll(fds, 2, std::min(wait_ms, static_cast<int>(std::ceil(left * 1000))));
    bool fits = drain(out, result.output, job.most_output_bytes);
    drain(err, result.errors, kMostErrors);
    if (!fits) {
      result.end = ProcessResult::kOutputLimit;
      return over;
    }
    if (over) return true;  // what it wrote before its end has been read
    over = ::waitpid(pid, &status, WNOHANG) == pid;
    if (over && out.fd < 0 && err.fd < 0) return true;
  }
}

}  // namespace

std::string ProcessResult::reason() const {
  std::string what;
  switch (end) {
    case kExited:
      what = fmt::format("exit code {}", code);
      break;
    case kKilled:
      what = fmt::format("killed by signal {}", code);
      break;
    case kTimeLimit:
      what = "no end within the time limit";
      break;
    case kOutputLimit:
      what = "too much output";
      break;
    case kNotStarted:
      what = "not started";
      break;
  }
  std::string_view said = trimmed(errors);
  size_t line = said.rfind('\n');  // a traceback's last line says most
  if (line != std::string_view::npos) said = said.substr(line + 1);
  return said.empty() ? what : fmt::format("{}: {}", what, said);
}

ProcessResult run_process(const ProcessJob& job) {
  throw_if_stopped();
  ProcessResult result;
  Fd in = memory_file(job.input);
  std::vector<Fd> files;
  for (std::string_view f : job.files) files.push_back(memory_file(f));
  Pipe out = make_pipe(), err = make_pipe();
  bool ready = in.fd >= 0 && out.write.fd >= 0 && err.write.fd >= 0 &&
               std::all_of(files.begin(), files.end(), [](const Fd& f) { return f.fd >= 0; });
  pid_t pid = -1;
  int error = ready ? spawn(job, in.fd, out.write.fd, err.write.fd, files, pid) : errno;
  if (error != 0) {
    result.errors = fmt::format("{}: {}", job.argv[0], std::strerror(error));
    return result;
  }
  out.write.close();
  err.write.close();
  int status = 0;
  bool over = watch(pid, job, out.read, err.read, result, status);
  ::kill(-pid, SIGKILL);
  while (!over && ::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (result.end == ProcessResult::kTimeLimit && stop_requested()) throw Interrupted();
  if (result.end != ProcessResult::kNotStarted) return result;
  bool exited = WIFEXITED(status);
  result.end = exited ? ProcessResult::kExited : ProcessResult::kKilled;
  result.code = exited ? WEXITSTATUS(status) : WTERMSIG(status);
  return result;
}

}  // namespace wels
