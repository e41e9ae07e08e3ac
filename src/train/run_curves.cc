#include "train/run_curves.h"

#include <algorithm>
#include <cmath>

#include "base/median.h"

namespace wels {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kSnapshots = 240;  // of a vector over time
constexpr size_t kCells = 400'000;  // of a table over time: about 2 MB of text
constexpr size_t kTexts = 60;
constexpr size_t kRates = 8192;       // values that a median is taken of
constexpr size_t kBalanceLines = 50;  // whose MaxVio is averaged
constexpr const char* kLoadEntropy = "load_entropy";

size_t table_snapshots(const MetricTable& t) {
  size_t cells = std::max<size_t>(t.values.size(), 1);
  return std::min(std::max<size_t>(kCells / cells, 8), kSnapshots);
}

template <class T>
RunCurves::Items<T> pick_items(const std::vector<std::pair<int64_t, T>>& all, size_t keep) {
  RunCurves::Items<T> out;
  for (size_t i : pick_evenly(all.size(), keep)) out.push_back(&all[i]);
  return out;
}

// The greatest that is finite; NaN: none.
double greatest(const std::vector<double>& v) {
  double most = kNaN;
  for (double x : v) {
    if (std::isfinite(x) && !(x <= most)) most = x;
  }
  return most;
}

// Of each layer the entropy of how its tokens are spread over the experts, in parts of the greatest
// possible (all alike): 1 even, 0 one expert alone.
std::vector<double> load_entropy(const MetricTable& load) {
  std::vector<double> out;
  for (int64_t r = 0; r < load.rows; ++r) {
    const double* row = load.values.data() + r * load.cols;
    double sum = 0, h = 0;
    for (int64_t e = 0; e < load.cols; ++e) sum += row[e];
    for (int64_t e = 0; e < load.cols; ++e) {
      double p = row[e] / sum;
      if (p != 0) h -= p * std::log(p);
    }
    out.push_back(h / std::log(static_cast<double>(load.cols)));
  }
  return out;
}

bool is_rate(const std::string& name) {
  return name == metric::kTokensPerS || name == metric::kGflops || name == metric::kFractionOfPeak;
}

}  // namespace

std::vector<size_t> pick_evenly(size_t n, size_t keep) {
  keep = std::max<size_t>(std::min(n, keep), n > 0 ? 1 : 0);
  std::vector<size_t> out;
  for (size_t i = 1; i <= keep; ++i) out.push_back(i * n / keep - 1);
  return out;
}

void Curve::Sum::add(const Sum& s) {
  n += s.n;
  finite += s.finite;
  steps += s.steps;
  sum += s.sum;
  low = std::min(low, s.low);
  high = std::max(high, s.high);
}

Curve::Sum Curve::one(int64_t step, double v) {
  Sum s;
  s.n = 1;
  s.steps = static_cast<double>(step);
  if (!std::isfinite(v)) return s;
  s.finite = 1;
  s.sum = s.low = s.high = v;
  return s;
}

void Curve::settle() {
  if (sums_.empty() || sums_.back().n == per_) sums_.emplace_back();
  sums_.back().add(one(newest_->first, newest_->second));
  if (sums_.size() < most_ || sums_.back().n < per_) return;
  size_t kept = 0;
  for (size_t i = 0; i < sums_.size(); i += 2) {
    Sum both = sums_[i];
    if (i + 1 < sums_.size()) both.add(sums_[i + 1]);
    sums_[kept++] = both;
  }
  sums_.resize(kept);
  per_ *= 2;
}

void Curve::add(int64_t step, double v) {
  if (newest_ && newest_->first != step) settle();
  newest_ = {step, v};
  if (!std::isfinite(v)) return;
  last_ = v;
  if (!(v >= least_)) least_ = v;
}

std::vector<Curve::Point> Curve::points() const {
  std::vector<Sum> all = sums_;
  if (newest_) {
    if (all.empty() || all.back().n == per_) all.emplace_back();
    all.back().add(one(newest_->first, newest_->second));
  }
  std::vector<Point> out;
  for (const Sum& s : all) {
    // A gap stays a gap only where the values have nothing to show.
    double mean = s.finite > 0 ? s.sum / static_cast<double>(s.finite) : kNaN;
    out.push_back({std::round(s.steps / static_cast<double>(s.n)), mean, s.low, s.high});
  }
  return out;
}

