#include "engine/calibration.h"

#include <charconv>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace wels {
namespace {

// The block that "layer12.query" names; -1: something else.
int64_t block_of_query(const std::string& name) {
  if (!name.starts_with("layer") || !name.ends_with(".query")) return -1;
  int64_t block = -1;
  std::from_chars(name.data() + 5, name.data() + name.size(), block);
  return block;
}

std::vector<float> mean(const double* sums, int64_t cols, double rows, const double* prior,
                        double prior_rows) {
  std::vector<float> out(static_cast<size_t>(cols));
  for (int64_t c = 0; c < cols; ++c) {
    double sum = sums[c] + (prior ? prior[c] * prior_rows : 0);
    out[static_cast<size_t>(c)] = static_cast<float>(sum / (rows + (prior ? prior_rows : 0)));
  }
  return out;
}

}  // namespace

Calibration::Calibration(Device& dev, Model& model, DType dtype, bool with_mtp)
    : model_(model),
      dev_(dev),
      dtype_(dtype),
      with_mtp_(with_mtp && model.config().num_nextn_predict_layers > 0) {}

void Calibration::add(std::span<const int32_t> ids) {
  CHECK(ids.size() >= 2u);
  const ModelConfig& c = model_.config();
  int64_t n = static_cast<int64_t>(ids.size()) - 1;
  Batch batch;
  batch.append(ids.first(static_cast<size_t>(n)));
  Ctx ctx{.dev = dev_, .pool = pool_, .tape = nullptr, .dtype = dtype_};
  ForwardOptions options;
  options.observe = [&](const std::string& name, const Var& v) {
    int64_t block = block_of_query(name);
    if (block < 0) return;
    std::vector<double>& sums = queries_[block];
    sums.resize(static_cast<size_t>(v.t.cols));
    dev_.add_squares(v.t, sums.data());
  };
  Var stream, h = model_.hidden(ctx, batch, options, nullptr, &stream);
  Var logp = token_logp(ctx, h, model_.head(), ctx.make_ids(ids.data() + 1, n));
  std::vector<float> values(static_cast<size_t>(n));
  dev_.download(logp.t, values.data());
  for (float v : values) nats_ -= static_cast<double>(v);
  tokens_ += n;
  if (!std::isfinite(nats_))
    throw Error("calibration", "the model gives log-probabilities that are not finite",
                "its weights are damaged");
  Var previous = c.mtp_hidden_after_norm ? h : stream;
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  for (int64_t k = 0; with_mtp_ && k < c.num_nextn_predict_layers && k + 1 < n; ++k) {
    Model::MtpOut out = model_.mtp(ctx, k, previous, rows, batch, options);
    previous = c.mtp_hidden_after_norm ? out.hidden : out.stream;
    rows = out.rows;
  }
}

ColumnImportance Calibration::importance() const {
  ColumnImportance out;
  const ModelConfig& c = model_.config();
  visit_weights(c, model_.weights(), [&](Weight& w, const WeightSpec& s) {
    const InputSquaresDevice::Squares* squares = dev_.find(w);
    if (!squares) return;
    std::vector<double> all(static_cast<size_t>(s.cols));
    double rows = 0;
    for (int64_t e = 0; e < s.experts; ++e) {
      rows += static_cast<double>(squares->rows[static_cast<size_t>(e)]);
      for (int64_t i = 0; i < s.cols; ++i)
        all[static_cast<size_t>(i)] += squares->sums[static_cast<size_t>(e * s.cols + i)];
    }
    if (rows == 0) return;
    for (double& v : all) v /= rows;
    for (int64_t e = 0; e < s.experts; ++e) {
      out.inputs[tensor_name(s.name, e)] =
          mean(squares->sums.data() + e * s.cols, s.cols,
               static_cast<double>(squares->rows[static_cast<size_t>(e)]),
               s.experts > 1 ? all.data() : nullptr, kPriorRows);
    }
  });
  // Of each head's query the part that meets keys made by kv_b; its rotated rest meets k^R. (MTP
  // modules see a row or two less than `tokens_`: only the proportions within a row count.)
  for (const auto& [block, sums] : queries_) {
    std::vector<float>& to =
        out.queries["model.layers." + std::to_string(block) + ".self_attn.kv_b_proj.weight"];
    for (int64_t head = 0; head < c.num_attention_heads; ++head) {
      std::vector<float> part = mean(sums.data() + head * c.qk_head_dim(), c.qk_nope_head_dim,
                                     static_cast<double>(tokens_), nullptr, 0);
      to.insert(to.end(), part.begin(), part.end());
    }
  }
  return out;
}

}  // namespace wels
