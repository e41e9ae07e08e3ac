// Calibration: a model run over text to learn which columns of its weights matter, for
// quantisation. Sequences run without a KV cache, so that MLA is in its expanded form and kv_b sees
// its latent; the queries that its keys' half is multiplied by when absorbed are looked at on the
// way.
#pragma once
#include <span>

#include "engine/input_squares_device.h"
#include "formats/gguf_export.h"
#include "model/model.h"

namespace wels {

class Calibration {
 public:
  // Device and model must outlive this object. with_mtp: the MTP modules run too.
  Calibration(Device& dev, Model& model, DType dtype, bool with_mtp);

  // Runs one sequence of at least two tokens. Throws Error where log-probabilities are not finite.
  void add(std::span<const int32_t> ids);

  int64_t tokens() const { return tokens_; }  // predicted so far
  double nats_per_token() const { return nats_ / static_cast<double>(tokens_); }

  // Mean squares by the weights' names. An expert's are drawn towards those of all the experts of
  // its layer as if it had seen kPriorRows more rows of their mean, so that one that saw few rows,
  // or none, is not fitted to them alone.
  static constexpr double kPriorRows = 32;
  ColumnImportance importance() const;

 private:
  Model& model_;
  InputSquaresDevice dev_;
  Pool pool_;
  DType dtype_;
  bool with_mtp_;
  int64_t tokens_ = 0;
  double nats_ = 0;
  std::map<int64_t, std::vector<double>> queries_;  // sums of squares by block, [heads · dk]
};

}  // namespace wels
