#include "tasks/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <dirent.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/progress.h"
#include "base/signal.h"
#include "tasks/plain.h"

extern char** environ;

namespace wels {
namespace {

constexpr int kOutcomeFile = 9;  // where the keeper says what came of the program
constexpr int kFirstOwn = 100;   // our ends lie above every number that the program sees
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

// posix_spawn's two lists, freed once.
struct SpawnPlan {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;

  explicit SpawnPlan(int flags) {
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawnattr_setflags(
        &attributes, static_cast<short>(flags | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK));
    sigset_t signals;
    ::sigemptyset(&signals);
    ::posix_spawnattr_setsigmask(&attributes, &signals);
    for (int s : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGXFSZ}) ::sigaddset(&signals, s);
    ::posix_spawnattr_setsigdefault(&attributes, &signals);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  ~SpawnPlan() {
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&files);
  }
};

// --- the keeper ---
//
// Between us and the program stands a process of ours: this very program again, under another name.
// What the program leaves behind becomes its child (a subreaper's), whatever session or group it
// made for itself, and ends with it: when the program is over, when we say so by SIGTERM, and, by
// the kernel's word, when we are killed.

constexpr const char* kKeeper = "wels-keeper";

struct Outcome {
  int error = 0, status = 0;  // errno where the program was not started; as of waitpid
};

bool is_child(const char* pid) {
  char path[64], text[512];
  std::snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
  int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : ::read(fd, text, sizeof text - 1);
  if (fd >= 0) ::close(fd);
  text[std::max<ssize_t>(n, 0)] = '\0';
  const char* name_end = std::strrchr(text, ')');  // "PID (NAME) STATE PARENT ..."
  return name_end && std::strlen(name_end) > 4 && std::atoi(name_end + 4) == ::getpid();
}

// Until there are none: those of a child that ends become ours.
void end_children() {
  for (pid_t reaped = ::waitpid(-1, nullptr, WNOHANG); reaped >= 0;) {
    if (DIR* all = ::opendir("/proc")) {
      while (const dirent* entry = ::readdir(all)) {
        if (is_child(entry->d_name)) ::kill(std::atoi(entry->d_name), SIGKILL);
      }
      ::closedir(all);
    }
    reaped = ::waitpid(-1, nullptr, 0);
    while (reaped > 0) reaped = ::waitpid(-1, nullptr, WNOHANG);
  }
}

[[noreturn]] void keep(pid_t for_whom, char** program) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::fcntl(kOutcomeFile, F_SETFD, FD_CLOEXEC);
  sigset_t awaited;
  ::sigemptyset(&awaited);
  for (int s : {SIGTERM, SIGCHLD}) ::sigaddset(&awaited, s);
  ::sigprocmask(SIG_BLOCK, &awaited, nullptr);
  if (::getppid() != for_whom) ::_exit(1);
  Outcome o;
  pid_t pid = -1;
  {
    SpawnPlan plan(POSIX_SPAWN_SETPGROUP);
    o.error = ::posix_spawnp(&pid, program[0], &plan.files, &plan.attributes, program, environ);
  }
  for (bool over = o.error != 0; !over;) {
    int signal = 0, status = 0;
    ::sigwait(&awaited, &signal);
    if (signal == SIGTERM) break;
    for (pid_t ended; (ended = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (ended != pid) continue;
      o.status = status;
      over = true;
    }
  }
  end_children();
  bool said = ::pwrite(kOutcomeFile, &o, sizeof o, 0) == sizeof o;
  ::_exit(said ? 0 : 1);
}

__attribute__((constructor)) void become_keeper(int argc, char** argv, char**) {
  if (argc > 2 && std::strcmp(argv[0], kKeeper) == 0) keep(std::atoi(argv[1]), argv + 2);
}

// Starts the program's keeper; 0: ok, else errno.
int spawn(const ProcessJob& job, int in, int out, int err, int outcome,
          const std::vector<Fd>& files, pid_t& pid) {
  SpawnPlan plan(POSIX_SPAWN_SETSID);  // Ctrl-C is for us
  ::posix_spawn_file_actions_adddup2(&plan.files, in, 0);
  ::posix_spawn_file_actions_adddup2(&plan.files, out, 1);
  ::posix_spawn_file_actions_adddup2(&plan.files, err, 2);
  ::posix_spawn_file_actions_adddup2(&plan.files, outcome, kOutcomeFile);
  for (size_t i = 0; i < files.size(); ++i)
    ::posix_spawn_file_actions_adddup2(&plan.files, files[i].fd, kFirstFile + static_cast<int>(i));
  std::vector<std::string> words = {kKeeper, std::to_string(::getpid())};
  words.insert(words.end(), job.argv.begin(), job.argv.end());
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  return ::posix_spawn(&pid, "/proc/self/exe", &plan.files, &plan.attributes, argv.data(), environ);
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

// Waits until the keeper is over and the program's output read, a limit is passed or a signal came.
// True: the keeper is over.
bool watch(pid_t keeper, const ProcessJob& job, Fd& out, Fd& err, ProcessResult& result) {
  double deadline = monotonic_seconds() + job.limit_s;
  for (bool over = false;;) {
    double left = deadline - monotonic_seconds();
    if (left <= 0 || stop_requested()) {
      result.end = ProcessResult::kTimeLimit;
      return over;
    }
    // Waits for output; where both streams are at their end, looks again every few milliseconds.
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
    if (over) return true;  // what was written before the end has been read
    over = ::waitpid(keeper, nullptr, WNOHANG) == keeper;
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
  Fd said = memory_file("");
  Pipe out = make_pipe(), err = make_pipe();
  bool ready = in.fd >= 0 && said.fd >= 0 && out.write.fd >= 0 && err.write.fd >= 0 &&
               std::all_of(files.begin(), files.end(), [](const Fd& f) { return f.fd >= 0; });
  pid_t keeper = -1;
  Outcome o;
  o.error = ready ? spawn(job, in.fd, out.write.fd, err.write.fd, said.fd, files, keeper) : errno;
  out.write.close();
  err.write.close();
  if (o.error == 0) {
    bool over = watch(keeper, job, out.read, err.read, result);
    if (!over) ::kill(keeper, SIGTERM);
    while (!over && ::waitpid(keeper, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (result.end == ProcessResult::kTimeLimit && stop_requested()) throw Interrupted();
    if (result.end != ProcessResult::kNotStarted) return result;
    if (::pread(said.fd, &o, sizeof o, 0) != sizeof o) o.status = SIGKILL;  // the keeper itself
  }
  if (o.error != 0) {
    result.errors = fmt::format("{}: {}", job.argv[0], std::strerror(o.error));
    return result;
  }
  bool exited = WIFEXITED(o.status);
  result.end = exited ? ProcessResult::kExited : ProcessResult::kKilled;
  result.code = exited ? WEXITSTATUS(o.status) : WTERMSIG(o.status);
  return result;
}

}  // namespace wels
