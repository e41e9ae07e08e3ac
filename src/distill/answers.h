// Answers of a teacher to a mixture's questions, kept where the task's checker says that they are
// right (rejection sampling: R1's way to distil, Nature 645:633, B.4.3).
//
// They are written as JSONL of messages that `wels sft` reads, a file for each block of questions:
//
//   FOLDER/settings.json      what was asked of whom: a folder is continued with the same only
//   FOLDER/block-000012.json  what came of the block: counts
//   FOLDER/block-000012.jsonl {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}
//   FOLDER/block-000013.part  answers to the block that is being asked: an endpoint's as they come,
//                             a model's that were whole when a signal came
//
// A block's .jsonl is written last and renamed into place, so it is there whole or not at all, and
// a run that was stopped or killed goes on with the first block that is missing, of which what is
// in .part is not asked again where the question is the same.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rl/rollout.h"
#include "tasks/task.h"

namespace wels {

struct GivenAnswer {
  std::string content;  // as a message has it: a thought within <think> and </think>, the answer
  std::string answer;   // what the checker sees
  bool ended = false;   // not cut at the limit
  int64_t tokens = 0;
  bool refused = false;  // not answered at all: an endpoint does not take this question
};

// Answers to the questions of a block, in a file as they come; without a path in memory only. A
// question is known by its number in the block and its text. For several threads at once.
class AnswerJournal {
 public:
  AnswerJournal() = default;
  // Takes what is there already; half a line at its end is left out. Throws Error.
  explicit AnswerJournal(std::string path);
  // Null: not answered yet.
  const GivenAnswer* find(int64_t question, std::string_view text, int64_t attempt) const;
  // Throws Error where the file cannot be written; it then is as before.
  void add(int64_t question, std::string_view text, int64_t attempt, GivenAnswer answer);

 private:
  struct Entry {
    uint64_t text;  // its hash
    GivenAnswer answer;
  };
  std::string path_;
  std::map<std::pair<int64_t, int64_t>, Entry> answers_;
  mutable std::mutex mutex_;
};

// Who is asked.
class AnswerSource {
 public:
  virtual ~AnswerSource() = default;
  // Who, with everything that changes the answers; a folder belongs to one.
  virtual std::string about() const = 0;
  // [questions][tries]. first: number of the first question in the run. journal: of these
  // questions, for sources whose answers cost money. Throws Error.
  virtual std::vector<std::vector<GivenAnswer>> ask(std::span<const std::string> questions,
                                                    int64_t first, int64_t tries,
                                                    AnswerJournal& journal) = 0;
};

// A model, by the engine: the same answers for the same arguments. Of a block that a signal cuts
// short the journal gets what was whole.
class EngineAnswers : public AnswerSource {
 public:
  EngineAnswers(RolloutSampler& sampler, std::string model, double temperature, uint64_t seed)
      : sampler_(sampler), model_(std::move(model)), temperature_(temperature), seed_(seed) {}
  std::string about() const override;
  std::vector<std::vector<GivenAnswer>> ask(std::span<const std::string> questions, int64_t first,
                                            int64_t tries, AnswerJournal& journal) override;

 private:
  GivenAnswer given(const Rollout& r) const;
  RolloutSampler& sampler_;
  std::string model_;
  double temperature_;
  uint64_t seed_;
};

// Which answers can be read, as R1's cold-start data had to be (Nature 645:633, B.3): one thought
// and one answer, no end that repeats itself, one language.
struct Readability {
  bool required = false;
  bool thought = false;          // what is no thought at all is left out too
  std::string language = "en";   // or "zh"
  double least_language = 0.95;  // share of the thought's words
  bool accepts(const std::string& content) const;
  std::string about() const;
};
// Whether the end of a text is the same few words (CJK: bytes of characters) over and over.
bool repeats_itself(std::string_view text);

struct CollectSettings {
  int64_t questions = 1000;
  int64_t tries = 4;   // answers to each
  int64_t keep = 1;    // right ones kept of each, at most: those that came first
  int64_t block = 64;  // questions asked at a time
  uint64_t seed = 1;
  Readability readable;
};

struct CollectReport {
  int64_t questions = 0, answers = 0, right = 0, cut = 0, duplicates = 0, kept = 0, tokens = 0;
  int64_t unreadable = 0;  // of the right ones
  int64_t refused = 0;     // questions that an endpoint did not take
  int64_t ms = 0;          // that it took
  int64_t solved = 0;      // questions with a right answer
  bool stopped = false;    // by `stop` or a signal
  std::string summary() const;
};

// Asks questions 0 ... of the mixture's training part. stop: asked between blocks; progress: told
// after each. A signal while programs check answers stops too, and they are kept for the next run.
// An answer counts as right where its score is 1 and it ended; the same content to the same
// question is kept once, and only what is readable where that is asked for. A folder that was asked
// fewer questions is completed, its last block anew. Throws Error where the folder holds answers to
// other settings or to more questions in the last block, is damaged, or cannot be written, and what
// the source throws: the blocks so far stay.
CollectReport collect_answers(const std::string& folder, const TaskMixture& tasks,
                              AnswerSource& source, const CollectSettings& settings,
                              const std::function<bool()>& stop,
                              const std::function<void(const CollectReport&)>& progress);
// The files of the answers to these questions; the folder may hold others, of a call with more.
std::vector<std::string> answer_files(const std::string& folder, const CollectSettings& settings);

}  // namespace wels
