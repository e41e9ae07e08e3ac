#include "train/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "train/metrics.h"
#include "train/report_page.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxPoints = 1500;    // of a curve: more than a screen has columns
constexpr size_t kMaxSnapshots = 240;  // of a vector over time
constexpr size_t kMaxCells = 400'000;  // of a table over time: about 2 MB of text
constexpr size_t kMaxTexts = 60;

// Values of one name in step order. A step that comes twice counts as it was last.
template <class T>
struct Series {
  std::vector<int64_t> steps;
  std::vector<T> values;
  void add(int64_t step, T v) {
    if (!steps.empty() && steps.back() == step) {
      values.back() = std::move(v);
    } else {
      steps.push_back(step);
      values.push_back(std::move(v));
    }
  }
};

// The names in the order of their first appearance, with their series.
template <class T>
struct SeriesByName {
  std::vector<std::pair<std::string, Series<T>>> all;
  std::map<std::string, size_t> index;
  void add(const std::string& name, int64_t step, T v) {
    auto [at, is_new] = index.try_emplace(name, all.size());
    if (is_new) all.emplace_back(name, Series<T>{});
    all[at->second].second.add(step, std::move(v));
  }
};

// `keep` of n positions, evenly, the last one always among them.
std::vector<size_t> pick(size_t n, size_t keep) {
  keep = std::max<size_t>(std::min(n, keep), n > 0 ? 1 : 0);
  std::vector<size_t> out;
  for (size_t i = 1; i <= keep; ++i) out.push_back(i * n / keep - 1);
  return out;
}

void put_number(std::string& out, double v, int digits) {
  out += std::isfinite(v) ? fmt::format("{:.{}g}", v, digits) : "null";
}

template <class T, class Put>
void put_list(std::string& out, const T& items, Put put) {
  out += '[';
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += ',';
    first = false;
    put(item);
  }
  out += ']';
}

void put_string(std::string& out, const std::string& s) {
  out += Json(s).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Means of equal runs of points, and if there are several in each their least and greatest.
void put_scalar(std::string& out, const Series<double>& s) {
  size_t n = s.steps.size(), group = (n + kMaxPoints - 1) / kMaxPoints;
  std::vector<double> x, mean, low, high;
  for (size_t at = 0; at < n; at += group) {
    size_t end = std::min(at + group, n), counted = 0;
    double sum = 0, step_sum = 0, lo = INFINITY, hi = -INFINITY;
    for (size_t i = at; i < end; ++i) {
      step_sum += static_cast<double>(s.steps[i]);
      if (!std::isfinite(s.values[i])) continue;
      sum += s.values[i];
      lo = std::min(lo, s.values[i]);
      hi = std::max(hi, s.values[i]);
      ++counted;
    }
    // A gap stays a gap only where the group has nothing to show.
    x.push_back(std::round(step_sum / static_cast<double>(end - at)));
    mean.push_back(counted ? sum / static_cast<double>(counted) : NAN);
    low.push_back(lo);
    high.push_back(hi);
  }
  auto list = [&](const char* key, const std::vector<double>& v, int digits) {
    out += key;
    put_list(out, v, [&](double value) { put_number(out, value, digits); });
  };
  list("{\"x\":", x, 12);
  list(",\"y\":", mean, 7);
  if (group > 1) {
    list(",\"lo\":", low, 5);
    list(",\"hi\":", high, 5);
  }
  out += '}';
}

void put_vector(std::string& out, const Series<std::vector<double>>& s) {
  std::vector<size_t> chosen = pick(s.steps.size(), kMaxSnapshots);
  out += "{\"x\":";
  put_list(out, chosen, [&](size_t i) { out += std::to_string(s.steps[i]); });
  out += ",\"v\":";
  put_list(out, chosen,
           [&](size_t i) { put_list(out, s.values[i], [&](double v) { put_number(out, v, 5); }); });
  out += '}';
}

// Tables may change their shape only by a mistake of who wrote them: the last one's shape is drawn,
// others are left out.
void put_table(std::string& out, const Series<MetricTable>& s) {
  const MetricTable& last = s.values.back();
  Series<const MetricTable*> same;
  for (size_t i = 0; i < s.steps.size(); ++i) {
    if (s.values[i].rows == last.rows && s.values[i].cols == last.cols)
      same.add(s.steps[i], &s.values[i]);
  }
  size_t cells = std::max<size_t>(last.values.size(), 1);
  auto chosen =
      pick(same.steps.size(), std::min(std::max<size_t>(kMaxCells / cells, 8), kMaxSnapshots));
  out += fmt::format("{{\"rows\":{},\"cols\":{},\"x\":", last.rows, last.cols);
  put_list(out, chosen, [&](size_t i) { out += std::to_string(same.steps[i]); });
  out += ",\"v\":";
  put_list(out, chosen, [&](size_t i) {
    put_list(out, same.values[i]->values, [&](double v) { put_number(out, v, 3); });
  });
  out += '}';
}

void put_texts(std::string& out, const Series<std::string>& s) {
  put_list(out, pick(s.steps.size(), kMaxTexts), [&](size_t i) {
    out += fmt::format("[{},", s.steps[i]);
    put_string(out, s.values[i]);
    out += ']';
  });
}

template <class T, class Put>
void put_named(std::string& out, const char* key, const SeriesByName<T>& named, Put put) {
  out += fmt::format(",\"{}\":{{", key);
  for (size_t i = 0; i < named.all.size(); ++i) {
    if (i > 0) out += ',';
    put_string(out, named.all[i].first);
    out += ':';
    put(out, named.all[i].second);
  }
  out += '}';
}

void put_run(std::string& out, const ReportRun& run) {
  SeriesByName<double> scalars;
  SeriesByName<std::vector<double>> vectors;
  SeriesByName<MetricTable> tables;
  SeriesByName<std::string> texts;
  for (const StepMetrics& m : run.lines) {
    for (const auto& [name, v] : m.scalars) scalars.add(name, m.step, v);
    for (const auto& [name, v] : m.vectors) vectors.add(name, m.step, v);
    for (const auto& [name, v] : m.tables) tables.add(name, m.step, v);
    for (const auto& [name, v] : m.texts) texts.add(name, m.step, v);
  }
  out += "{\"name\":";
  put_string(out, run.info.name);
  out += ",\"status\":";
  put_string(out, run.info.status);
  out += fmt::format(",\"total_steps\":{}", run.info.total_steps);
  put_named(out, "scalars", scalars, put_scalar);
  put_named(out, "vectors", vectors, put_vector);
  put_named(out, "tables", tables, put_table);
  put_named(out, "texts", texts, put_texts);
  out += '}';
}

// Runs of a comparison need names that differ; folders' names do better than nothing.
void make_names_unique(std::vector<ReportRun>& runs) {
  std::map<std::string, int> seen;
  for (ReportRun& run : runs) {
    int count = ++seen[run.info.name];
    if (count > 1) run.info.name += fmt::format(" ({})", count);
  }
}

}  // namespace

