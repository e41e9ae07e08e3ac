// Code that a model wrote, run where it can do no harm: bubblewrap, with nothing of this machine
// but /usr (read-only) and the C library, no network, an empty /tmp of 64 MiB in memory, limits on
// time, memory and output, and a system call filter under which the program can start no other
// process.
#pragma once
#include <string>
#include <string_view>

#include "tasks/process.h"

namespace wels {

enum class CodeLanguage { kPython, kCpp };

struct SandboxLimits {
  double run_s = 5, compile_s = 20;  // of processor time; twice as long in all, on a busy machine
  int64_t memory_bytes = int64_t{512} << 20;
};

class Sandbox {
 public:
  // Tries an empty program. Throws Error where bubblewrap, or python3 or g++ in /usr/bin, is
  // missing or does not work here.
  explicit Sandbox(CodeLanguage language, SandboxLimits limits = {});

  // A program ready to run: Python's source, or what the compiler made of C++ (C++20).
  struct Program {
    bool good = false;
    std::string file;    // source or executable
    std::string reason;  // why there is none
  };
  Program build(std::string_view source) const;
  ProcessResult run(const Program& program, std::string_view input) const;

 private:
  CodeLanguage language_;
  SandboxLimits limits_;
  std::string filter_;  // the system call filter, as the kernel takes it
};

}  // namespace wels
