// What runs ended with, as a Markdown table: for documents and terminals.
#include <fmt/format.h>

#include <cmath>

#include "base/progress.h"
#include "train/report_page.h"

namespace wels {
namespace {

std::string number(double x, int digits) {
  return std::isfinite(x) ? fmt::format("{:.{}f}", x, digits) : "";
}

std::string table_line(const ReportRun& run) {
  const RunCurves& c = run.curves;
  double tokens = c.last(metric::kTokens);
  return fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} |\n", run.info.name,
                     c.last_step().value_or(0), human_count(std::isfinite(tokens) ? tokens : 0),
                     number(c.last(metric::kValLoss), 4), number(c.least(metric::kValLoss), 4),
                     number(c.last_val_bits(), 4), number(c.last_max_violation(), 2),
                     number(c.median(metric::kTokensPerS), 0));
}

}  // namespace

std::string report_table(const std::vector<ReportRun>& runs) {
  std::string out =
      "| run | steps | tokens | validation, nats | best | bits per byte | MaxVio | tokens/s |\n"
      "|---|---|---|---|---|---|---|---|\n";
  for (const ReportRun& run : runs) out += table_line(run);
  return out;
}

}  // namespace wels
