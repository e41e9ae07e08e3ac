#include "distill/answers.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/signal.h"
#include "base/threads.h"
#include "data/json_lines.h"
#include "formats/json.h"
#include "rl/collapse.h"
#include "tasks/answer.h"

namespace wels {
namespace {

using nlohmann::json;

constexpr const char* kTaskFiles = "task_files";
constexpr uint64_t kAnswerStream = hash_name("teacher answer");

std::string block_path(const std::string& folder, int64_t block, const char* ending) {
  return fmt::format("{}/block-{:06}{}", folder, block, ending);
}

uint64_t key_of(const std::string& question, const std::string& content) {
  return hash_name(question) * 0x9e3779b97f4a7c15ull + hash_name(content);
}

void require_same_run(const std::string& folder, const json& now) {
  std::string path = folder + "/settings.json";
  if (!std::filesystem::exists(path)) {
    write_file_atomic(path, now.dump(2) + "\n");
    return;
  }
  json then = parse_json(read_file(path), path);
  for (const auto& [key, value] : now.items()) {
    if (key == kTaskFiles && then.is_object() && !then.contains(key)) continue;  // older folders
    if (!then.is_object() || !then.contains(key) || then[key] != value) {
      throw Error(folder,
                  fmt::format("has answers to {} {}, not {}", key,
                              then.is_object() && then.contains(key) ? then[key].dump() : "absent",
                              value.dump()),
                  "give the same settings to go on, or another folder");
    }
  }
}

// Counts by name, so that writing and reading cannot differ.
std::vector<std::pair<const char*, int64_t*>> counts(CollectReport& r) {
  return {{"questions", &r.questions},
          {"answers", &r.answers},
          {"right", &r.right},
          {"cut", &r.cut},
          {"duplicates", &r.duplicates},
          {"kept", &r.kept},
          {"tokens", &r.tokens},
          {"solved", &r.solved},
          {"unreadable", &r.unreadable},
          {"refused", &r.refused},
          {"ms", &r.ms}};
}

void add(CollectReport& to, CollectReport from) {
  auto a = counts(to), b = counts(from);
  for (size_t i = 0; i < a.size(); ++i) *a[i].second += *b[i].second;
}

CollectReport read_block(const std::string& folder, int64_t block, std::set<uint64_t>& seen) {
  std::string path = block_path(folder, block, ".json");
  json j = parse_json(read_file(path), path);
  CollectReport r;
  for (auto& [name, value] : counts(r)) {
    if (j.is_object() && !j.contains(name) && value == &r.refused) continue;  // of older versions
    if (!j.is_object() || !j.contains(name) || !j[name].is_number_integer())
      throw Error(path, fmt::format("has no count of {}", name), "remove the block's files");
    *value = j[name].get<int64_t>();
  }
  read_json_lines(
      {block_path(folder, block, ".jsonl")}, [&](std::string_view line, const std::string& where) {
        json record = parse_json(line, where);
        try {
          const json& m = record.at("messages");
          seen.insert(key_of(m.at(0).at("content").get<std::string>(),
                             m.at(1).at("content").get<std::string>()));
        } catch (const json::exception&) {
          throw Error(where, "is no question with its answer", "remove the block's files");
        }
        return true;
      });
  return r;
}

// Whether the block is there and has answers to so many questions; false where to fewer. Throws
// Error where to more, of which some would have to be thrown away.
bool is_whole(const std::string& folder, int64_t block, int64_t first, int64_t count) {
  if (!std::filesystem::exists(block_path(folder, block, ".jsonl"))) return false;
  std::set<uint64_t> unused;
  int64_t there = read_block(folder, block, unused).questions;
  if (there > count)
    throw Error(folder,
                fmt::format("has answers to {} questions, not {}", first + there, first + count),
                fmt::format("ask {} again{}, or take another folder", first + there,
                            first > 0 ? fmt::format(", or {}", first) : ""));
  return there == count;
}

struct Block {
  std::vector<TaskMixture::Item> items;
  std::vector<std::vector<GivenAnswer>> given;
  std::vector<std::vector<double>> score;
};

void score(Block& b) {
  b.score.resize(b.items.size());
  parallel_tasks(static_cast<int64_t>(b.items.size()), [&](int64_t i) {
    auto n = static_cast<size_t>(i);
    for (const GivenAnswer& a : b.given[n])
      b.score[n].push_back(a.ended ? b.items[n].task->score(b.items[n].example, a.answer) : 0);
  });
}

// Takes the answers from the journal where all are there.
// All answers to a question; false, and none, where one is missing.
bool take_question(const AnswerJournal& journal, int64_t number, const std::string& question,
                   int64_t tries, std::vector<GivenAnswer>& given) {
  for (int64_t k = 0; k < tries; ++k) {
    const GivenAnswer* a = journal.find(number, question, k);
    if (!a) {
      given.clear();
      return false;
    }
    given.push_back(*a);
  }
  return true;
}

bool take_all(const AnswerJournal& journal, std::span<const std::string> questions, int64_t tries,
              std::vector<std::vector<GivenAnswer>>& given) {
  given.assign(questions.size(), {});
  for (size_t q = 0; q < questions.size(); ++q) {
    if (!take_question(journal, static_cast<int64_t>(q), questions[q], tries, given[q]))
      return false;
  }
  return true;
}

void add_missing(const Block& b, std::span<const std::string> questions, AnswerJournal& journal) {
  for (size_t q = 0; q < questions.size(); ++q) {
    for (size_t k = 0; k < b.given[q].size(); ++k) {
      auto number = static_cast<int64_t>(q), attempt = static_cast<int64_t>(k);
      if (!journal.find(number, questions[q], attempt))
        journal.add(number, questions[q], attempt, b.given[q][k]);
    }
  }
}

// The block's kept answers as lines; report gets its counts.
std::string select(const Block& b, const CollectSettings& s, std::set<uint64_t>& seen,
                   CollectReport& report) {
  std::string lines;
  for (size_t i = 0; i < b.items.size(); ++i) {
    const std::string& question = b.items[i].example.question;
    int64_t kept = 0;
    bool solved = false, refused = false;
    for (size_t k = 0; k < b.given[i].size(); ++k) {
      const GivenAnswer& a = b.given[i][k];
      refused = refused || a.refused;
      if (a.refused) continue;
      ++report.answers;
      report.tokens += a.tokens;
      report.cut += a.ended ? 0 : 1;
      if (b.score[i][k] < 1) continue;
      ++report.right;
      solved = true;
      if (kept == s.keep) continue;
      if (!s.readable.accepts(a.content)) {
        ++report.unreadable;
        continue;
      }
      if (!seen.insert(key_of(question, a.content)).second) {
        ++report.duplicates;
        continue;
      }
      ++kept;
      json messages = {{{"role", "user"}, {"content", question}},
                       {{"role", "assistant"}, {"content", a.content}}};
      lines += json{{"messages", messages}, {"task", b.items[i].task->name()}}.dump(
                   -1, ' ', false, json::error_handler_t::replace) +
               "\n";
    }
    ++report.questions;
    report.kept += kept;
    report.solved += solved ? 1 : 0;
    report.refused += refused ? 1 : 0;
  }
  return lines;
}

}  // namespace

AnswerJournal::AnswerJournal(std::string path) : path_(std::move(path)) {
  if (!std::filesystem::exists(path_)) return;
  std::string text = read_file(path_);
  size_t whole = text.rfind('\n') + 1;  // 0: none
  if (whole < text.size()) std::filesystem::resize_file(path_, whole);
  for (size_t at = 0; at < whole;) {
    size_t end = text.find('\n', at);
    json j = parse_json(std::string_view(text).substr(at, end - at), path_);
    at = end + 1;
    try {
      answers_[{j.at("question").get<int64_t>(), j.at("try").get<int64_t>()}] = {
          j.value("text", uint64_t{0}),  // older versions did not say to which
          {.content = j.at("content").get<std::string>(),
           .answer = j.at("answer").get<std::string>(),
           .ended = j.at("ended").get<bool>(),
           .tokens = j.at("tokens").get<int64_t>(),
           .refused = j.at("refused").get<bool>()}};
    } catch (const json::exception& e) {
      throw Error(path_, fmt::format("is no file of answers: {}", e.what()), "remove it");
    }
  }
}

const GivenAnswer* AnswerJournal::find(int64_t question, std::string_view text,
                                       int64_t attempt) const {
  std::lock_guard lock(mutex_);
  auto at = answers_.find({question, attempt});
  return at == answers_.end() || at->second.text != hash_name(text) ? nullptr : &at->second.answer;
}

void AnswerJournal::add(int64_t question, std::string_view text, int64_t attempt,
                        GivenAnswer answer) {
  std::lock_guard lock(mutex_);
  if (!path_.empty()) {
    json j = {{"question", question},      {"text", hash_name(text)},  {"try", attempt},
              {"content", answer.content}, {"answer", answer.answer},  {"ended", answer.ended},
              {"tokens", answer.tokens},   {"refused", answer.refused}};
    std::error_code none;
    uintmax_t before = std::filesystem::file_size(path_, none);
    if (none) before = 0;
    std::ofstream file(path_, std::ios::app | std::ios::binary);
    file << j.dump(-1, ' ', false, json::error_handler_t::replace) + "\n" << std::flush;
    if (!file) {
      file.close();
      std::filesystem::resize_file(path_, before, none);  // no half line, behind which others write
      throw Error(path_, "cannot write", "free some space");
    }
  }
  answers_[{question, attempt}] = {hash_name(text), std::move(answer)};
}

std::string EngineAnswers::about() const {
  return fmt::format("{} temperature {} max_tokens {} thinking {} seed {}", model_, temperature_,
                     sampler_.settings().max_tokens, sampler_.settings().thinking, seed_);
}

GivenAnswer EngineAnswers::given(const Rollout& r) const {
  std::span<const int32_t> text = r.tokens;
  if (r.ended) text = text.first(text.size() - 1);
  std::string content = sampler_.tokenizer().decode(text);
  if (sampler_.settings().thinking && content.find(kThinkEnd) != std::string::npos)
    content = std::string(kThinkBegin) + content;
  return {.content = std::move(content),
          .answer = r.parts.answer,
          .ended = r.ended,
          .tokens = static_cast<int64_t>(r.tokens.size())};
}

std::vector<std::vector<GivenAnswer>> EngineAnswers::ask(std::span<const std::string> questions,
                                                         int64_t first, int64_t tries,
                                                         AnswerJournal& journal) {
  std::vector<std::vector<GivenAnswer>> out(questions.size());
  std::vector<size_t> open;  // the questions that have not all their answers
  std::vector<std::vector<int32_t>> prompts;
  for (size_t q = 0; q < questions.size(); ++q) {
    if (take_question(journal, static_cast<int64_t>(q), questions[q], tries, out[q])) continue;
    open.push_back(q);
    prompts.push_back(sampler_.prompt(questions[q]));
  }
  auto number = [&](int64_t prompt) {
    return static_cast<int64_t>(open[static_cast<size_t>(prompt)]);
  };
  auto luck = [&](int64_t prompt, int64_t sample) {
    auto place = static_cast<uint64_t>((first + number(prompt)) * tries + sample);
    return Rng(seed_, kAnswerStream, 2 * place).next_u64();
  };
  auto keep = [&](int64_t prompt, int64_t sample, const Rollout& r) {
    int64_t q = number(prompt);
    const std::string& question = questions[static_cast<size_t>(q)];
    if (!journal.find(q, question, sample)) journal.add(q, question, sample, given(r));
  };
  std::vector<Rollout> said = sampler_.sample({.prompts = prompts,
                                               .samples = tries,
                                               .temperature = temperature_,
                                               .seed = luck,
                                               .rescued = keep});
  for (size_t i = 0; i < said.size(); ++i)
    out[open[i / static_cast<size_t>(tries)]].push_back(given(said[i]));
  return out;
}

bool repeats_itself(std::string_view text) {
  std::vector<int32_t> words;
  for (size_t i = 0; i < text.size();) {
    auto c = static_cast<unsigned char>(text[i]);
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      ++i;
      continue;
    }
    size_t end = i + 1;
    if (c < 0x80) end = std::min(text.find_first_of(" \n\t\r", i), text.size());
    words.push_back(static_cast<int32_t>(hash_name(text.substr(i, end - i))));
    i = end;
  }
  return is_repetitive(words);
}

