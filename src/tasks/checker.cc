#include "tasks/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>

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

constexpr std::string_view kCommand = "command=", kTimeout = "timeout=";
constexpr const char* kNames =
    "exact, number, choice, json, code, [timeout=SECONDS] command=COMMAND";

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

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }
bool is_capital(char c) { return std::isupper(static_cast<unsigned char>(c)); }

class ExactChecker : public Checker {
 public:
  std::string name() const override { return "exact"; }
  void read(const json& line, const std::string& where, TaskExample& example, json&) override {
    example.answer = answer_text(line, where);
    if (trimmed(marked_answer(example.answer)).empty())
      throw Error(where, "the answer is empty", "write one, or remove the line");
  }
  // With the marks that may belong to the text, and without each pair of them around it.
  double score(const TaskExample& example, std::string_view answer) const override {
    std::string_view right = trimmed(marked_answer(example.answer));
    std::string written = normalised(right), bare = normalised(without_emphasis(right));
    std::string_view given = trimmed(marked_answer(answer));
    do {
      std::string said = normalised(given);
      if (said == written || said == bare) return 1;
      given = within_marks(given);
    } while (!given.empty());
    return 0;
  }

 private:
  // Not so "__init__" and "*args", which may be names.
  static std::string_view without_emphasis(std::string_view text) {
    auto may_be_name = [](std::string_view t) {
      return t.starts_with("__") || (t.starts_with('*') && !t.starts_with("**"));
    };
    while (!may_be_name(text)) {
      std::string_view inside = within_marks(text);
      if (inside.empty()) break;
      text = inside;
    }
    return text;
  }
};

// Whether what stands in brackets behind a number is about it, not the answer: "see step 2", but
// not "48 apples".
bool is_remark(std::string_view inside) {
  static constexpr std::array<std::string_view, 16> kBegin = {
      "see", "not", "of", "out", "from", "since", "because", "as",
      "by",  "in",  "at", "for", "with", "after", "using",   "step"};
  if (std::none_of(inside.begin(), inside.end(), is_letter)) return false;
  if (!last_number(inside)) return true;
  std::string first = lower_ascii(split_words(inside).front());
  return std::find(kBegin.begin(), kBegin.end(), first) != kBegin.end();
}

// Without a remark in brackets at the end, behind a number: "x = 5 (see step 2)".
std::string_view without_remark(std::string_view text) {
  std::string_view rest = trimmed(text);
  if (rest.ends_with('.')) rest.remove_suffix(1);
  size_t open = rest.rfind(" (");
  if (open == std::string_view::npos || rest.find(')', open) + 1 != rest.size()) return text;
  if (!is_remark(rest.substr(open + 2, rest.size() - open - 3))) return text;
  rest = rest.substr(0, open);
  std::vector<std::string_view> words = split_words(rest);  // the number, or number and unit
  for (size_t i = words.size() - std::min<size_t>(words.size(), 2); i < words.size(); ++i) {
    if (last_number(words[i])) return rest;
  }
  return text;
}

bool has_command(std::string_view text) {
  for (size_t at = 0; (at = text.find('\\', at)) != std::string_view::npos; ++at) {
    if (at + 1 < text.size() && is_letter(text[at + 1])) return true;
  }
  return false;
}

// What stands behind the last "=" or "≈" of a formula in LaTeX, without words, units and degrees.
std::string formula_value(std::string_view text) {
  static constexpr std::array<std::string_view, 5> kWords = {"\\text{", "\\textbf{", "\\textrm{",
                                                             "\\mathrm{", "\\mbox{"};
  static constexpr std::array<std::string_view, 3> kDegrees = {"^\\circ", "^{\\circ}", "\\degree"};
  constexpr std::string_view kAbout = "\\approx";
  std::string out;
  while (!text.empty()) {
    size_t skipped = 0;
    for (std::string_view w : kWords) {
      if (text.starts_with(w)) skipped = std::min(text.find('}'), text.size() - 1) + 1;
    }
    for (std::string_view d : kDegrees) {
      if (text.starts_with(d)) skipped = d.size();
    }
    if (text.starts_with(kAbout)) {
      out.clear();
      skipped = kAbout.size();
    }
    if (skipped == 0) out += text.front();
    text.remove_prefix(std::max<size_t>(skipped, 1));
  }
  std::string_view value = trimmed(std::string_view(out).substr(out.rfind('=') + 1));
  while (value.ends_with("\\,") || value.ends_with("\\")) {
    value = trimmed(value.substr(0, value.rfind('\\')));
  }
  return std::string(value);
}

