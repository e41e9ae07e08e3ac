// What every training command writes beside its checkpoints: run.json and report.html.
#pragma once
#include <string>
#include <vector>

#include "formats/model_config.h"
#include "train/report.h"
#include "train/stage.h"

namespace wels {

InfoSection model_section(const ModelConfig& cfg);
// The program's command line, quoted for a shell, as a section of its own; nothing where the system
// does not tell it.
void append_command(std::vector<InfoSection>& sections);

// "done: 40 steps, 20.5k tokens, 9.25k tok/s"; without the rate where this call made no step.
std::string how_it_ended(const StageResult& r);

// The two files of one run, written whenever asked.
class RunReport {
 public:
  RunReport(std::string out, int64_t total_steps, std::vector<InfoSection> sections);
  void write();
  // With how the run ended.
  void finish(const StageResult& r);
  // With what ended it; the report stays as it was.
  void failed(const std::string& what);

 private:
  std::string out_;
  RunInfo info_;
};

}  // namespace wels
