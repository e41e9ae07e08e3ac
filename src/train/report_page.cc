// The part of the report that is there without any script: the header with what ran, where, and how
// it stands.
#include "train/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/machine.h"
#include "base/progress.h"

namespace wels {
namespace {

// What may be wider than the page can be scrolled, by keys too.
constexpr const char* kWide =
    "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"comparison\">";

struct Fact {
  std::string name, value;
};

// The figures of the header; those that a run doesn't have are left out.
std::vector<Fact> facts(const ReportRun& run) {
  std::vector<Fact> out;
  auto add = [&](const char* name, double v, auto format) {
    if (std::isfinite(v)) out.push_back({name, format(v)});
  };
  auto four = [](double v) { return fmt::format("{:.4f}", v); };
  auto percent = [](double v) { return fmt::format("{:.1f}%", 100 * v); };
  const RunCurves& c = run.curves;
  if (c.last_step()) {
    std::string step = fmt::format("{}", *c.last_step());
    if (run.info.total_steps > 0) step += fmt::format(" / {}", run.info.total_steps);
    out.push_back({"step", step});
  }
  add("tokens", c.last(metric::kTokens), human_count);
  add("training time", c.last(metric::kElapsedS), human_duration);
  double main_loss = c.last(metric::kMainLoss);
  add("loss", std::isfinite(main_loss) ? main_loss : c.last(metric::kLoss), four);
  add("validation loss, best", c.least(metric::kValLoss), four);
  add("bits per byte, best", c.least(metric::kValBitsPerByte), four);
  add("tokens/s, median", c.median(metric::kTokensPerS), human_count);
  add("GFLOP/s, median", c.median(metric::kGflops), human_count);
  add("of peak, median", c.median(metric::kFractionOfPeak), percent);
  add("memory", c.last(metric::kRssBytes), human_bytes);
  return out;
}

std::string badge(const RunInfo& info) {
  if (info.status.empty()) return "";
  std::string kind = info.status.substr(0, info.status.find(':'));
  return fmt::format("<span class=\"badge {}\">{}</span>", html_escape(kind),
                     html_escape(info.status));
}

std::string dates(const RunInfo& info) {
  if (info.started <= 0) return "";
  std::string out = "started " + utc_date(info.started);
  if (info.updated > info.started) {
    out += fmt::format(" · last change {} ({} later)", utc_date(info.updated),
                       human_duration(info.updated - info.started));
  }
  return "<p class=\"dates\">" + html_escape(out) + "</p>";
}

std::string progress_bar(const ReportRun& run) {
  if (run.info.total_steps <= 0 || !run.curves.last_step()) return "";
  double done =
      static_cast<double>(*run.curves.last_step()) / static_cast<double>(run.info.total_steps);
  return fmt::format("<div class=\"bar\"><div style=\"width:{:.1f}%\"></div></div>",
                     100 * std::clamp(done, 0.0, 1.0));
}

std::string section_table(const InfoSection& s) {
  std::string out = "<table><caption>" + html_escape(s.title) + "</caption>";
  for (const auto& [name, value] : s.rows) {
    out += "<tr><th>" + html_escape(name) + "</th><td>" + html_escape(value) + "</td></tr>";
  }
  return out + "</table>";
}

std::string one_run(const ReportRun& run) {
  std::string out = "<section class=\"card head\"><h1>" + html_escape(run.info.name) + " " +
                    badge(run.info) + "</h1>" + dates(run.info) + progress_bar(run) +
                    "<div class=\"facts\">";
  for (const Fact& f : facts(run)) {
    out += "<div><b>" + html_escape(f.value) + "</b><span>" + html_escape(f.name) + "</span></div>";
  }
  out += "</div>";
  if (!run.info.sections.empty()) {
    out += "<details open><summary>Recipe, model, data, machine</summary><div class=\"tables\">";
    for (const InfoSection& s : run.info.sections) out += section_table(s);
    out += "</div></details>";
  }
  return out + "</section>";
}

// A row of a comparison: one cell per run. same: all cells are equal.
std::string compare_row(const std::string& name, const std::vector<std::string>& cells) {
  std::string out = "<tr><th>" + html_escape(name) + "</th>";
  for (const std::string& c : cells) out += "<td>" + (c.empty() ? "–" : html_escape(c)) + "</td>";
  return out + "</tr>";
}

bool all_same(const std::vector<std::string>& cells) {
  return std::all_of(cells.begin(), cells.end(),
                     [&](const std::string& c) { return c == cells[0]; });
}

// Every name of any run's facts (or, by section, of its description) with the runs' values side by
// side.
struct Comparison {
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::string>> cells;
  void set(const std::string& name, size_t run, size_t runs, const std::string& value) {
    auto [at, is_new] = cells.try_emplace(name, runs);
    if (is_new) names.push_back(name);
    at->second[run] = value;
  }
};

std::string compared_runs(const std::vector<ReportRun>& runs) {
  Comparison figures, recipe;
  std::string head = "<tr><td></td>";
  for (size_t i = 0; i < runs.size(); ++i) {
    head +=
        fmt::format("<td><i class=\"dot\" style=\"background:var(--c{})\"></i> <b>{}</b> {}</td>",
                    i % 8, html_escape(runs[i].info.name), badge(runs[i].info));
    for (const Fact& f : facts(runs[i])) figures.set(f.name, i, runs.size(), f.value);
    for (const InfoSection& s : runs[i].info.sections) {
      for (const auto& [name, value] : s.rows) {
        recipe.set(s.title + " · " + name, i, runs.size(), value);
      }
    }
  }
  head += "</tr>";
  std::string differ, equal;
  for (const std::string& name : recipe.names) {
    const auto& cells = recipe.cells[name];
    (all_same(cells) ? equal : differ) += compare_row(name, cells);
  }
  std::string out =
      fmt::format("<section class=\"card head\"><h1>{} runs compared</h1>{}", runs.size(), kWide);
  out += "<table class=\"compare\">" + head;
  for (const std::string& name : figures.names) out += compare_row(name, figures.cells[name]);
  if (!differ.empty()) out += "<tr class=\"sub\"><th>what differs</th></tr>" + differ;
  out += "</table></div>";
  if (!equal.empty()) {
    out += "<details><summary>what is the same</summary>" + std::string(kWide) +
           "<table class=\"compare\">" + head + equal + "</table></div></details>";
  }
  return out + "</section>";
}

}  // namespace

std::string html_escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string report_page(const std::vector<ReportRun>& runs, const std::string& data) {
  std::string title = runs.size() == 1 ? runs[0].info.name : fmt::format("{} runs", runs.size());
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
      "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<title>";
  out +=
      html_escape(title) + " · wels</title>\n<style>" + kReportStyle + "</style></head>\n<body>\n";
  out += "<main>\n" + (runs.size() == 1 ? one_run(runs[0]) : compared_runs(runs));
  out += "\n<noscript><p>The plots need JavaScript; the figures above do not.</p></noscript>\n";
  out += "<div id=\"plots\"></div>\n</main>\n<footer>wels " + html_escape(machine().version) +
         " · " + utc_date() + "</footer>\n";
  out += "<script type=\"application/json\" id=\"data\">" + data + "</script>\n";
  out += std::string("<script>\n'use strict';\n") + kReportCharts + kReportDashboard +
         "</script>\n</body></html>\n";
  return out;
}

}  // namespace wels
