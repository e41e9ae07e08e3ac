#include "train/report.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/path_names.h"
#include "base/progress.h"
#include "train/report_page.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;

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

void put_scalar(std::string& out, const Curve& curve) {
  std::vector<Curve::Point> points = curve.points();
  auto list = [&](const char* key, double Curve::Point::*part, int digits) {
    out += key;
    put_list(out, points, [&](const Curve::Point& p) { put_number(out, p.*part, digits); });
  };
  list("{\"x\":", &Curve::Point::step, 12);
  list(",\"y\":", &Curve::Point::mean, 7);
  if (curve.has_ranges()) {
    list(",\"lo\":", &Curve::Point::low, 5);
    list(",\"hi\":", &Curve::Point::high, 5);
  }
  out += '}';
}

template <class T>
void put_steps(std::string& out, const RunCurves::Items<T>& items) {
  put_list(out, items, [&](const auto* item) { out += std::to_string(item->first); });
}

void put_values(std::string& out, const std::vector<double>& values, int digits) {
  put_list(out, values, [&](double v) { put_number(out, v, digits); });
}

void put_vector(std::string& out, const Kept<std::vector<double>>& kept) {
  auto items = RunCurves::shown(kept);
  out += "{\"x\":";
  put_steps(out, items);
  out += ",\"v\":";
  put_list(out, items, [&](const auto* item) { put_values(out, item->second, 5); });
  out += '}';
}

void put_table(std::string& out, const Kept<MetricTable>& kept) {
  auto items = RunCurves::shown(kept);
  const MetricTable& last = items.back()->second;
  out += fmt::format("{{\"rows\":{},\"cols\":{},\"x\":", last.rows, last.cols);
  put_steps(out, items);
  out += ",\"v\":";
  put_list(out, items, [&](const auto* item) { put_values(out, item->second.values, 3); });
  out += '}';
}

void put_texts(std::string& out, const Kept<std::string>& kept) {
  put_list(out, RunCurves::shown(kept), [&](const auto* item) {
    out += fmt::format("[{},", item->first);
    put_string(out, item->second);
    out += ']';
  });
}

template <class T, class Put>
void put_named(std::string& out, const char* key, const ByName<T>& named, Put put) {
  out += fmt::format(",\"{}\":{{", key);
  bool first = true;
  for (const auto& [name, values] : named.all()) {
    if (!first) out += ',';
    first = false;
    put_string(out, name);
    out += ':';
    put(out, values);
  }
  out += '}';
}

void put_run(std::string& out, const ReportRun& run) {
  out += "{\"name\":";
  put_string(out, run.info.name);
  out += ",\"status\":";
  put_string(out, run.info.status);
  out += fmt::format(",\"total_steps\":{}", run.info.total_steps);
  put_named(out, "scalars", run.curves.scalars(), put_scalar);
  put_named(out, "vectors", run.curves.vectors(), put_vector);
  put_named(out, "tables", run.curves.tables(), put_table);
  put_named(out, "texts", run.curves.texts(), put_texts);
  out += '}';
}

// Runs of a comparison need names that differ: those of one name are called by their folders. One
// folder that is there twice gets a number.
void make_names_unique(std::vector<ReportRun>& runs, const std::vector<std::string>& folders) {
  std::map<std::string, int> before, seen;
  for (const ReportRun& run : runs) ++before[run.info.name];
  std::vector<std::string> tails = distinct_tails(folders);
  for (size_t i = 0; i < runs.size(); ++i) {
    std::string& name = runs[i].info.name;
    if (before[name] > 1) name = tails[i];
    int count = ++seen[name];
    if (count > 1) name += fmt::format(" ({})", count);
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

std::string write_report(const std::string& out, const std::vector<std::string>& folders,
                         const std::function<bool(const std::string&)>& is_running) {
  if (folders.empty()) throw Error("report", "no run folder given", "name at least one");
  if (std::filesystem::is_directory(out))
    throw Error(out, "is a folder", "name the file to write: " + out + "/report.html");
  std::vector<ReportRun> runs;
  for (const std::string& folder : folders) {
    runs.push_back({read_run_info(folder), read_run_curves(folder + "/metrics.jsonl")});
    std::string& status = runs.back().info.status;
    if (status == "running" && is_running && !is_running(folder)) status = "stopped";
  }
  make_names_unique(runs, folders);
  write_file_atomic(out, report_page(runs, report_data(runs)));
  return report_table(runs);
}

}  // namespace wels
