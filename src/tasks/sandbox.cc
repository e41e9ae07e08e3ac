#include "tasks/sandbox.h"

#include <fmt/format.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "base/error.h"

namespace wels {
namespace {

constexpr size_t kMostExecutable = 32 << 20;
constexpr int64_t kCompilerMemory = int64_t{3} << 30;
constexpr int64_t kTmpBytes = 64 << 20;

// Kernel program: no new process, only threads. clone3 hides its flags behind a pointer, so that it
// does not exist here (the C library then takes clone).
std::string no_process_filter() {
#if defined(__x86_64__)
  constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox's filter knows x86_64 and aarch64"
#endif
  constexpr uint32_t kThread = 0x10000;  // CLONE_THREAD
  const uint32_t kDenied = SECCOMP_RET_ERRNO | EPERM, kAbsent = SECCOMP_RET_ERRNO | ENOSYS;
  auto load = [](size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
  };
  // Ends with `verdict` where the loaded word is (or, unless_equal, is not) `value`.
  std::vector<sock_filter> code;
  auto on = [&](uint32_t value, uint32_t verdict, bool unless_equal = false) {
    uint8_t skip_if = unless_equal ? 1 : 0, skip_else = unless_equal ? 0 : 1;
    code.push_back(sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, skip_if, skip_else));
    code.push_back(sock_filter BPF_STMT(BPF_RET | BPF_K, verdict));
  };
  code.push_back(load(offsetof(seccomp_data, arch)));
  on(kArch, SECCOMP_RET_KILL_PROCESS, true);
  code.push_back(load(offsetof(seccomp_data, nr)));
#if defined(__x86_64__)
  // The x32 calls, numbered from 2^30 on.
  code.push_back(sock_filter BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1));
  code.push_back(sock_filter BPF_STMT(BPF_RET | BPF_K, kDenied));
  on(SYS_fork, kDenied);
  on(SYS_vfork, kDenied);
#endif
  on(SYS_clone3, kAbsent);
  on(SYS_unshare, kDenied);
  on(SYS_setns, kDenied);
  code.push_back(sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 3));
  code.push_back(load(offsetof(seccomp_data, args[0])));
  code.push_back(sock_filter BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kThread, 1, 0));
  code.push_back(sock_filter BPF_STMT(BPF_RET | BPF_K, kDenied));
  code.push_back(sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return {reinterpret_cast<const char*>(code.data()), code.size() * sizeof(sock_filter)};
}

// The command line of bwrap up to the program. /work/FILE holds the job's first file.
std::vector<std::string> bwrap(const std::string& file, double cpu_s, int64_t memory_bytes) {
  std::string limits =
      fmt::format("ulimit -c 0; ulimit -t {}; ulimit -v {}; ulimit -f {}; exec \"$@\"",
                  static_cast<int>(cpu_s) + 1, memory_bytes / 1024, kTmpBytes / 512);
  std::vector<std::string> argv = {"sh", "-c", limits, "sh", "bwrap"};
  for (const char* a : {"--unshare-all", "--die-with-parent",
                        "--new-session", "--cap-drop",
                        "ALL",           "--ro-bind",
                        "/usr",          "/usr",
                        "--symlink",     "usr/bin",
                        "/bin",          "--symlink",
                        "usr/lib",       "/lib",
                        "--symlink",     "usr/lib64",
                        "/lib64",        "--dev-bind",
                        "/dev/null",     "/dev/null",
                        "--clearenv",    "--setenv",
                        "PATH",          "/usr/bin",
                        "--setenv",      "LC_ALL",
                        "C.UTF-8",       "--size"})
    argv.push_back(a);
  argv.push_back(fmt::format("{}", kTmpBytes));
  for (const char* a : {"--tmpfs", "/tmp", "--chdir", "/tmp", "--perms", "0555", "--ro-bind-data"})
    argv.push_back(a);
  argv.push_back(fmt::format("{}", kFirstFile));
  argv.push_back("/work/" + file);
  argv.insert(argv.end(), {"--remount-ro", "/"});
  return argv;
}

}  // namespace

Sandbox::Sandbox(CodeLanguage language, SandboxLimits limits)
    : language_(language), limits_(limits), filter_(no_process_filter()) {
  const char* compiler = language == CodeLanguage::kPython ? "/usr/bin/python3" : "/usr/bin/g++";
  if (::access(compiler, X_OK) != 0) {
    throw Error("sandbox", fmt::format("there is no {}", compiler),
                fmt::format("install {}", language == CodeLanguage::kPython ? "python3" : "g++"));
  }
  ProcessJob probe;
  probe.argv = {"bwrap", "--version"};
  if (ProcessResult r = run_process(probe); !r.good()) {
    throw Error("sandbox", "code can't be checked, bubblewrap is missing (" + r.reason() + ")",
                "install the package bubblewrap");
  }
  bool python = language == CodeLanguage::kPython;
  Program program = build(python ? "print(1)" : "#include <cstdio>\nint main() { puts(\"1\"); }");
  std::string reason = program.reason;
  if (program.good) {
    ProcessResult r = run(program, "");
    if (r.good() && r.output == "1\n") return;
    reason = r.reason();
  }
  throw Error("sandbox", "code can't be checked, the sandbox does not work here: " + reason,
              "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1; in a container, "
              "run it with user namespaces allowed)");
}

Sandbox::Program Sandbox::build(std::string_view source) const {
  Program program;
  if (language_ == CodeLanguage::kPython) {
    program.good = true;
    program.file = source;
    return program;
  }
  ProcessJob job;
  job.argv = bwrap("main.cc", limits_.compile_s, kCompilerMemory);
  job.argv.insert(job.argv.end(), {"sh", "-c",
                                   "g++ -std=c++20 -O1 -w -o /tmp/program /work/main.cc && "
                                   "exec cat /tmp/program"});
  job.files = {source};
  job.limit_s = 2 * limits_.compile_s;
  job.most_output_bytes = kMostExecutable;
  ProcessResult r = run_process(job);
  program.good = r.good();
  if (program.good) {
    program.file = std::move(r.output);
  } else {
    program.reason = r.reason();
  }
  return program;
}

ProcessResult Sandbox::run(const Program& program, std::string_view input) const {
  bool python = language_ == CodeLanguage::kPython;
  ProcessJob job;
  job.argv = bwrap(python ? "main.py" : "program", limits_.run_s, limits_.memory_bytes);
  job.argv.insert(job.argv.end(), {"--seccomp", fmt::format("{}", kFirstFile + 1)});
  if (python) job.argv.insert(job.argv.end(), {"/usr/bin/python3", "-I"});
  job.argv.push_back(python ? "/work/main.py" : "/work/program");
  job.input = input;
  job.files = {program.file, filter_};
  job.limit_s = 2 * limits_.run_s;
  return run_process(job);
}

}  // namespace wels
