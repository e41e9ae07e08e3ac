// Examples of tasks as a file, or to be read, as `wels tasks` writes them.
#pragma once
#include <cstdint>
#include <string>

namespace wels {

struct TaskFile {
  std::string spec;    // TaskMixture
  std::string format;  // text, jsonl (question, answer, chain) or messages (for wels sft)
  std::string out;     // empty: stdout
  int64_t count = 5;
  uint64_t seed = 1;
  bool held_out = false;
  double p_cot = 1;   // share of the messages that have the chain of thought
  double p_stop = 0;  // of those: with_patience()
};

// Atomically, where there is a file. false: stopped by a signal, nothing is there. Throws Error.
bool write_task_examples(const TaskFile& f);

}  // namespace wels
