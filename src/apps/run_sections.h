// What every training command writes beside its checkpoints: run.json and report.html.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/signal.h"
#include "formats/model_config.h"
#include "train/report.h"
#include "train/stage.h"

namespace wels {

InfoSection model_section(const ModelConfig& cfg);
// "done: 40 steps, 20.5k tokens, 9.25k tok/s"; without the rate where this call made no step.
std::string how_it_ended(const StageResult& r);

// The two files of one run. run.json is written whenever asked. report.html needs the whole
// metrics.jsonl: at the beginning and the end, and between them so seldom that making it takes at
// most a hundredth of the time.
class RunReport {
 public:
  // The sections, and the program's command line where the system tells it. A run that goes on
  // started when it began.
  RunReport(std::string out, std::vector<InfoSection> sections);
  // total_steps: that are planned.
  void write(int64_t total_steps);
  // Runs a stage and writes how it ended, also with an Error, which is thrown on. One from before
  // the first write() leaves the files: they may be those of a run with other settings.
  template <class Result>
  Result watch(const std::function<Result()>& run) {
    try {
      Result r = run();
      finish(r);
      return r;
    } catch (const Interrupted&) {  // before the first step
      throw;
    } catch (const Error& e) {
      failed(e.what());
      throw;
    }
  }

 private:
  void finish(const StageResult& r);
  void failed(const std::string& what);
  std::string out_;
  RunInfo info_;
  bool written_ = false;
  double next_page_s_ = 0;
};

}  // namespace wels
