#include "tasks/task.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/check.h"
#include "base/error.h"
#include "base/rng.h"
#include "tasks/file_task.h"
#include "tasks/generators.h"
#include "tasks/plain.h"

namespace wels {
namespace {

// Draws after which a split counts as empty. A tenth is held out, so that a task with questions
// enough misses 1,000 times in a row with probability 1e-46.
constexpr int kMostDraws = 1000;

std::optional<int> parse_int(std::string_view text) {
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Range {
  int from, to;
};
// "8" or "8-12".
std::optional<Range> parse_range(std::string_view text) {
  size_t dash = text.find('-', 1);
  std::optional<int> from = parse_int(text.substr(0, dash)), to = from;
  if (dash != std::string_view::npos) to = parse_int(text.substr(dash + 1));
  if (!from || !to) return std::nullopt;
  return Range{*from, *to};
}

std::string names_of(const std::vector<std::unique_ptr<Task>>& tasks) {
  std::string names;
  for (const auto& task : tasks) names += (names.empty() ? "" : ", ") + task->name();
  return names;
}

// A part of a spec, its text masked by masked_quotes, and whether a part with a command precedes
// it, whose comma may have ended it too early.
struct PartText {
  std::string_view text, masked;
  bool behind_command = false;

  std::string hint(std::string usual) const {
    return behind_command ? "put a command's commas in quotes: command=judge 'a,b'" : usual;
  }
};

// The task called so: a generator, else a file with or without "@checker".
std::unique_ptr<Task> find_task(const std::string& name, const std::string& where,
                                const PartText& part) {
  std::vector<std::unique_ptr<Task>> tasks = all_tasks();
  for (auto& task : tasks) {
    if (task->name() == name) return std::move(task);
  }
  size_t at = name.rfind('@');
  std::string path = name.substr(0, at);
  if (path.find_first_of("./") == std::string::npos) {
    throw Error(
        where, fmt::format("there is no task \"{}\"", path),
        part.hint(fmt::format("use one of {}, or a file: questions.jsonl", names_of(tasks))));
  }
  if (at != std::string::npos && at + 1 == name.size())
    throw Error(where, "no checker behind the @", "name one: " + path + "@number");
  return make_file_task(path, at == std::string::npos ? "" : name.substr(at + 1));
}

// The spec with what stands in quotes or behind a backslash within commands masked: commas and
// stars there are theirs.
std::string masked_quotes(std::string_view spec) {
  std::string out(spec);
  bool command = false;
  char quote = '\0';
  for (size_t i = 0; i < out.size(); ++i) {
    char c = spec[i];
    if (quote != '\0') {
      if (c == quote) quote = '\0';
      if (c == '\\' && quote == '"' && i + 1 < out.size()) out[i++] = '_';
      if (quote != '\0') out[i] = '_';
    } else if (c == ',') {
      command = false;
    } else if (command && c == '\\' && i + 1 < out.size()) {
      out[++i] = '_';
    } else if (command && (c == '\'' || c == '"')) {
      quote = c;
    } else if (spec.substr(i).starts_with("command=")) {
      command = true;
    }
  }
  return out;
}

TaskMixture::Part parse_part(const PartText& written, std::string_view spec) {
  std::string where = fmt::format("tasks \"{}\"", spec);
  std::string_view text = written.text, name = text;
  if (text.empty())
    throw Error(where, "a part is empty",
                written.hint("write NAME, NAME:LEVEL or NAME:FROM-TO*SHARE"));
  TaskMixture::Part part{nullptr, 0, 0, 1, std::string(text)};
  bool command = name.find("command=") != std::string_view::npos;
  if (size_t star = written.masked.rfind('*'); star != std::string_view::npos) {
    std::string_view share = trimmed(name.substr(star + 1));
    auto [end, error] = std::from_chars(share.data(), share.data() + share.size(), part.share);
    if (error != std::errc() || end != share.data() + share.size() || !(part.share > 0) ||
        !(part.share <= 1e6)) {
      throw Error(where,
                  fmt::format("the share \"{}\" of \"{}\" is no number above 0", share, text),
                  command ? "put the command's * in quotes: command=judge '*.txt'"
                          : "write a share as in parity*2");
    }
    name = name.substr(0, star);
  }
  std::optional<Range> range;
  size_t colon = name.rfind(':');
  // Behind a checker's '@' a colon may be the command's own.
  if (colon != std::string_view::npos && name.find('@') == std::string_view::npos) {
    range = parse_range(trimmed(name.substr(colon + 1)));
    if (!range) {
      throw Error(where, fmt::format("\"{}\" is no level", name.substr(colon + 1)),
                  written.hint("write a level as in parity:20 or a range as in addition:8-12"));
    }
    name = name.substr(0, colon);
  }
  part.task = find_task(std::string(trimmed(name)), where, written);
  Task::Levels levels = part.task->levels();
  part.from = range ? range->from : levels.usual;
  part.to = range ? range->to : levels.usual;
  if (part.from > part.to || part.from < levels.lowest || part.to > levels.highest) {
    throw Error(where,
                fmt::format("{} has levels {} to {} ({}), not {}", part.task->name(), levels.lowest,
                            levels.highest, levels.unit, text.substr(colon + 1)),
                "choose a level or a range FROM-TO within them");
  }
  return part;
}

}  // namespace

TaskExample with_patience(TaskExample e, double p_stop, Rng& rng) {
  if (e.chain.empty()) return e;
  for (size_t end : e.dead_ends) {
    if (rng.uniform() >= p_stop) continue;
    e.chain = e.chain.substr(0, end) + " stop";
    e.answer = "none";
    e.dead_ends.clear();
    break;
  }
  return e;
}

bool is_held_out(std::string_view question) {
  constexpr uint64_t kStream = hash_name("held-out questions");
  return Rng(hash_name(question), kStream).below(10) == 0;
}

TaskMixture::TaskMixture(std::string_view spec) : spec_(spec) {
  std::string masked = masked_quotes(spec);
  PartText part;
  for (size_t at = 0;;) {
    size_t comma = masked.find(',', at);
    part.text = trimmed(spec.substr(at, comma - at));
    part.masked = trimmed(std::string_view(masked).substr(at, comma - at));
    parts_.push_back(parse_part(part, spec));
    part.behind_command = part.text.find("command=") != std::string_view::npos;
    if (comma == std::string::npos) break;
    at = comma + 1;
  }
}

TaskMixture::Item TaskMixture::item(uint64_t seed, int64_t i, TaskSplit split) const {
  CHECK(split != TaskSplit::kAll);
  // Every number has a stream of its own, and the splits have different ones.
  uint64_t stream = hash_name(split == TaskSplit::kTrain ? "train" : "held out");
  Rng rng(seed, stream + static_cast<uint64_t>(i));
  double total = 0;
  for (const Part& part : parts_) total += part.share;
  double at = rng.uniform() * total;
  size_t chosen = 0;
  while (chosen + 1 < parts_.size() && at >= parts_[chosen].share) at -= parts_[chosen++].share;
  const Part& part = parts_[chosen];
  for (int draw = 0; draw < kMostDraws; ++draw) {
    // The level is drawn anew too, so that one level without a question in the split spoils no
    // range.
    int level =
        part.from + static_cast<int>(rng.below(static_cast<uint64_t>(part.to - part.from) + 1));
    TaskExample example = part.task->example(rng.next_u64(), level);
    if (is_held_out(example.question) == (split == TaskSplit::kHeldOut))
      return {part.task.get(), level, std::move(example)};
  }
  throw Error(
      part.task->name(),
      fmt::format("none of {} examples of level {} to {} belongs to the {} part", kMostDraws,
                  part.from, part.to, split == TaskSplit::kTrain ? "training" : "held-out"),
      "it has too few questions; use a higher level, or a file that has such questions too (wels "
      "tasks writes those of one part, --held-out the others)");
}

TaskExample Task::row(int64_t i) const {
  (void)i;
  CHECK(size() > 0);
  return {};
}

std::vector<TaskMixture::Item> TaskMixture::all() const {
  std::vector<Item> out;
  for (const Part& part : parts_) {
    if (part.task->size() == 0) {
      throw Error(part.task->name(), "is a generator: it has no end, so all of it cannot be asked",
                  "ask held-out questions of it (--split held-out)");
    }
    for (int64_t i = 0; i < part.task->size(); ++i)
      out.push_back({part.task.get(), part.from, part.task->row(i)});
  }
  return out;
}

uint64_t TaskMixture::hash_of_files() const {
  uint64_t h = 0;
  for (const Part& part : parts_) {
    for (int64_t i = 0; i < part.task->size(); ++i) {
      TaskExample e = part.task->row(i);
      for (const std::string& text : {e.question, e.answer, e.metadata})
        h = h * 0x9e3779b97f4a7c15ull + hash_name(text);
    }
  }
  return h;
}

std::vector<std::unique_ptr<Task>> all_tasks() {
  std::vector<std::unique_ptr<Task>> tasks;
  for (auto make :
       {make_parity, make_state, make_addition, make_multiplication, make_sums, make_expressions,
        make_modular, make_gcd, make_base, make_sorting, make_path, make_maze, make_countdown,
        make_24, make_knights, make_sudoku, make_words_en, make_words_zh})
    tasks.push_back(make());
  return tasks;
}

}  // namespace wels
