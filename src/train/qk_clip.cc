#include "train/qk_clip.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "model/rope_table.h"

namespace wels {
namespace {

constexpr int64_t kQueriesAtOnce = 256;

double element(const void* data, DType dtype, int64_t i) {
  return dtype == DType::kF64 ? static_cast<const double*>(data)[i]
                              : static_cast<double>(static_cast<const float*>(data)[i]);
}

// What one layer's attention reads, as mla.cc names it.
struct Seen {
  Var query, key_value, rotated_key;  // [n, h·(dn + dr)], [n, h·(dn + dv)], [n, dr]
};

class ScoreMaximum {
 public:
  ScoreMaximum(Device& dev, Pool& pool, const ModelConfig& cfg, DType dtype,
               std::vector<std::vector<double>>& out)
      : dev_(dev),
        pool_(pool),
        cfg_(cfg),
        type_(dtype == DType::kF64 ? DType::kF64 : DType::kF32),
        out_(out) {}
  std::span<const Segment> segments;  // of the rows that the next layers see

  void see(const std::string& name, const Var& v) {
    size_t dot = name.find('.');
    if (!name.starts_with("layer") || dot == std::string::npos) return;
    std::string what = name.substr(dot + 1);
    if (what == "query") seen_.query = v;
    if (what == "key_value") seen_.key_value = v;
    if (what != "rotated_key") return;
    seen_.rotated_key = v;  // the last of the three
    add(out_[static_cast<size_t>(std::stoll(name.substr(5, dot - 5)))]);
    seen_ = {};
  }

 private:
  Tensor widened(const Tensor& t, std::vector<OwnedTensor>& keep, int64_t extra_cols = 0) {
    keep.push_back(make_tensor(pool_, type_, t.rows, t.cols + extra_cols));
    dev_.copy(t, keep.back().t.col_range(0, t.cols));
    return keep.back().t;
  }

  void add(std::vector<double>& largest) {
    int64_t dn = cfg_.qk_nope_head_dim, dr = cfg_.qk_rope_head_dim, dv = cfg_.v_head_dim;
    float scale = static_cast<float>(softmax_scale(cfg_));
    for (const Segment& s : segments) {
      for (int64_t h = 0; h < cfg_.num_attention_heads; ++h) {
        std::vector<OwnedTensor> keep;
        Tensor q = widened(
            seen_.query.t.row_range(s.row_begin, s.rows).col_range(h * (dn + dr), dn + dr), keep);
        Tensor k =
            widened(seen_.key_value.t.row_range(s.row_begin, s.rows).col_range(h * (dn + dv), dn),
                    keep, dr);
        dev_.copy(seen_.rotated_key.t.row_range(s.row_begin, s.rows), k.col_range(dn, dr));
        for (int64_t at = 0; at < s.rows; at += kQueriesAtOnce) {
          int64_t n = std::min(kQueriesAtOnce, s.rows - at), keys = at + n;
          OwnedTensor scores = make_tensor(pool_, type_, n, keys);
          dev_.gemm(q.row_range(at, n), false, k.row_range(0, keys), true, scale, 0.0f, scores.t);
          std::vector<uint8_t> host(static_cast<size_t>(scores.t.bytes()));
          dev_.download(scores.t, host.data());
          double& most = largest[static_cast<size_t>(h)];
          for (int64_t i = 0; i < n; ++i) {
            for (int64_t j = 0; j <= at + i; ++j)
              most = std::max(most, element(host.data(), type_, i * keys + j));
          }
        }
      }
    }
  }

  Device& dev_;
  Pool& pool_;
  const ModelConfig& cfg_;
  DType type_;
  std::vector<std::vector<double>>& out_;
  Seen seen_;
};

// The segments of an MTP module's rows: the batch's without their last `shorter` rows.
std::vector<Segment> shortened(const std::vector<Segment>& segments, int64_t shorter) {
  std::vector<Segment> out;
  int64_t at = 0;
  for (const Segment& s : segments) {
    if (s.rows <= shorter) continue;
    out.push_back({at, s.rows - shorter, 0, s.sequence});
    at += s.rows - shorter;
  }
  return out;
}

// rows of w *= factor
void scale_rows(Device& dev, Weight& w, int64_t begin, int64_t n, double factor) {
  Tensor rows = w.value[0].row_range(begin, n);
  dev.axpby(0.0f, rows, static_cast<float>(factor), rows);
}

}  // namespace

std::vector<std::vector<double>> max_attention_scores(Device& dev, Pool& pool, Model& model,
                                                      const Batch& batch, DType dtype) {
  const ModelConfig& cfg = model.config();
  CHECK(cfg.is_mla());
  size_t layers = static_cast<size_t>(cfg.num_hidden_layers + cfg.num_nextn_predict_layers);
  std::vector<std::vector<double>> out(
      layers, std::vector<double>(static_cast<size_t>(cfg.num_attention_heads),
                                  -std::numeric_limits<double>::infinity()));
  Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = dtype};
  ScoreMaximum maximum(dev, pool, cfg, dtype, out);
  ForwardOptions options;
  options.observe = [&](const std::string& name, const Var& v) { maximum.see(name, v); };
  maximum.segments = batch.segments;
  Var stream, h = model.hidden(ctx, batch, options, nullptr, &stream);
  Var previous = cfg.mtp_hidden_after_norm ? h : stream;
  std::vector<int32_t> rows(static_cast<size_t>(batch.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  for (int64_t k = 0; k < cfg.num_nextn_predict_layers; ++k) {
    std::vector<Segment> segments = shortened(batch.segments, k + 1);
    if (segments.empty()) break;
    maximum.segments = segments;
    Model::MtpOut next = model.mtp(ctx, k, previous, rows, batch, options);
    previous = cfg.mtp_hidden_after_norm ? next.hidden : next.stream;
    rows = std::move(next.rows);
  }
  return out;
}

int64_t qk_clip(Device& dev, Model& model, std::span<const std::vector<double>> s_max, double tau) {
  const ModelConfig& cfg = model.config();
  CHECK(cfg.is_mla());
  CHECK(tau > 0);
  CHECK(static_cast<int64_t>(s_max.size()) == cfg.num_hidden_layers + cfg.num_nextn_predict_layers);
  int64_t dn = cfg.qk_nope_head_dim, dr = cfg.qk_rope_head_dim, dv = cfg.v_head_dim, clipped = 0;
  for (size_t layer = 0; layer < s_max.size(); ++layer) {
    AttentionWeights& w = model.weights().block(static_cast<int64_t>(layer)).attention;
    Weight& query = cfg.q_lora_rank > 0 ? w.q_b : w.q;
    for (int64_t h = 0; h < cfg.num_attention_heads; ++h) {
      double most = s_max[layer][static_cast<size_t>(h)];
      if (!(most > tau)) continue;
      double gamma = tau / most;
      scale_rows(dev, query, h * (dn + dr), dn, std::sqrt(gamma));
      scale_rows(dev, query, h * (dn + dr) + dn, dr, gamma);
      scale_rows(dev, w.kv_b, h * (dn + dv), dn, std::sqrt(gamma));
      ++query.version;
      ++w.kv_b.version;
      ++clipped;
    }
  }
  return clipped;
}

}  // namespace wels