bool Readability::accepts(const std::string& content) const {
  Completion c = parse_completion(content, false);
  if (thought && c.thought.empty()) return false;
  if (!required) return true;
  return c.well_formed && !repeats_itself(c.thought) && !repeats_itself(c.answer) &&
         language_consistency(c.thought, language).value_or(1) >= least_language;
}

std::string Readability::about() const {
  std::string out = required ? fmt::format("{} {}", language, least_language) : "any";
  return thought ? out + " with a thought" : out;
}

std::string CollectReport::summary() const {
  double share =
      answers > 0 ? 100.0 * static_cast<double>(right) / static_cast<double>(answers) : 0;
  std::string out = fmt::format(
      "{} questions, {} solved; {} of {} answers right ({:.1f} %), {} cut; {} kept, {} "
      "duplicates, {} unreadable",
      questions, solved, right, answers, share, cut, kept, duplicates, unreadable);
  return refused > 0 ? out + fmt::format("; {} refused", refused) : out;
}

std::vector<std::string> answer_files(const std::string& folder, const CollectSettings& s) {
  std::vector<std::string> out;
  for (int64_t first = 0, block = 0; first < s.questions; first += s.block, ++block)
    out.push_back(block_path(folder, block, ".jsonl"));
  return out;
}

CollectReport collect_answers(const std::string& folder, const TaskMixture& tasks,
                              AnswerSource& source, const CollectSettings& s,
                              const std::function<bool()>& stop,
                              const std::function<void(const CollectReport&)>& progress) {
  make_folder(folder);
  require_same_run(folder, {{"tasks", tasks.spec()},
                            {kTaskFiles, tasks.hash_of_files()},
                            {"source", source.about()},
                            {"tries", s.tries},
                            {"keep", s.keep},
                            {"block", s.block},
                            {"readable", s.readable.about()},
                            {"seed", s.seed}});
  CollectReport all;
  std::set<uint64_t> seen;
  for (int64_t first = 0, block = 0; first < s.questions; first += s.block, ++block) {
    std::string path = block_path(folder, block, ".jsonl");
    int64_t count = std::min(s.block, s.questions - first);
    if (is_whole(folder, block, first, count)) {
      add(all, read_block(folder, block, seen));
      continue;
    }
    if (stop()) {
      all.stopped = true;
      break;
    }
    std::filesystem::remove(path);  // the last one of a call with fewer questions
    double t0 = monotonic_seconds();
    Block b;
    std::vector<std::string> questions;
    for (int64_t i = first; i < first + count; ++i) {
      b.items.push_back(tasks.item(s.seed, i, TaskSplit::kTrain));
      questions.push_back(b.items.back().example.question);
    }
    std::string part = block_path(folder, block, ".part");
    AnswerJournal journal(part);
    try {
      if (!take_all(journal, questions, s.tries, b.given)) {
        b.given.clear();
        b.given = source.ask(questions, first, s.tries, journal);
      }
      score(b);
    } catch (const Interrupted&) {  // asked for the rest, or checked, when the run goes on
      if (!b.given.empty()) add_missing(b, questions, journal);
      all.stopped = true;
      break;
    }
    CollectReport of_block;
    std::string lines = select(b, s, seen, of_block);
    of_block.ms = static_cast<int64_t>((monotonic_seconds() - t0) * 1e3);
    json j = json::object();
    for (auto& [name, value] : counts(of_block)) j[name] = *value;
    write_file_atomic(block_path(folder, block, ".json"), j.dump() + "\n");
    write_file_atomic(path, lines);
    std::filesystem::remove(part);
    add(all, of_block);
    progress(all);
  }
  return all;
}

}  // namespace wels
