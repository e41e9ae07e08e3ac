#include "tasks/checker.h"

#include <fmt/format.h>

#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.h"
#include "base/error.h"
#include "base/log.h"
#include "formats/json.h"
#include "tasks/answer.h"
#include "tasks/number.h"
#include "tasks/plain.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr std::string_view kCommand = "command=";
constexpr const char* kNames = "exact, number, choice, json, code, command=COMMAND";

// The line's "answer" as text: a string, or a number or truth value as JSON writes it.
std::string answer_text(const json& line, const std::string& where) {
  auto it = line.find("answer");
  if (it == line.end())
    throw Error(where, "the object has no \"answer\"", R"(write {"question": ..., "answer": ...})");
  if (it->is_string()) return it->get<std::string>();
  if (it->is_number() || it->is_boolean()) return it->dump();
  throw Error(where, fmt::format("\"answer\" is {}, not a text", it->type_name()),
              "write it as a string, or use the checker json");
}

class ExactChecker : public Checker {
 public:
  std::string name() const override { return "exact"; }
  void read(const json& line, const std::string& where, TaskExample& example, json&) override {
    example.answer = answer_text(line, where);
  }
  double score(const TaskExample& example, std::string_view answer) const override {
    return normalised(final_answer(answer)) == normalised(final_answer(example.answer)) ? 1 : 0;
  }
};

// The number that an answer gives: its marked one, else the last one within it.
std::optional<Number> number_of(std::string_view answer) {
  std::string final = final_answer(answer);
  std::optional<Number> whole = parse_number(final);
  return whole ? whole : last_number(final);
}

class NumberChecker : public Checker {
 public:
  std::string name() const override { return "number"; }
  void read(const json& line, const std::string& where, TaskExample& example, json&) override {
    std::string text = answer_text(line, where);
    example.answer = final_answer(text);
    if (!number_of(example.answer)) {
      throw Error(where, fmt::format("no number in the answer \"{}\"", printable(text)),
                  "give a number, or use the checker exact");
    }
    // GSM8K's own format: the solution stands before "####".
    if (size_t hashes = text.rfind("####"); hashes != std::string::npos && example.chain.empty())
      example.chain = without_calculations(std::string_view(text).substr(0, hashes));
  }
  double score(const TaskExample& example, std::string_view answer) const override {
    std::optional<Number> given = number_of(answer), right = number_of(example.answer);
    return given && right && *given == *right ? 1 : 0;
  }

 private:
  // GSM8K repeats every calculation within << >>, for a calculator.
  static std::string without_calculations(std::string_view text) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      size_t begin = text.find("<<", at), end = text.find(">>", begin);
      if (begin == std::string_view::npos || end == std::string_view::npos)
        begin = end = text.size();
      out += text.substr(at, begin - at);
      at = end + 2;
    }
    return std::string(trimmed(out));
  }
};

class ChoiceChecker : public Checker {
 public:
  std::string name() const override { return "choice"; }
  void read(const json& line, const std::string& where, TaskExample& example,
            json& metadata) override {
    auto it = line.find("choices");
    if (it == line.end() || !it->is_array() || it->empty() || it->size() > 26)
      throw Error(where, "\"choices\" is no list of 1 to 26 texts",
                  R"(write "choices": ["...", "..."])");
    for (const json& c : *it) {
      if (!c.is_string()) throw Error(where, "a choice is no text", "write choices as strings");
    }
    std::string text = answer_text(line, where);
    char letter = chosen_letter(text, it->get<std::vector<std::string>>());
    if (letter == '\0') {
      throw Error(where, fmt::format("the answer \"{}\" is none of the choices", printable(text)),
                  "give the letter of one (A, B, ...), or its text");
    }
    example.answer = std::string(1, letter);
    metadata["choices"] = *it;
    std::string listed;
    for (size_t i = 0; i < it->size(); ++i)
      listed += fmt::format("\n{}) {}", static_cast<char>('A' + i), (*it)[i].get<std::string>());
    example.question += listed;
  }
  double score(const TaskExample& example, std::string_view answer) const override {
    json metadata = json::parse(example.metadata);
    auto choices = metadata.at("choices").get<std::vector<std::string>>();
    return chosen_letter(answer, choices) == example.answer.at(0) ? 1 : 0;
  }
};