void RunCurves::add(StepMetrics m) {
  last_step_ = m.step;
  for (const auto& [name, v] : m.scalars) {
    scalars_.at(name, [&] { return Curve(points_); }).add(m.step, v);
    if (is_rate(name) && std::isfinite(v))
      rates_.at(name, [] { return Kept<double>(kRates); }).add(m.step, v);
  }
  if (std::isfinite(m.scalar(metric::kValLoss))) last_val_bits_ = m.scalar(metric::kValBitsPerByte);
  double violation = kNaN;
  for (const auto& [name, v] : m.vectors) {
    if (name == metric::kMaxVio) violation = greatest(v);
  }
  violations_.push_back(violation);
  if (violations_.size() > kBalanceLines) violations_.pop_front();
  for (const auto& [name, t] : m.tables) {
    if (name == metric::kLoad && t.cols > 1) m.add(kLoadEntropy, load_entropy(t));
  }
  for (auto& [name, v] : m.vectors)
    vectors_.at(name, [] { return Kept<std::vector<double>>(2 * kSnapshots); })
        .add(m.step, std::move(v));
  for (auto& [name, t] : m.tables) {
    auto fresh = [&t = t] { return Kept<MetricTable>(2 * table_snapshots(t)); };
    Kept<MetricTable>& kept = tables_.at(name, fresh);
    // Tables change their shape only by a mistake of who wrote them: the last one's shape is drawn.
    if (!kept.items().empty()) {
      const MetricTable& last = kept.items().back().second;
      if (last.rows != t.rows || last.cols != t.cols) kept = fresh();
    }
    kept.add(m.step, std::move(t));
  }
  for (auto& [name, text] : m.texts)
    texts_.at(name, [] { return Kept<std::string>(2 * kTexts); }).add(m.step, std::move(text));
}

RunCurves::Items<std::vector<double>> RunCurves::shown(const Kept<std::vector<double>>& vectors) {
  return pick_items(vectors.items(), kSnapshots);
}
RunCurves::Items<MetricTable> RunCurves::shown(const Kept<MetricTable>& tables) {
  return pick_items(tables.items(), table_snapshots(tables.items().back().second));
}
RunCurves::Items<std::string> RunCurves::shown(const Kept<std::string>& texts) {
  return pick_items(texts.items(), kTexts);
}

std::vector<StepMetrics> RunCurves::lines() const {
  std::map<int64_t, StepMetrics> by_step;
  auto at = [&](int64_t step) -> StepMetrics& {
    StepMetrics& m = by_step[step];
    m.step = step;
    return m;
  };
  for (const auto& [name, curve] : scalars_.all()) {
    for (const Curve::Point& p : curve.points()) at(static_cast<int64_t>(p.step)).add(name, p.mean);
  }
  for (const auto& [name, kept] : vectors_.all()) {
    for (const auto* v : shown(kept)) at(v->first).add(name, v->second);
  }
  for (const auto& [name, kept] : tables_.all()) {
    for (const auto* t : shown(kept)) at(t->first).add(name, t->second);
  }
  for (const auto& [name, kept] : texts_.all()) {
    for (const auto* t : shown(kept)) at(t->first).add_text(name, t->second);
  }
  std::vector<StepMetrics> out;
  for (auto& [step, m] : by_step) out.push_back(std::move(m));
  return out;
}

double RunCurves::last(const std::string& scalar) const {
  const Curve* c = scalars_.find(scalar);
  return c ? c->last() : kNaN;
}

double RunCurves::least(const std::string& scalar) const {
  const Curve* c = scalars_.find(scalar);
  return c ? c->least() : kNaN;
}

double RunCurves::median(const std::string& scalar) const {
  const Kept<double>* kept = rates_.find(scalar);
  if (!kept) return kNaN;
  std::vector<double> values;
  for (const auto& [step, v] : kept->items()) values.push_back(v);
  return wels::median(std::move(values));
}

double RunCurves::last_max_violation() const {
  double sum = 0;
  int64_t n = 0;
  for (double v : violations_) {
    if (!std::isfinite(v)) continue;
    sum += v;
    ++n;
  }
  return n > 0 ? sum / static_cast<double>(n) : kNaN;
}

RunCurves read_run_curves(const std::string& path) {
  RunCurves out;
  each_metrics(path, [&](StepMetrics m) { out.add(std::move(m)); });
  return out;
}

}  // namespace wels
