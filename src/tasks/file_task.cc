#include "tasks/file_task.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "formats/json.h"
#include "tasks/checker.h"
#include "tasks/number.h"
#include "tasks/plain.h"

namespace wels {
namespace {

using nlohmann::json;

// A field that must be a text; empty where it may be missing and is.
std::string text_field(const json& line, const char* field, bool needed, const std::string& where) {
  auto it = line.find(field);
  if (it == line.end()) {
    if (!needed) return {};
    throw Error(where, fmt::format("the object has no \"{}\"", field),
                R"(write {"question": ..., "answer": ...} on every line)");
  }
  if (!it->is_string()) {
    throw Error(where, fmt::format("\"{}\" is {}, not a text", field, it->type_name()),
                "write it as a string");
  }
  return it->get<std::string>();
}

// The checker that suits a line which names none.
std::string suitable_checker(const json& line) {
  if (line.contains("tests")) return "code";
  if (line.contains("choices")) return "choice";
  auto answer = line.find("answer");
  if (answer == line.end()) return "exact";  // which will say what is missing
  if (answer->is_object() || answer->is_array()) return "json";
  if (answer->is_number()) return "number";
  if (!answer->is_string()) return "exact";
  const auto& text = answer->get_ref<const std::string&>();
  bool number = text.find("####") != std::string::npos || parse_number(text, false);
  return number ? "number" : "exact";  // "17 120 300" is a list rather
}

class FileTask : public Task {
 public:
  FileTask(const std::string& path, const std::string& checker) : path_(path), checker_(checker) {
    MappedFile file(path);
    if (!checker.empty()) checker_named(checker, path + "@" + checker, true);
    std::string_view rest = file.text();
    for (int64_t number = 1; !rest.empty(); ++number) {
      size_t end = rest.find('\n');
      std::string_view line = trimmed(rest.substr(0, end));
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      if (!line.empty()) add(line, number);
    }
    if (rows_.empty()) {
      throw Error(path, "holds no question",
                  R"(write a line {"question": ..., "answer": ...} for each)");
    }
  }

  std::string name() const override { return std::filesystem::path(path_).filename().string(); }
  std::string about() const override {
    return fmt::format("{} questions of {}, checked by {}", rows_.size(), path_,
                       checker_.empty() ? "what suits each" : checker_);
  }
  Levels levels() const override { return {1, 1, 1, "level"}; }

  TaskExample example(uint64_t seed, int level) const override {
    CHECK(level == 1);
    return rows_[Rng(seed, hash_name("row of a task file")).below(rows_.size())];
  }

  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  TaskExample row(int64_t i) const override { return rows_.at(static_cast<size_t>(i)); }

  double score(const TaskExample& example, std::string_view answer) const override {
    json metadata = json::parse(example.metadata);
    auto it = checkers_.find(metadata.at("checker").get<std::string>());
    CHECK(it != checkers_.end());
    return it->second->score(example, answer);
  }

  int64_t checker_failures() const override {
    int64_t n = 0;
    for (const auto& [name, checker] : checkers_) n += checker->failures();
    return n;
  }

 private:
  Checker& checker_named(const std::string& name, const std::string& where, bool command) {
    auto it = checkers_.find(name);
    if (it == checkers_.end())
      it = checkers_.emplace(name, make_checker(name, where, command)).first;
    return *it->second;
  }

  void add(std::string_view text, int64_t number) {
    std::string where = fmt::format("{}:{}", path_, number);
    json line = parse_json(text, where);
    if (!line.is_object()) {
      throw Error(where, fmt::format("is {}, not an object", line.type_name()),
                  R"(write {"question": ..., "answer": ...} on every line)");
    }
    TaskExample example;
    example.question = text_field(line, "question", true, where);
    if (trimmed(example.question).empty())
      throw Error(where, "the question is empty", "write one, or remove the line");
    example.chain = text_field(line, "chain", false, where);
    std::string name = checker_;
    if (name.empty()) name = text_field(line, "checker", false, where);
    if (name.empty()) name = suitable_checker(line);
    json metadata = {{"level", 1}, {"line", number}, {"checker", name}};
    checker_named(name, where, !checker_.empty()).read(line, where, example, metadata);
    example.metadata = metadata.dump();
    rows_.push_back(std::move(example));
  }

  std::string path_, checker_;
  std::vector<TaskExample> rows_;
  std::map<std::string, std::unique_ptr<Checker>> checkers_;
};

}  // namespace

std::unique_ptr<Task> make_file_task(const std::string& path, const std::string& checker) {
  return std::make_unique<FileTask>(path, checker);
}

}  // namespace wels
