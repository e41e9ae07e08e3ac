// samples.jsonl of a run: what the model wrote while it learned, a line each, the newest last. It
// stays small: the last kKept lines.
//
//   {"step":120,"task":"parity:20","prompt":"...","text":"...","reward":1}
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace wels {

struct StageSample {
  std::string task, prompt, text;
  double reward = 0;
};

class SampleWriter {
 public:
  static constexpr int64_t kKept = 200;
  static constexpr size_t kLongest = 4000;  // bytes of a prompt or text; the rest is cut

  // keep_steps as in MetricsWriter.
  SampleWriter(std::string path, int64_t keep_steps);
  // Throws Error where it can't be written; the file is then as it was.
  void write(int64_t step, const std::vector<StageSample>& samples);

 private:
  void rewrite();
  std::string path_;
  std::vector<std::string> lines_;
};

}  // namespace wels
