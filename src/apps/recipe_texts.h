// The stages that make texts to learn from: documents, and what is repeated beside them so that
// the model forgets nothing else (replay).
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "apps/commands.h"

namespace wels {

// Of a stage of texts, beside its folder of data: the part that no stage learns.
inline constexpr const char* kHeldOutFile = "held_out.jsonl";

// Share of the questions of examples that are scored and that no stage is to learn.
inline constexpr double kEvaluatedExamples = 0.1;

struct DocumentsFlags {
  int64_t seq = 0;         // tokens of an example; 0: 1024, or the model's longest
  double held_out = 0.05;  // share
  uint64_t seed = 1;       // changes nothing: every stage has one
  void add(CLI::App* sub);
};

struct ReplayFlags {
  DocumentsFlags texts;
  std::string corpus;   // a file or folder; empty: the model's own samples
  double share = 0.25;  // of all that is learned
  double temperature = 1;
  void add(CLI::App* sub);
};

struct TextsReport {
  bool stopped = false;  // by a signal; the same call goes on
  int64_t parts = 0, bytes = 0, held_out_bytes = 0;
  int64_t sampled_tokens = 0;  // in all, those of calls that were stopped included
  double seconds = 0;          // likewise, of the model's own samples
};

// data: files and folders of documents. Leaves folder/answers/texts.jsonl and the held-out file,
// whole or not at all. model: whose tokenizer cuts. Throws Error where there is no text, or too
// little to hold a part out.
TextsReport documents_job(const DocumentsFlags& f, const std::string& model,
                          const std::vector<std::string>& data, const std::string& folder);

// data: the texts beside which this is to be learned (a documents stage's). Of a corpus parts
// spread evenly over it; else what the model writes at the temperature behind nothing, in blocks of
// which each is there whole or not at all. Throws Error likewise, and where the model writes
// nothing.
TextsReport replay_job(const ReplayFlags& f, const std::string& model,
                       const std::vector<std::string>& data, const std::string& folder,
                       const DeviceFlags& device);

}  // namespace wels