class JsonChecker : public Checker {
 public:
  std::string name() const override { return "json"; }
  void read(const json& line, const std::string&, TaskExample& example, json&) override {
    auto it = line.find("answer");
    if (it != line.end() && !it->is_null()) example.answer = it->dump();
  }
  double score(const TaskExample& example, std::string_view answer) const override {
    std::optional<json> given = parsed(code_of(answer));
    if (!given) return 0;
    return example.answer.empty() || *given == json::parse(example.answer) ? 1 : 0;
  }

 private:
  static std::optional<json> parsed(std::string_view text) {
    try {
      return parse_json(trimmed(text), "answer");
    } catch (const Error&) {
      return std::nullopt;
    }
  }
};

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }

// "B", "(b)", "B.", "B) text", "B：text": the letter that the text begins with and that stands
// alone.
char leading_letter(std::string_view text) {
  bool bracket = !text.empty() && text.front() == '(';
  if (bracket) text.remove_prefix(1);
  if (text.empty() || !is_letter(text.front())) return '\0';
  char letter = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  text.remove_prefix(1);
  bool alone = text.empty() ||
               std::string_view(").:,").find(text.front()) != std::string_view::npos ||
               text.starts_with("、") || text.starts_with("。");
  return alone ? letter : '\0';
}

}  // namespace

void Checker::count_failure(const std::string& reason) const {
  if (failures_.fetch_add(1, std::memory_order_relaxed) == 0)
    log_warn("checker {}: {}; such answers score 0 and are counted", name(), printable(reason));
}

std::unique_ptr<Checker> make_checker(const std::string& name, const std::string& where,
                                      bool command) {
  if (name == "exact") return std::make_unique<ExactChecker>();
  if (name == "number") return std::make_unique<NumberChecker>();
  if (name == "choice") return std::make_unique<ChoiceChecker>();
  if (name == "json") return std::make_unique<JsonChecker>();
  if (name == "code") return make_code_checker();
  if (name.starts_with(kCommand) || name == "command") {
    if (!command) {
      throw Error(where, "a file of questions can't name a program to run",
                  "name it in the tasks: FILE@command=COMMAND");
    }
    std::string line(
        trimmed(std::string_view(name).substr(std::min(kCommand.size(), name.size()))));
    if (line.empty()) throw Error(where, "the checker's command is empty", "write command=COMMAND");
    return make_command_checker(line);
  }
  throw Error(where, fmt::format("there is no checker \"{}\"", printable(name)),
              fmt::format("use one of {}", kNames));
}

std::string_view code_of(std::string_view answer) {
  constexpr std::string_view kFence = "```";
  size_t close = answer.rfind(kFence);
  if (close == std::string_view::npos || close == 0) return answer;
  size_t open = answer.rfind(kFence, close - 1);
  if (open == std::string_view::npos) return answer;
  size_t begin = answer.find('\n', open);  // behind the language's name
  if (begin == std::string_view::npos || begin > close) return answer;
  return answer.substr(begin + 1, close - begin - 1);
}

char chosen_letter(std::string_view answer, const std::vector<std::string>& choices) {
  auto valid = [&](char letter) {
    return letter >= 'A' && letter < 'A' + static_cast<int>(choices.size());
  };
  std::string text = narrowed(final_answer(answer));
  if (char letter = leading_letter(text); valid(letter)) return letter;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (normalised(text) == normalised(choices[i])) return static_cast<char>('A' + i);
  }
  // "The answer is B", "答案是B", "Answer: (b)": the letter behind the last of these words.
  for (std::string_view phrase : {"nswer is", "nswer:", "答案是", "答案:", "答案为", "选"}) {
    size_t at = text.rfind(phrase);
    if (at == std::string::npos) continue;
    std::string_view behind = trimmed(std::string_view(text).substr(at + phrase.size()));
    char letter = leading_letter(behind);
    if (valid(letter)) return letter;
  }
  return '\0';
}

}  // namespace wels
