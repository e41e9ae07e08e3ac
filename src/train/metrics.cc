#include "train/metrics.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"

namespace wels {
namespace {

using Json = nlohmann::ordered_json;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void append_string(std::string& out, const std::string& s) {
  out += Json(s).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The shortest text that reads back as v; JSON has no NaN or infinity.
void append_exact(std::string& out, double v) {
  out += std::isfinite(v) ? fmt::format("{}", v) : "null";
}

void append_rounded(std::string& out, double v) {
  out += std::isfinite(v) ? fmt::format("{:.6g}", v) : "null";
}

void append_array(std::string& out, const double* v, size_t n) {
  out += '[';
  for (size_t i = 0; i < n; ++i) {
    if (i > 0) out += ',';
    append_rounded(out, v[i]);
  }
  out += ']';
}

bool to_numbers(const Json& array, std::vector<double>* out) {
  for (const Json& v : array) {
    if (!v.is_number() && !v.is_null()) return false;
    out->push_back(v.is_null() ? kNaN : v.get<double>());
  }
  return true;
}

bool to_table(const Json& rows, MetricTable* out) {
  out->rows = static_cast<int64_t>(rows.size());
  out->cols = static_cast<int64_t>(rows[0].size());
  for (const Json& row : rows) {
    if (!row.is_array() || static_cast<int64_t>(row.size()) != out->cols) return false;
    if (!to_numbers(row, &out->values)) return false;
  }
  return true;
}

bool add_field(const std::string& name, const Json& value, StepMetrics* m) {
  if (value.is_number() || value.is_null()) {
    m->add(name, value.is_null() ? kNaN : value.get<double>());
  } else if (value.is_string()) {
    m->add_text(name, value.get<std::string>());
  } else if (value.is_array() && !value.empty() && value[0].is_array()) {
    MetricTable t;
    if (!to_table(value, &t)) return false;
    m->add(name, std::move(t));
  } else if (value.is_array()) {
    std::vector<double> v;
    if (!to_numbers(value, &v)) return false;
    m->add(name, std::move(v));
  } else {
    return false;
  }
  return true;
}

[[noreturn]] void fail(const std::string& path, const std::string& doing) {
  int err = errno;
  bool full = err == ENOSPC || err == EDQUOT;
  throw Error(path, doing + ": " + std::strerror(err),
              full ? "free some space; the run can be resumed from its last checkpoint"
                   : "check the folder's permissions");
}

// The length of what stays of a file whose lines up to keep_steps are kept.
size_t kept_bytes(std::string_view text, int64_t keep_steps, int64_t* last_step) {
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    StepMetrics m;
    if (parse_json_line(text.substr(at, end - at), &m)) {
      if (m.step > keep_steps) break;
      *last_step = m.step;
    }
    at = end + 1;
  }
  return at;
}

}  // namespace

double StepMetrics::scalar(std::string_view name) const {
  for (const auto& [n, v] : scalars) {
    if (n == name) return v;
  }
  return kNaN;
}

std::string to_json_line(const StepMetrics& m) {
  std::string out = fmt::format("{{\"step\":{}", m.step);
  auto key = [&](const std::string& name) {
    out += ',';
    append_string(out, name);
    out += ':';
  };
  for (const auto& [name, v] : m.scalars) {
    key(name);
    append_exact(out, v);
  }
  for (const auto& [name, v] : m.vectors) {
    key(name);
    append_array(out, v.data(), v.size());
  }
  for (const auto& [name, t] : m.tables) {
    CHECK(static_cast<int64_t>(t.values.size()) == t.rows * t.cols);
    if (t.rows == 0) continue;
    key(name);
    for (int64_t r = 0; r < t.rows; ++r) {
      out += r == 0 ? '[' : ',';
      append_array(out, t.values.data() + r * t.cols, static_cast<size_t>(t.cols));
    }
    out += ']';
  }
  for (const auto& [name, text] : m.texts) {
    key(name);
    append_string(out, text);
  }
  return out + '}';
}

bool parse_json_line(std::string_view line, StepMetrics* out) {
  *out = {};
  Json j = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!j.is_object()) return false;
  bool has_step = false;
  for (const auto& [name, value] : j.items()) {
    if (name == "step" && value.is_number_integer()) {
      out->step = value.get<int64_t>();
      has_step = true;
    } else if (!add_field(name, value, out)) {
      return false;
    }
  }
  return has_step;
}

void each_metrics(const std::string& path, const std::function<void(StepMetrics)>& fn,
                  int64_t* bad_lines) {
  // Read, not mapped: a run that is resumed cuts its file.
  std::ifstream in(path, std::ios::binary);
  std::error_code ec;
  if (!in) fail(path, "cannot open");
  if (!std::filesystem::is_regular_file(path, ec))
    throw Error(path, "not a regular file", "give a run folder");
  int64_t bad = 0;
  for (std::string line; std::getline(in, line);) {
    StepMetrics m;
    if (line.empty()) continue;
    if (parse_json_line(line, &m))
      fn(std::move(m));
    else
      ++bad;
  }
  if (in.bad()) fail(path, "cannot read");
  if (bad_lines) *bad_lines = bad;
}

std::vector<StepMetrics> read_metrics(const std::string& path, int64_t* bad_lines) {
  std::vector<StepMetrics> out;
  each_metrics(
      path, [&](StepMetrics m) { out.push_back(std::move(m)); }, bad_lines);
  return out;
}

MetricsWriter::MetricsWriter(const std::string& path, int64_t keep_steps) : path_(path) {
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path, "cannot open");
  if (keep_steps >= 0) {
    MappedFile old(path);
    size_ = static_cast<int64_t>(kept_bytes(old.text(), keep_steps, &last_step_));
  }
  if (::ftruncate(fd_, size_) != 0) {
    int err = errno;
    ::close(fd_);
    errno = err;
    fail(path, "cannot shorten");
  }
}

MetricsWriter::~MetricsWriter() { ::close(fd_); }

void MetricsWriter::write(const StepMetrics& m) {
  CHECK(m.step >= last_step_);
  std::string line = to_json_line(m) + '\n';
  for (size_t done = 0; done < line.size();) {
    ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int err = errno;
      if (::ftruncate(fd_, size_) != 0) err = errno;  // half a line would spoil the next one too
      errno = err;
      fail(path_, "cannot write");
    }
    done += static_cast<size_t>(n);
  }
  size_ += static_cast<int64_t>(line.size());
  last_step_ = m.step;
}

}  // namespace wels