void write_run_info(const std::string& folder, const RunInfo& info) {
  Json j;
  j["name"] = info.name;
  j["status"] = info.status;
  j["started"] = info.started;
  j["updated"] = info.updated;
  j["total_steps"] = info.total_steps;
  j["sections"] = Json::array();
  for (const InfoSection& s : info.sections) {
    Json rows = Json::array();
    for (const auto& [name, value] : s.rows) rows.push_back({name, value});
    j["sections"].push_back({{"title", s.title}, {"rows", rows}});
  }
  write_file_atomic(folder + "/run.json",
                    j.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

RunInfo read_run_info(const std::string& folder) {
  RunInfo info;
  info.name = folder_name(folder);
  std::string path = folder + "/run.json";
  if (!std::filesystem::exists(path)) {
    info.status = "";
    return info;
  }
  try {
    Json j = Json::parse(read_file(path));
    info.name = j.at("name").get<std::string>();
    info.status = j.at("status").get<std::string>();
    info.started = j.at("started").get<double>();
    info.updated = j.at("updated").get<double>();
    info.total_steps = j.at("total_steps").get<int64_t>();
    for (const Json& s : j.at("sections")) {
      InfoSection section{s.at("title").get<std::string>(), {}};
      for (const Json& row : s.at("rows")) {
        section.rows.emplace_back(row.at(0).get<std::string>(), row.at(1).get<std::string>());
      }
      info.sections.push_back(std::move(section));
    }
  } catch (const Json::exception& e) {
    throw Error(path, fmt::format("not a run's description: {}", e.what()),
                "remove the file to do without it");
  }
  return info;
}

InfoSection machine_section(const Machine& m, int threads, double peak_gflops) {
  InfoSection s{"Machine", {}};
  s.rows = {{"processor", m.cpu},
            {"instruction sets", m.instruction_sets},
            {"threads", fmt::format("{} of {} CPUs", threads, m.cpus)},
            {"memory", human_bytes(static_cast<double>(m.memory_total_bytes))}};
  if (peak_gflops > 0)
    s.rows.emplace_back("measured peak of products", human_count(peak_gflops * 1e9) + "FLOP/s");
  s.rows.emplace_back("system", m.system);
  s.rows.emplace_back("compiler", m.compiler);
  s.rows.emplace_back("wels", m.version);
  return s;
}

std::string report_data(const std::vector<ReportRun>& runs) {
  std::string out = "{\"runs\":";
  put_list(out, runs, [&](const ReportRun& run) { put_run(out, run); });
  out += '}';
  // "</script>" or "<!--" in a sample would end the script element; \u003c is the same to JSON.
  std::string safe;
  safe.reserve(out.size());
  for (char c : out) c == '<' ? safe += "\\u003c" : safe += c;
  return safe;
}

void write_report(const std::string& out, const std::vector<std::string>& folders) {
  if (folders.empty()) throw Error("report", "no run folder given", "name at least one");
  std::vector<ReportRun> runs;
  for (const std::string& folder : folders) {
    runs.push_back({read_run_info(folder), read_metrics(folder + "/metrics.jsonl")});
  }
  make_names_unique(runs);
  write_file_atomic(out, report_page(runs, report_data(runs)));
}

}  // namespace wels
