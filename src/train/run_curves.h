// What is drawn of a run, gathered line by line in bounded memory: of a run of millions of steps no
// more is kept than a screen shows.
//  - Scalars become means of equal runs of values with their range. Whenever there are too many
//    points, neighbours are put together.
//  - Of vectors, tables and texts every n-th is kept, and the last one. Whenever there are too
//  many,
//    every other one goes.
#pragma once
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/metrics.h"

namespace wels {

// `keep` of n positions, evenly, the last one always among them.
std::vector<size_t> pick_evenly(size_t n, size_t keep);

// Values of one name in step order. A step that comes twice counts as it was last.
class Curve {
 public:
  explicit Curve(size_t most) : most_(most) {}
  void add(int64_t step, double v);

  struct Point {
    double step = 0, mean = 0, low = 0, high = 0;  // not finite: the run of values had none that is
  };
  std::vector<Point> points() const;  // between half of `most` and `most`, or all
  bool has_ranges() const { return per_ > 1; }
  double last() const { return last_; }    // the last finite value; NaN: none
  double least() const { return least_; }  // the same

 private:
  struct Sum {
    int64_t n = 0, finite = 0;
    double steps = 0, sum = 0, low = std::numeric_limits<double>::infinity(), high = -low;
    void add(const Sum& s);
  };
  static Sum one(int64_t step, double v);
  void settle();  // the newest value is final

  size_t most_;
  int64_t per_ = 1;  // values in a whole point
  std::vector<Sum> sums_;
  std::optional<std::pair<int64_t, double>> newest_;
  double last_ = std::numeric_limits<double>::quiet_NaN(), least_ = last_;
};

// Things of one name in step order: every n-th, and the last. A step that comes twice counts as it
// was last.
template <class T>
class Kept {
 public:
  explicit Kept(size_t most) : most_(most) {}
  void add(int64_t step, T v) {
    if (!items_.empty() && items_.back().first == step) {
      items_.back().second = std::move(v);
      return;
    }
    // The newest is always there; the one before it goes if it is out of step.
    if (count_ > 0 && (count_ - 1) % stride_ != 0) items_.pop_back();
    items_.emplace_back(step, std::move(v));
    ++count_;
    if (items_.size() > most_) thin_out();
  }
  const std::vector<std::pair<int64_t, T>>& items() const { return items_; }

 private:
  void thin_out() {
    size_t n = items_.size(), kept = 0;
    for (size_t i = 0; i < n; ++i) {
      if (i % 2 != 0 && i + 1 != n) continue;
      if (i != kept) items_[kept] = std::move(items_[i]);  // one moved to itself may be lost
      ++kept;
    }
    items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(kept), items_.end());
    stride_ *= 2;
  }

  size_t most_;
  int64_t count_ = 0, stride_ = 1;
  std::vector<std::pair<int64_t, T>> items_;
};

// Things by their names, in the order of the first appearance of each.
template <class T>
class ByName {
 public:
  template <class Make>
  T& at(const std::string& name, const Make& make) {
    auto [found, is_new] = index_.try_emplace(name, all_.size());
    if (is_new) all_.emplace_back(name, make());
    return all_[found->second].second;
  }
  const T* find(const std::string& name) const {
    auto found = index_.find(name);
    return found == index_.end() ? nullptr : &all_[found->second].second;
  }
  const std::vector<std::pair<std::string, T>>& all() const { return all_; }

 private:
  std::vector<std::pair<std::string, T>> all_;
  std::map<std::string, size_t> index_;
};

// The lines of a run.
class RunCurves {
 public:
  static constexpr size_t kPoints = 1500;  // of a curve: more than a screen has columns

  explicit RunCurves(size_t points = kPoints) : points_(points) {}
  // Lines in the order of the file. A table "load" also makes a vector "load_entropy".
  void add(StepMetrics m);
  // As lines again, at most about `points` of them, in step order: of scalars the means.
  std::vector<StepMetrics> lines() const;

  const ByName<Curve>& scalars() const { return scalars_; }
  // What is shown of the others: some of their items, the last one among them.
  template <class T>
  using Items = std::vector<const std::pair<int64_t, T>*>;
  static Items<std::vector<double>> shown(const Kept<std::vector<double>>& vectors);
  static Items<MetricTable> shown(const Kept<MetricTable>& tables);
  static Items<std::string> shown(const Kept<std::string>& texts);
  const ByName<Kept<std::vector<double>>>& vectors() const { return vectors_; }
  const ByName<Kept<MetricTable>>& tables() const { return tables_; }
  const ByName<Kept<std::string>>& texts() const { return texts_; }

  // Figures; NaN where there is none.
  std::optional<int64_t> last_step() const { return last_step_; }
  double last(const std::string& scalar) const;
  double least(const std::string& scalar) const;
  // Of tokens_per_s, gflops and fraction_of_peak; of a long run that of an even part of the values.
  double median(const std::string& scalar) const;
  double last_val_bits() const { return last_val_bits_; }  // in the line of the last val_loss
  // The worst layer's MaxVio, mean of the last 50 lines.
  double last_max_violation() const;

 private:
  size_t points_;
  ByName<Curve> scalars_;
  ByName<Kept<std::vector<double>>> vectors_;
  ByName<Kept<MetricTable>> tables_;
  ByName<Kept<std::string>> texts_;
  ByName<Kept<double>> rates_;
  std::optional<int64_t> last_step_;
  double last_val_bits_ = std::numeric_limits<double>::quiet_NaN();
  std::deque<double> violations_;
};

// All of a file metrics.jsonl. Throws Error if it can't be read.
RunCurves read_run_curves(const std::string& path);

}  // namespace wels
