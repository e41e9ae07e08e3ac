// What runs ended with, as a Markdown table: for documents and terminals.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/median.h"
#include "base/progress.h"
#include "train/metrics.h"
#include "train/report.h"

namespace wels {
namespace {

constexpr size_t kBalanceSteps = 50;  // whose MaxVio is averaged

// The worst block's MaxVio, mean of the last steps; NaN for a dense model.
double last_max_violation(const std::vector<StepMetrics>& lines) {
  double sum = 0;
  int64_t count = 0;
  size_t begin = lines.size() > kBalanceSteps ? lines.size() - kBalanceSteps : 0;
  for (size_t i = begin; i < lines.size(); ++i) {
    for (const auto& [name, values] : lines[i].vectors) {
      if (name != metric::kMaxVio || values.empty()) continue;
      sum += *std::max_element(values.begin(), values.end());
      ++count;
    }
  }
  return count > 0 ? sum / static_cast<double>(count) : std::nan("");
}

std::string number(double x, int digits) {
  return std::isfinite(x) ? fmt::format("{:.{}f}", x, digits) : "";
}

std::string table_line(const std::string& folder) {
  std::vector<StepMetrics> lines = read_metrics(folder + "/metrics.jsonl");
  double last = std::nan(""), bits = last, best = last;
  std::vector<double> rates;
  for (const StepMetrics& m : lines) {
    rates.push_back(m.scalar(metric::kTokensPerS));
    double loss = m.scalar(metric::kValLoss);
    if (!std::isfinite(loss)) continue;
    last = loss;
    bits = m.scalar(metric::kValBitsPerByte);
    best = std::isfinite(best) ? std::min(best, loss) : loss;
  }
  std::erase_if(rates, [](double x) { return !std::isfinite(x); });
  int64_t steps = lines.empty() ? 0 : lines.back().step;
  double tokens = lines.empty() ? 0 : lines.back().scalar(metric::kTokens);
  return fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} |\n", folder_name(folder), steps,
                     human_count(std::isfinite(tokens) ? tokens : 0), number(last, 4),
                     number(best, 4), number(bits, 4), number(last_max_violation(lines), 2),
                     number(median(rates), 0));
}

}  // namespace

std::string report_table(const std::vector<std::string>& folders) {
  std::string out =
      "| run | steps | tokens | validation, nats | best | bits per byte | MaxVio | tokens/s |\n"
      "|---|---|---|---|---|---|---|---|\n";
  for (const std::string& folder : folders) out += table_line(folder);
  return out;
}

}  // namespace wels
