// Checkers that run programs: the user's own command, and code with tests.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>

#include "base/check.h"
#include "base/error.h"
#include "tasks/answer.h"
#include "tasks/checker.h"
#include "tasks/plain.h"
#include "tasks/process.h"
#include "tasks/sandbox.h"

namespace wels {
namespace {

using nlohmann::json;

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

class CommandChecker : public Checker {
 public:
  CommandChecker(std::string command, double limit_s)
      : command_(std::move(command)), limit_s_(limit_s) {}
  std::string name() const override { return "command=" + command_; }

  void read(const json& line, const std::string& where, TaskExample& example,
            json& metadata) override {
    json fields = line;
    auto it = line.find("answer");
    if (it != line.end()) example.answer = it->is_string() ? it->get<std::string>() : dump(*it);
    for (const char* known : {"question", "answer", "chain", "checker"}) fields.erase(known);
    metadata["fields"] = fields;
  }

  double score(const TaskExample& example, std::string_view answer) const override {
    json request = json::parse(example.metadata).at("fields");
    request["question"] = example.question;
    request["answer"] = example.answer;
    request["completion"] = std::string(answer);
    std::string input = dump(request) + "\n";
    ProcessJob job;
    job.argv = {"/bin/sh", "-c", command_};
    job.input = input;
    job.limit_s = limit_s_;
    job.most_output_bytes = 4096;
    ProcessResult result = run_process(job);
    if (!result.good()) {
      count_failure(result.reason());
      return 0;
    }
    std::string_view said = trimmed(result.output);
    double score = 0;
    auto [end, error] = std::from_chars(said.data(), said.data() + said.size(), score);
    if (error != std::errc() || end != said.data() + said.size() || !(score >= 0 && score <= 1)) {
      count_failure(fmt::format("printed \"{}\", no score from 0 to 1", said));
      return 0;
    }
    return score;
  }

 private:
  std::string command_;
  double limit_s_;
};

// A word that no answer can know.
std::string secret_word() {
  std::random_device device;
  return fmt::format("passed_{:08x}{:08x}{:08x}", device(), device(), device());
}

// Whoever leaves before the tests are through has not said the word. It comes on stdin, which is
// read and closed before the answer's code runs, so that it is in no file. What runs the tests and
// says the word is taken before that code can put something else in its place. Within the process a
// program that looks for the word in memory can still find it.
constexpr const char* kPythonTests = R"(
import json, os, sys, types

def check(run=exec, write=os.write):
    job = json.load(sys.stdin)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    sys.stdin = open(0)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    tests = compile(job["tests"], "tests", "exec")
    said = ("\n" + job["word"] + "\n").encode()
    run(compile(job["code"], "answer", "exec"), main.__dict__)
    run(tests, main.__dict__)
    sys.stdout.flush()
    write(1, said)

check()
)";

// C++ of the answer with the tests as main. {0}: a name that the answer does not know either;
// assert is one of ours behind it, since those of the library end in a name that it can define
// anew.
std::string cpp_with_tests(std::string_view answer, std::string_view tests) {
  return fmt::format(R"(
extern "C" long read_{0}(int, void*, unsigned long) __asm__("read");
extern "C" int close_{0}(int) __asm__("close");
extern "C" int open_{0}(const char*, int, ...) __asm__("open");
static char word_{0}[64];
__attribute__((constructor(101))) static void take_{0}() {{
  read_{0}(0, word_{0}, sizeof word_{0} - 1);
  close_{0}(0);
  open_{0}("/dev/null", 0);
}}
[[noreturn]] static void fail_{0}() {{ __builtin_trap(); }}
{1}
#include <cassert>
#include <cstdio>
#undef assert
#define assert(...) ((__VA_ARGS__) ? (void)0 : fail_{0}())
int main() {{
{2}
;std::printf("\n%s\n", word_{0});
}}
)",
                     secret_word(), answer, tests);
}

// Output as tests compare it: blanks at the ends of lines and of the text aside.
std::string comparable(std::string_view text) {
  std::string out;
  text = trimmed(text);
  while (!text.empty()) {
    size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())))
      line.remove_suffix(1);
    out.append(line).append("\n");
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

class CodeChecker : public Checker {
 public:
  std::string name() const override { return "code"; }

  void read(const json& line, const std::string& where, TaskExample& example,
            json& metadata) override {
    std::string language = "python";
    if (auto it = line.find("language"); it != line.end()) {
      language = it->is_string() ? it->get<std::string>() : dump(*it);
      if (language != "python" && language != "c++")
        throw Error(where, fmt::format("unknown language {}", language), "use python or c++");
    }
    auto tests = line.find("tests");
    bool listed = tests != line.end() && tests->is_array() && !tests->empty();
    if (listed) {
      for (const json& test : *tests) {
        listed = listed && test.is_object() && test.contains("input") &&
                 test["input"].is_string() && test.contains("output") && test["output"].is_string();
      }
    }
    if (!listed && (tests == line.end() || !tests->is_string())) {
      throw Error(where, "\"tests\" is neither code nor a list of inputs and outputs",
                  R"(write "tests": "assert f(2) == 4" or [{"input": "2", "output": "4"}])");
    }
    if (auto it = line.find("answer"); it != line.end() && it->is_string())
      example.answer = it->get<std::string>();
    metadata["language"] = language;
    metadata["tests"] = *tests;
    std::optional<Sandbox>& sandbox = language == "python" ? python_ : cpp_;
    if (!sandbox)
      sandbox.emplace(language == "python" ? CodeLanguage::kPython : CodeLanguage::kCpp);
  }

  double score(const TaskExample& example, std::string_view answer) const override {
    json metadata = json::parse(example.metadata);
    bool python = metadata.at("language") == "python";
    const std::optional<Sandbox>& sandbox = python ? python_ : cpp_;
    CHECK(sandbox.has_value());
    std::string code(code_of(answer));
    const json& tests = metadata.at("tests");
    if (tests.is_string()) {
      std::string word = secret_word(), said = tests.get<std::string>();
      std::string input = python ? dump({{"code", code}, {"tests", said}, {"word", word}}) : word;
      Sandbox::Program program = sandbox->build(python ? kPythonTests : cpp_with_tests(code, said));
      if (!program.good) return 0;
      ProcessResult r = sandbox->run(program, input);
      return r.good() && trimmed(r.output).ends_with(word) ? 1 : 0;
    }
    Sandbox::Program program = sandbox->build(code);
    if (!program.good) return 0;
    for (const json& test : tests) {
      ProcessResult r = sandbox->run(program, test["input"].get<std::string>());
      if (!r.good() || comparable(r.output) != comparable(test["output"].get<std::string>()))
        return 0;
    }
    return 1;
  }

 private:
  std::optional<Sandbox> python_, cpp_;
};

}  // namespace

std::unique_ptr<Checker> make_code_checker() { return std::make_unique<CodeChecker>(); }

std::unique_ptr<Checker> make_command_checker(const std::string& command, double limit_s) {
  return std::make_unique<CommandChecker>(command, limit_s);
}

}  // namespace wels