// The number that an answer gives: its marked one, else the last one within it. What is marked and
// a formula must come to one as a whole.
std::optional<Number> number_of(std::string_view answer) {
  std::string final = final_answer(answer);
  if (std::optional<Number> whole = parse_number(final)) return whole;
  bool marked = final.size() < trimmed(answer).size();
  if (marked && has_command(final)) return parse_number(formula_value(final));
  return last_number(without_remark(final));
}

class NumberChecker : public Checker {
 public:
  std::string name() const override { return "number"; }
  void read(const json& line, const std::string& where, TaskExample& example, json&) override {
    std::string text = answer_text(line, where);
    example.answer = final_answer(text);
    if (!parse_number(example.answer)) {
      throw Error(where, fmt::format("the answer \"{}\" is no number", printable(text)),
                  "give a number, or use the checker exact");
    }
    // GSM8K's own format: the solution stands before "####".
    if (size_t hashes = text.rfind("####"); hashes != std::string::npos && example.chain.empty())
      example.chain = without_calculations(std::string_view(text).substr(0, hashes));
  }
  double score(const TaskExample& example, std::string_view answer) const override {
    std::optional<Number> given = number_of(answer), right = parse_number(example.answer);
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

bool starts_with_any(std::string_view text, std::span<const std::string_view> signs) {
  return std::any_of(signs.begin(), signs.end(),
                     [&](std::string_view sign) { return text.starts_with(sign); });
}

// "B", "(b)", "B.", "B) text", "B：text", "B - text": the letter that a text begins with and that
// stands alone, or '\0'; the text then begins behind it. announced: a capital may be followed by
// words, as in "the answer is B because".
char take_letter(std::string_view& text, bool announced) {
  static constexpr std::array<std::string_view, 11> kBehind = {")",  ".",  ":",  ",",  ";", " - ",
                                                               " –", " —", "、", "。", "\n"};
  std::string_view rest = text;
  if (rest.starts_with('(')) rest.remove_prefix(1);
  if (rest.empty() || !is_letter(rest.front())) return '\0';
  announced = announced && is_capital(rest.front());
  char letter = static_cast<char>(std::toupper(static_cast<unsigned char>(rest.front())));
  rest.remove_prefix(1);
  bool word = !rest.empty() && !starts_with_any(rest, kBehind);
  if (word && !(announced && (rest.front() == ' ' || (rest.front() & 0x80) != 0))) return '\0';
  text = rest.substr(rest.starts_with(')') ? 1 : 0);
  return letter;
}

// What stands between two letters: a word or slash, behind which the second may be followed by
// words; a comma or blank; the end of a sentence or line.
enum class Joint { kWord, kComma, kEnd };

Joint skip_joiners(std::string_view& text) {
  struct Joiner {
    std::string_view sign;
    Joint joint;
  };
  static constexpr std::array<Joiner, 20> kJoiners = {
      {{" ", Joint::kComma}, {"\t", Joint::kComma}, {",", Joint::kComma},   {"、", Joint::kComma},
       {"-", Joint::kComma}, {"–", Joint::kComma},  {"—", Joint::kComma},   {"/", Joint::kWord},
       {"&", Joint::kWord},  {"+", Joint::kWord},   {"and ", Joint::kWord}, {"or ", Joint::kWord},
       {"和", Joint::kWord}, {"或", Joint::kWord},  {"\n", Joint::kEnd},    {"\r", Joint::kEnd},
       {".", Joint::kEnd},   {":", Joint::kEnd},    {";", Joint::kEnd},     {"。", Joint::kEnd}}};
  Joint joint = Joint::kComma;
  for (bool more = true; more;) {
    more = false;
    for (const Joiner& j : kJoiners) {
      if (!text.starts_with(j.sign)) continue;
      text.remove_prefix(j.sign.size());
      more = true;
      if (j.joint == Joint::kEnd || joint != Joint::kEnd)
        joint = j.joint == Joint::kComma ? joint : j.joint;
    }
  }
  return joint;
}

// The texts of Markdown and LaTeX without the marks that may stand around a letter.
std::string unmarked(std::string_view text) {
  static constexpr std::array<std::string_view, 4> kMarks = {"**", "__", "`", "$"};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    auto at = std::find_if(kMarks.begin(), kMarks.end(),
                           [&](std::string_view m) { return text.substr(i).starts_with(m); });
    if (at == kMarks.end()) out += text[i];
    i += at == kMarks.end() ? 1 : at->size();
  }
  return out;
}

// Without white space and full stops at its end.
std::string_view without_stops(std::string_view text) {
  constexpr std::string_view kStop = "。";
  for (size_t before = text.size() + 1; text.size() < before;) {
    before = text.size();
    text = text.substr(0, text.find_last_not_of(".\n ") + 1);
    if (text.ends_with(kStop)) text.remove_suffix(kStop.size());
  }
  return text;
}

// A question's choices as answers are compared with them.
class Choices {
 public:
  // marks: as they are written; else without marks, and those that marks alone tell apart are known
  // by their letters only.
  Choices(std::span<const std::string> choices, bool marks) {
    std::set<std::string> written;
    std::map<std::string, int> same;
    for (const std::string& c : choices) {
      texts_.push_back(marks ? c : unmarked(unwrapped(c)));
      plain_.push_back(normalised(texts_.back()));
      longest_ = std::max(longest_, texts_.back().size());
      if (written.insert(normalised(c)).second) ++same[plain_.back()];
    }
    for (const std::string& p : plain_) told_.push_back(!p.empty() && same[p] < 2);
  }
  bool has(char letter) const {
    return letter >= 'A' && letter < 'A' + static_cast<int>(texts_.size());
  }
  const std::string& text(char letter) const { return texts_[static_cast<size_t>(letter - 'A')]; }
  bool all_told() const {
    return std::all_of(told_.begin(), told_.end(), [](bool t) { return t; });
  }
  // The letter of the choice that reads so; '\0': none. For texts of any length.
  char reading(std::string_view said) const {
    if (said.size() > 4 * longest_ + 64) return '\0';  // full-width letters are three bytes each
    std::string plain = normalised(said);
    for (size_t i = 0; i < plain_.size(); ++i) {
      if (told_[i] && plain == plain_[i]) return static_cast<char>('A' + i);
    }
    return '\0';
  }

