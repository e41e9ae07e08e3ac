// What a run says about itself, step by step: metrics.jsonl, one JSON object per line, only ever
// appended to.
//
//   {"step":120,"time":1764000000.5,"loss":3.41,"lr":0.0004,"maxvio":[0.21,0.18],
//    "load":[[1.02,0.98],[0.91,1.09]],"sample":"Once"}          (on one line)
//
// "step" comes first; after it names in the order they were added. A number is a scalar, null one
// that was not finite, an array a vector (one value per layer, say), an array of arrays a table
// (layers × experts), a string a text. Nothing here knows what is trained: pretraining, RL and
// distillation add other names. The names below are those that the report (train/report.h) draws
// together; others get a plot of their own.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace wels {

// Names and units.
namespace metric {
inline constexpr const char* kLoss = "loss";  // what is minimised: main + MTP + balance, nats
inline constexpr const char* kMainLoss =
    "main_loss";  // cross-entropy of the next token, nats/token
inline constexpr const char* kMtpLoss =
    "mtp_loss";  // of the MTP modules, unweighted mean, nats/token
inline constexpr const char* kBalanceLoss = "balance_loss";  // sequence-wise balance loss, weighted
inline constexpr const char* kBitsPerByte =
    "bits_per_byte";                                 // main_loss in bits per byte of training text
inline constexpr const char* kValLoss = "val_loss";  // cross-entropy on held-out text, nats/token
inline constexpr const char* kValBitsPerByte = "val_bits_per_byte";
inline constexpr const char* kLr = "lr";
inline constexpr const char* kGradNorm = "grad_norm";  // before clipping
inline constexpr const char* kTokensPerS = "tokens_per_s";
inline constexpr const char* kGflops = "gflops";  // 1e9 operations per second
inline constexpr const char* kFractionOfPeak =
    "fraction_of_peak";  // of the peak measured on this machine
inline constexpr const char* kRssBytes = "rss_bytes";
inline constexpr const char* kTokens =
    "tokens";  // trained on since the run began, resumes included
inline constexpr const char* kElapsedS =
    "elapsed_s";                              // training time since the run began, resumes included
inline constexpr const char* kTime = "time";  // wall clock, seconds since 1970
inline constexpr const char* kStepTimePrefix =
    "ms_";  // "ms_forward": parts of a step's time, milliseconds
inline constexpr const char* kMaxVio =
    "maxvio";  // vector [L]: max load / mean load - 1 (V3 fig. 9; 0 is even)
inline constexpr const char* kLoad =
    "load";  // table [L, e]: an expert's tokens / fair share (1 fair, 0 dead)
inline constexpr const char* kBias =
    "bias";  // table [L, e]: selection bias of the aux-loss-free balancing
// vector [L]: the layer numbers of the rows of maxvio, load and bias, where they don't count from 0
inline constexpr const char* kLayers = "layers";
inline constexpr const char* kSample = "sample";  // text: what the model writes now
}  // namespace metric

// Rows of equal length, row-major.
struct MetricTable {
  int64_t rows = 0, cols = 0;
  std::vector<double> values;
};

// One line. A name is used once per line.
struct StepMetrics {
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> scalars;
  std::vector<std::pair<std::string, std::vector<double>>> vectors;
  std::vector<std::pair<std::string, MetricTable>> tables;
  std::vector<std::pair<std::string, std::string>> texts;

  void add(std::string name, double value) { scalars.emplace_back(std::move(name), value); }
  void add(std::string name, std::vector<double> v) {
    vectors.emplace_back(std::move(name), std::move(v));
  }
  void add(std::string name, MetricTable t) { tables.emplace_back(std::move(name), std::move(t)); }
  void add_text(std::string name, std::string text) {
    texts.emplace_back(std::move(name), std::move(text));
  }
  double scalar(std::string_view name) const;  // NaN if it isn't there
};

// The line, without '\n'. Scalars keep all their bits, vectors and tables six digits; invalid UTF-8
// becomes U+FFFD.
std::string to_json_line(const StepMetrics& m);
// The inverse. False if the line is not such an object (cut off by a crash, or another program's).
bool parse_json_line(std::string_view line, StepMetrics* out);

// fn(line) for all lines of metrics.jsonl in order, one in memory at a time. Lines that are not
// whole (kill -9, power cut) are left out and counted in *bad_lines. Throws Error if the file can't
// be read.
void each_metrics(const std::string& path, const std::function<void(StepMetrics)>& fn,
                  int64_t* bad_lines = nullptr);
// All of them.
std::vector<StepMetrics> read_metrics(const std::string& path, int64_t* bad_lines = nullptr);

// Appends lines. Each goes to the kernel as one write, so that kill -9 can at most cut the last one
// short.
class MetricsWriter {
 public:
  // keep_steps: on resume the step of the checkpoint: lines from the first later step on, and a
  // last line without its end, are cut off, since those steps come again. -1: a new run, an old
  // file is emptied. Throws Error if the file can't be opened or written.
  MetricsWriter(const std::string& path, int64_t keep_steps);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  // Steps must not fall (CHECK). Throws Error on a full disk; the file then ends with the line
  // before.
  void write(const StepMetrics& m);

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0, last_step_ = -1;
};

}  // namespace wels
