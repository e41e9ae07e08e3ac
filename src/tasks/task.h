// Tasks with answers that a program can check. A task makes examples and scores answers, and base
// mixtures, SFT sets, RL rewards and evaluation all ask the same one. Generators count as data:
// example(seed, level) is a pure function, so a set of any size is a seed.
//
// A level is the task's own measure of difficulty (bits, digits, numbers), its levels() the ladder
// that a curriculum climbs.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"

namespace wels {

// One question and what is right. UTF-8, without template or markers.
struct TaskExample {
  std::string question;
  std::string answer;  // the reference, in the form that the task's own answers have
  std::string chain;   // a correct chain of thought up to the answer; empty: none known
  std::string metadata =
      "{}";  // JSON object: "level", and what the checker needs beside the answer
  // Where a chain that searches has come to nothing so far (offsets behind it): where somebody with
  // less patience would give up.
  std::vector<size_t> dead_ends = {};
};

class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;
  virtual std::string about() const = 0;  // one line: question, answer, what a level is

  // Levels lowest..highest, in `unit`s; `usual` is taken where nobody says one. A task from a file
  // has one level.
  struct Levels {
    int lowest = 1, highest = 1, usual = 1;
    std::string unit;
  };
  virtual Levels levels() const = 0;
  // The same for the same arguments, on every machine.
  virtual TaskExample example(uint64_t seed, int level) const = 0;
  // How many questions there are, of a file; 0: a generator, which makes as many as are asked for.
  virtual int64_t size() const { return 0; }
  // Question i of size(), in the file's order.
  virtual TaskExample row(int64_t i) const;
  // 0 (wrong) to 1 (right) for an answer: what stands behind the thought (tasks/answer.h). Never
  // throws on account of the answer. For several threads at once.
  virtual double score(const TaskExample& example, std::string_view answer) const = 0;
  // Answers scored 0 so far because the checker itself failed: a user's command that crashed, hung
  // or printed no score.
  virtual int64_t checker_failures() const { return 0; }
};

// The example as somebody tells it who gives up at each dead end with probability p_stop: the chain
// ends there with "stop", and the answer is "none".
TaskExample with_patience(TaskExample example, double p_stop, Rng& rng);

// Which examples of a task: a held-out example's question is in no training set, whatever the seed.
// kAll: of files, every question whichever it is.
enum class TaskSplit { kTrain, kHeldOut, kAll };

// Several tasks in fixed shares, each with a range of levels.
class TaskMixture {
 public:
  // "parity:20", "addition:8-12*2,sorting", "gsm8k.jsonl", "mine.jsonl@number": NAME or FILE or
  // FILE@CHECKER (tasks/checker.h), :LEVEL or :FROM-TO, *SHARE, separated by commas. Throws Error
  // naming the part that is wrong and what there is.
  explicit TaskMixture(std::string_view spec);

  struct Item {
    const Task* task;
    int level;
    TaskExample example;
  };
  // Example number i: a pure function of the arguments. Throws Error where a task has no example in
  // the split at all (a level with too few questions, a small file). split: kTrain or kHeldOut.
  Item item(uint64_t seed, int64_t i, TaskSplit split) const;
  // Every question of every part, in order. Throws Error where a part is a generator.
  std::vector<Item> all() const;
  // Of all questions of files and what is right; 0: there are generators alone.
  uint64_t hash_of_files() const;
  const std::string& spec() const { return spec_; }

  struct Part {
    std::unique_ptr<Task> task;
    int from, to;
    double share;
    std::string text;  // as the spec has it
  };
  const std::vector<Part>& parts() const { return parts_; }

 private:
  std::string spec_;
  std::vector<Part> parts_;
};

// Whether a question belongs to the held-out tenth (by hash).
bool is_held_out(std::string_view question);

// All generators, in the order of the documentation.
std::vector<std::unique_ptr<Task>> all_tasks();

}  // namespace wels