 private:
  std::vector<std::string> texts_, plain_;
  std::vector<bool> told_;  // whether the text alone tells which it is
  size_t longest_ = 0;      // bytes
};

struct Stated {
  char letter = '\0';  // '\0': several at once
  size_t end = 0;      // of the statement
};

// Takes a choice's text off what stands behind its letter: ") red", ". red". False: it isn't there.
bool take_own_text(std::string_view& text, std::string_view own) {
  std::string_view told = text.substr(std::min(text.find_first_not_of(" \n\t\r.:)"), text.size()));
  if (own.empty() || normalised(told.substr(0, own.size())) != normalised(own)) return false;
  text = told.substr(std::min(own.size(), told.size()));
  return true;
}

// Whether a line or sentence ends behind a letter, or behind the letter and its choice's text.
bool ends_entry(std::string_view behind, std::string_view own) {
  behind = behind.substr(0, behind.find('\n'));
  if (!take_own_text(behind, own)) return without_stops(trimmed(behind)).empty();
  behind = trimmed(behind);
  return behind.empty() || behind.front() == '.' || behind.front() == ';';
}

// Whether words behind a letter take it back for another one: "or maybe C", "perhaps C".
bool doubts(std::string_view behind, char letter, const Choices& choices) {
  static constexpr std::array<std::string_view, 6> kDoubts = {"or ",       "maybe ", "perhaps ",
                                                              "possibly ", "或",     "也许"};
  constexpr std::string_view kBetween = " ,;-(";
  behind = behind.substr(0, behind.find_first_of(".\n"));
  behind.remove_prefix(std::min(behind.find_first_not_of(kBetween), behind.size()));
  if (!starts_with_any(lower_ascii(behind.substr(0, 16)), kDoubts)) return false;
  for (std::string_view word : split_words(behind)) {
    word = word.substr(std::min(word.find_first_not_of("("), word.size()));
    word = word.substr(0, word.find_last_not_of("),;:?!") + 1);
    if (word.size() == 1 && is_capital(word[0]) && word[0] != letter && choices.has(word[0]))
      return true;
  }
  return false;
}

// The choice that is stated where a text begins (without white space at its end): a letter, with or
// without its choice's text, or the text alone. Nullopt: none.
std::optional<Stated> stated_choice(std::string_view text, const Choices& choices,
                                    bool announced = false) {
  std::string_view rest = trimmed(text);
  std::string lower = lower_ascii(rest.substr(0, 7));
  if (lower == "option " || lower == "choice ") rest = trimmed(rest.substr(7));
  char read = choices.reading(rest);
  bool single = !rest.empty() && is_letter(rest.front()) && without_stops(rest).size() == 1;
  if (read != '\0' && !single) return Stated{read, text.size()};
  std::string_view behind = rest;
  char letter = take_letter(behind, announced);
  Stated out{letter, 0};
  while (choices.has(letter)) {  // further ones at once: "A, B", "(A) and (B)", "A) red B) blue"
    rest = behind;
    take_own_text(rest, choices.text(letter));
    out.end = text.size() - rest.size();
    behind = rest;
    Joint joint = skip_joiners(behind);
    bool capital = !behind.empty() && (behind.front() == '(' || is_capital(behind.front()));
    letter = capital ? take_letter(behind, announced && joint == Joint::kWord) : '\0';
    if (!choices.has(letter)) break;
    if (joint == Joint::kEnd && !ends_entry(behind, choices.text(letter))) break;
    if (letter != out.letter) out.letter = '\0';
  }
  if (out.end > 0 && doubts(rest, out.letter, choices)) out.letter = '\0';
  if (out.end > 0) return out;
  if (read != '\0') return Stated{read, text.size()};
  return std::nullopt;
}

// Where the last sentence or line of a text begins, 0 if it is the only one.
size_t last_sentence(std::string_view text) {
  text = without_stops(text);
  size_t begin = 0;
  for (std::string_view sign : {". ", "! ", "? ", ": ", "\n", "。"}) {
    size_t at = text.rfind(sign);
    if (at != std::string_view::npos) begin = std::max(begin, at + sign.size());
  }
  return begin;
}

// The last statement of those at the beginning of a text, behind words that announce one, and alone
// in the last sentence.
std::optional<Stated> last_stated(std::string_view text, const Choices& choices) {
  static constexpr std::array<std::string_view, 11> kAnnounce = {
      "answer is", "answer:", "option is", "choice is", "option:", "choice:",
      "答案是",    "答案:",   "答案为",    "选择",      "选"};
  static constexpr std::array<std::string_view, 4> kRevise = {"wait,", "no,", "actually,",
                                                              "actually"};
  std::string lower = lower_ascii(text);
  std::optional<Stated> last = stated_choice(text, choices);
  size_t last_begin = 0;
  auto look_behind = [&](std::span<const std::string_view> all, bool announced) {
    for (std::string_view words : all) {
      for (size_t at = 0; (at = lower.find(words, at)) != std::string::npos;) {
        at += words.size();
        std::optional<Stated> s = stated_choice(text.substr(at), choices, announced);
        if (!s || at < last_begin) continue;
        last = Stated{s->letter, at + s->end};
        last_begin = at;
      }
    }
  };
  look_behind(kAnnounce, true);
  look_behind(kRevise, false);
  if (size_t begin = last_sentence(text); begin > 0 && (!last || begin >= last->end)) {
    std::string_view sentence = text.substr(begin);
    std::optional<Stated> s = stated_choice(sentence, choices);
    if (s && without_stops(trimmed(sentence.substr(s->end))).size() <= 1) last = s;
  }
  return last;
}

}  // namespace

