// The harness that holds every device against RefDevice<double>, for every op. An op's case is one
// function that makes its arguments through an OpRun and calls the op; it is run on the oracle and
// on the device under test, and what it wrote is compared. A case never says which device or
// activation dtype it runs on, so a new device, kernel or dtype is tested unasked.
//
// Arguments depend on nothing but their name and row number, and are rounded to the tested dtype
// first: oracle and device see the same numbers. Outputs start as NaN (an element that nobody wrote
// is found), and what lies between the rows of a strided tensor must stay untouched.
#pragma once
#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/device.h"

namespace wels {

// How far a result may be from the oracle's: one rounding to its dtype, plus `sums` units of f32's
// 2^-24 and, where the activations are bf16, `mids` units of bf16's 2^-8 (for kernels that keep an
// intermediate in bf16), both times the largest magnitude in the row, the rms of the tensor, or
// `terms`: the size of what cancels in the op's sums, whichever is largest.
struct Within {
  double sums = 32;
  double mids = 0;
  double terms = 0;
};

struct Output {
  std::string name;
  Tensor t;
  Within within;
  bool by_row;  // row i belongs to row i of the call
};

// kOwn: f32 masters (f64 on the oracle). kBlocks + i: the block type DType::kQ4_0 + i.
enum class Storage { kOwn, kF32, kBF16, kF16, kFp8, kBlocks };
inline constexpr int kBlockTypes = static_cast<int>(DType::kCount) - static_cast<int>(DType::kQ4_0);
// How checkpoints have weights: every type but kOwn.
inline constexpr auto kStored = [] {
  std::array<Storage, static_cast<size_t>(kBlockTypes) + 4> out{};
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<Storage>(i + 1);
  return out;
}();
// For products whose every block type is compared bit for bit elsewhere (cpu/quant_test.cc).
inline constexpr Storage kSomeStored[] = {
    Storage::kF32,
    Storage::kBF16,
    Storage::kF16,
    Storage::kFp8,
    static_cast<Storage>(static_cast<int>(Storage::kBlocks) + 4),   // Q8_0
    static_cast<Storage>(static_cast<int>(Storage::kBlocks) + 5)};  // Q2_K
// The block type of KV caches.
inline constexpr Storage kQ8 =
    static_cast<Storage>(static_cast<int>(Storage::kBlocks) + static_cast<int>(DType::kQ8_0) -
                         static_cast<int>(DType::kQ4_0));
constexpr DType block_type(Storage s) {
  return static_cast<DType>(static_cast<int>(DType::kQ4_0) + static_cast<int>(s) -
                            static_cast<int>(Storage::kBlocks));
}

struct RunOptions {
  DType dtype = DType::kF32;  // of activations: f32 or bf16
  bool oracle =
      false;  // store activations, statistics and gradients as f64, still rounded to dtype
  bool strided = false;         // rows further apart than they are wide, at odd addresses
  std::vector<int64_t> only{};  // of the case's rows, these (empty and all = false: none)
  bool all = true;
};

class OpRun {
 public:
  OpRun(Device& device, RunOptions options) : dev(device), options_(std::move(options)) {}
  Device& dev;

  DType dtype() const { return options_.dtype; }
  bool oracle() const { return options_.oracle; }
  DType t() const { return options_.oracle ? DType::kF64 : options_.dtype; }  // activations
  DType f32() const {
    return options_.oracle ? DType::kF64 : DType::kF32;
  }  // statistics, gradients of parameters

  // The rows of this call, out of the `count` rows that the case has.
  const std::vector<int64_t>& rows(int64_t count);
  int64_t n(int64_t count) { return static_cast<int64_t>(rows(count).size()); }

  // Normal random numbers times `scale`. by row: the rows of `rows(count)`; plain: all rows
  // whatever the call's rows are.
  Tensor input_rows(const std::string& name, int64_t count, int64_t cols, double scale = 1);
  Tensor input(const std::string& name, int64_t rows, int64_t cols, double scale = 1);
  Tensor input_f32_rows(const std::string& name, int64_t count, int64_t cols, double scale = 1);
  Tensor input_f32(const std::string& name, int64_t rows, int64_t cols, double scale = 1);
  // Given values, row after row.
  Tensor given(const std::vector<double>& values, int64_t rows, int64_t cols, DType dtype);
  Tensor index(const std::vector<int32_t>& values, int64_t rows, int64_t cols);
  Tensor index_row(const std::vector<int32_t>& values) {
    return index(values, 1, static_cast<int64_t>(values.size()));
  }

  // Filled with NaN (-77 for i32) and compared after the call.
  Tensor output_rows(const std::string& name, int64_t count, int64_t cols, Within within = {});
  Tensor output(const std::string& name, int64_t rows, int64_t cols, Within within = {});
  Tensor output_f32_rows(const std::string& name, int64_t count, int64_t cols, Within within = {});
  Tensor output_f32(const std::string& name, int64_t rows, int64_t cols, Within within = {});
  Tensor output_index(const std::string& name, int64_t rows, int64_t cols, bool by_row = false);
  // A tensor made as an input that the op also writes.
  void compare(const std::string& name, const Tensor& t, Within within = {}, bool by_row = false);
  void number(const std::string& name, double value, Within within = {});

  // A weight of random values times `scale`. Masters are rounded to bf16 where the activations are
  // (a fast device computes with the rounded ones), but not if full_precision.
  Weight& weight(const std::string& name, int64_t rows, int64_t cols, double scale = 1,
                 int64_t experts = 1, Storage storage = Storage::kOwn, bool full_precision = false);

  const std::vector<Output>& outputs() const { return outputs_; }
  bool intact() const;  // nothing was written between rows

 private:
  struct Buffer {
    std::vector<uint8_t> bytes, before;
    Tensor t;
  };
  Tensor make(DType dtype, int64_t rows, int64_t cols);
  Tensor random(const std::string& name, const std::vector<int64_t>& rows, int64_t cols,
                double scale, DType stored, DType rounded);
  Tensor poisoned(const std::string& name, DType dtype, int64_t rows, int64_t cols, Within within,
                  bool by_row);
  static std::vector<int64_t> count_up(int64_t n);

  RunOptions options_;
  std::vector<int64_t> rows_;
  std::deque<Buffer> buffers_;
  std::deque<Weight> weights_;
  std::vector<Output> outputs_;
};

// Elements of f64, f32, bf16 and i32 tensors.
double element(const Tensor& t, int64_t r, int64_t c);
void set_element(const Tensor& t, int64_t r, int64_t c, double value);

// "" if `got` is within its bounds of `want`; else what is wrong where. dtype: the activations' of
// the run.
std::string difference(const Output& got, const Output& want, DType dtype);
// "" if row `row_a` of a and row `row_b` of b have the same bits.
std::string bit_difference(const Output& a, int64_t row_a, const Output& b, int64_t row_b);

struct OpCase {
  std::string op;       // a test's name: letters, digits, _
  int64_t rows = 0;     // of the call, where `by_row`
  bool by_row = false;  // a row's bits must not depend on the other rows
  std::function<void(OpRun&)> call;
};

// One list per family of ops (rows_ops.cc, matmul_ops.cc, attend_ops.cc, moe_ops.cc).
std::vector<OpCase> row_ops();
std::vector<OpCase> matmul_ops();
std::vector<OpCase> attend_ops();
std::vector<OpCase> moe_ops();
std::vector<OpCase> all_ops();

// Numbers of rows that every op is tried with: none, one, and around the sizes of vectors and
// tiles.
inline constexpr int64_t kRowCounts[] = {0, 1, 3, 16, 17, 33, 65};

}  // namespace wels
