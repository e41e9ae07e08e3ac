// The pieces of the report's page: what report.cc gathers from a run, and the texts that make a
// page of it.
#pragma once
#include <string>
#include <vector>

#include "train/report.h"
#include "train/run_curves.h"

namespace wels {

struct ReportRun {
  RunInfo info;
  RunCurves curves;
};

// & < > " ' as entities.
std::string html_escape(const std::string& text);
// The runs' metrics as JSON, thinned out, safe inside <script> (no '<').
std::string report_data(const std::vector<ReportRun>& runs);
// What runs ended with, as a Markdown table.
std::string report_table(const std::vector<ReportRun>& runs);
// The whole page. data: report_data(runs).
std::string report_page(const std::vector<ReportRun>& runs, const std::string& data);

extern const char* const kReportStyle;      // CSS
extern const char* const kReportCharts;     // script: numbers, axes, line charts, heat maps
extern const char* const kReportDashboard;  // script: what is drawn from which metric, controls

}  // namespace wels