void Checker::count_failure(const std::string& reason) const {
  if (failures_.fetch_add(1, std::memory_order_relaxed) == 0)
    log_warn("checker {}: {}; such answers score 0 and are counted", name(), printable(reason));
}

namespace {

// Takes "timeout=5 " off the front of a command's name.
double take_timeout(std::string_view& name, const std::string& where) {
  if (!name.starts_with(kTimeout)) return kCommandLimit;
  size_t end = std::min(name.find(' '), name.size());
  std::string_view text = name.substr(kTimeout.size(), end - kTimeout.size());
  name = trimmed(name.substr(end));
  double seconds = 0;
  auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || stop != text.data() + text.size() || !(seconds > 0) ||
      !(seconds <= 86400) || !name.starts_with(kCommand))
    throw Error(where, fmt::format("\"{}\" is no time limit of a command", printable(text)),
                "write seconds and the command: timeout=5 command=COMMAND");
  return seconds;
}

}  // namespace

std::unique_ptr<Checker> make_checker(const std::string& spec, const std::string& where,
                                      bool command) {
  std::string_view name = spec;
  double limit_s = take_timeout(name, where);
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
    std::string line(trimmed(name.substr(std::min(kCommand.size(), name.size()))));
    if (line.empty()) throw Error(where, "the checker's command is empty", "write command=COMMAND");
    return make_command_checker(line, limit_s);
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
  std::string_view marked = marked_answer(answer);
  const Choices written(choices, true), plain(choices, false);
  // Marks may be what a choice is: "**" of "*" and "**", "__init__" of "init" and "__init__".
  if (!plain.all_told()) {
    for (std::string_view m = trimmed(marked); !m.empty(); m = within_marks(m)) {
      bool letter = m.size() == 1 && is_letter(m.front());
      if (char read = written.reading(m); read != '\0' && !letter) return read;
    }
  }
  std::string narrow = narrowed(unwrapped(marked));
  std::optional<Stated> last = last_stated(std::string(trimmed(unmarked(narrow))), plain);
  if (!last && !plain.all_told()) last = last_stated(narrow, written);
  return last ? last->letter : '\0';
}

}  // namespace wels
