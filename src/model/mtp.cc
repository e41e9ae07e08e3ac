// Multi-token prediction, V3 §2.2: module k is one more block, which predicts a token one further
// on than what it reads. Rows of a segment of 5 tokens t0 ... t4, by depth:
//
//   hidden()   h0    h1    h2    h3    h4     hi  sees t0 ... ti     and predicts ti+1
//   mtp(0)     h0'   h1'   h2'   h3'          hi' is from hi, ti+1   and predicts ti+2
//   mtp(1)     h0"   h1"   h2"                hi" is from hi', ti+2  and predicts ti+3
//
// A segment's last row has no token after it that could be read, so each depth has a row less. The
// embedding and the head are the main model's.
#include <algorithm>
#include <span>

#include "model/block.h"
#include "model/model.h"

namespace wels {
namespace {

struct GoingOn {
  std::vector<int32_t> rows;  // of depth k: all but the last of each segment
  Batch next;                 // the tokens that they read at depth k + 1, row by row
  int64_t before = 0;         // rows of depth k
};

GoingOn rows_that_go_on(const Batch& batch, int64_t k) {
  GoingOn out;
  for (const Segment& s : batch.segments) {
    int64_t before = std::max<int64_t>(s.rows - k, 0), count = std::max<int64_t>(before - 1, 0);
    for (int64_t i = 0; i < count; ++i) out.rows.push_back(static_cast<int32_t>(out.before + i));
    if (count > 0) {
      auto first = static_cast<size_t>(s.row_begin + k + 1);
      out.next.append(std::span(batch.tokens).subspan(first, static_cast<size_t>(count)));
    }
    out.before += before;
  }
  return out;
}

}  // namespace

Model::MtpOut Model::mtp(Ctx& ctx, int64_t k, const Var& previous,
                         const std::vector<int32_t>& previous_rows, const Batch& batch,
                         const ForwardOptions& options, ForwardRecord* record) {
  CHECK(options.kv == nullptr);
  GoingOn on = rows_that_go_on(batch, k);
  CHECK(on.before == static_cast<int64_t>(previous_rows.size()));
  MtpOut out;
  if (on.rows.empty()) return out;
  for (int32_t row : on.rows) out.rows.push_back(previous_rows[static_cast<size_t>(row)]);
  BlockContext b = context(ctx, on.next, options, cfg_.num_hidden_layers + k, record);
  out.stream = mtp_block(ctx, k, select_rows(ctx, previous, on.rows), b);
  out.hidden = mtp_norm(ctx, k, out.stream);
  return out;
}

Var Model::draft(Ctx& ctx, const Var& previous, const Batch& next, KvCache& kv) {
  CHECK(!weights_.mtp.empty());
  ForwardOptions options;
  options.kv = &kv;
  BlockContext b = context(ctx, next, options, cfg_.num_hidden_layers, nullptr);
  b.places = ctx.make_ids(kv.reserve_module(next));
  return mtp_norm(ctx, 0, mtp_block(ctx, 0, previous, b));
}

// From the rows of the last depth that go on, and the tokens after them, to this depth's stream.
Var Model::mtp_block(Ctx& ctx, int64_t k, const Var& previous, const BlockContext& b) {
  MtpWeights& w = weights_.mtp[static_cast<size_t>(k)];
  float eps = static_cast<float>(cfg_.rms_norm_eps);
  Var next = embed(ctx, ctx.make_ids(b.batch.tokens), weights_.embed);
  Var embedded = rms_norm(ctx, next, w.embed_norm, eps);
  Var state = rms_norm(ctx, previous, w.hidden_norm, eps);
  // (21) h' = M [norm(embedding) ; norm(hidden)], the two in the order of the published weights.
  Var input = matmul(ctx, concat(ctx, embedded, state), w.projection);
  std::string name = "mtp" + std::to_string(k);
  b.observe(name + ".input", input);
  // (22) One block. Its residual stream starts here, in the residual's dtype.
  Var x = to_residual(ctx, input);
  x = block(ctx, w.block, x, b);
  b.observe(name + ".hidden", x);
  return x;
}

// (23) What the head reads: shared_head.norm.
Var Model::mtp_norm(Ctx& ctx, int64_t k, const Var& stream) {
  Weight& gain = weights_.mtp[static_cast<size_t>(k)].head_norm;
  return rms_norm(ctx, stream, gain, static_cast<float>(cfg_.rms_norm_eps));
}

}  // namespace wels
