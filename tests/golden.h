// The golden reference data: where it is, and how results are compared with it.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/safetensors.h"

namespace wels {

inline std::string golden_folder() {
  const char* set = std::getenv("WELS_GOLDEN");
  return set ? set : "../shared/golden";
}

// The names of the cases under golden/<kind> that hold this file, sorted; empty where the data is
// absent.
inline std::vector<std::string> golden_cases(const std::string& kind,
                                             const std::string& file = "case.json") {
  std::vector<std::string> out;
  std::error_code ec;
  for (auto& entry : std::filesystem::directory_iterator(golden_folder() + "/" + kind, ec)) {
    if (std::filesystem::exists(entry.path() / file))
      out.push_back(entry.path().filename().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

// The paths of the data files of golden/<kind> (.json, but for case.json), sorted.
inline std::vector<std::string> golden_json_files(const std::string& kind) {
  std::vector<std::string> out;
  std::error_code ec;
  for (auto& entry : std::filesystem::directory_iterator(golden_folder() + "/" + kind, ec)) {
    if (entry.path().extension() == ".json" && entry.path().filename() != "case.json")
      out.push_back(entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

#define SKIP_WITHOUT_GOLDEN()                    \
  if (!std::filesystem::exists(golden_folder())) \
  GTEST_SKIP() << "no golden data in " << golden_folder() << "; set WELS_GOLDEN to its folder"
#define SKIP_WITHOUT_CASES(cases, what) \
  if ((cases).empty())                  \
  GTEST_SKIP() << "no " << (what) << " in " << golden_folder() << "; set WELS_GOLDEN to its folder"

// The number that stands behind `mark` in what a case.json says in words, or the value itself where
// it is a number; `otherwise` where there is none.
inline double number_after(const nlohmann::json& text, const std::string& mark, double otherwise) {
  if (text.is_number()) return text.get<double>();
  if (!text.is_string()) return otherwise;
  auto s = text.get<std::string>();
  size_t at = s.find(mark);
  if (at == std::string::npos) return otherwise;
  char* end = nullptr;
  const char* begin = s.c_str() + at + mark.size();
  double value = std::strtod(begin, &end);
  return end == begin ? otherwise : value;
}

inline nlohmann::json read_json(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  return nlohmann::json::parse(in);
}

// An f32 or i32 tensor as doubles.
inline std::vector<double> values(const TensorEntry& e) {
  std::vector<double> out(static_cast<size_t>(e.elements()));
  for (size_t i = 0; i < out.size(); ++i) {
    if (e.dtype == DType::kI32) {
      int32_t x;
      std::memcpy(&x, e.data.data() + 4 * i, 4);
      out[i] = x;
    } else {
      float x;
      std::memcpy(&x, e.data.data() + 4 * i, 4);
      out[i] = static_cast<double>(x);
    }
  }
  return out;
}

// A contiguous f32, f64 or bf16 tensor as doubles.
inline std::vector<double> values(const Tensor& t) {
  std::vector<double> out;
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = 0; c < t.cols; ++c) {
      out.push_back(t.dtype == DType::kF64   ? t.row<double>(r)[c]
                    : t.dtype == DType::kF32 ? static_cast<double>(t.row<float>(r)[c])
                                             : static_cast<double>(to_float(t.row<bf16>(r)[c])));
    }
  }
  return out;
}

inline double max_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    double d = std::fabs(a[i] - b[i]);
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}

inline double l2_norm(const std::vector<double>& a) {
  double sum = 0;
  for (double x : a) sum += x * x;
  return std::sqrt(sum);
}

inline double standard_deviation(const std::vector<double>& a) {
  double mean = 0, sum = 0;
  for (double x : a) mean += x / static_cast<double>(a.size());
  for (double x : a) sum += (x - mean) * (x - mean);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

}  // namespace wels
