// What a request wants to know of its tokens' experts. Taken from the record of a forward pass that
// is made as ever, once it is known which drafts stay; rows that are computed again after a
// preemption are written again.
#include <algorithm>

#include "engine/sequence.h"

namespace wels {

bool Engine::traced(const Feed& f) {
  const GenerateRequest& r = f.s->request;
  return f.past < r.trace_from + r.trace_rows && f.past + f.rows > r.trace_from;
}

void Engine::trace_experts(const ForwardRecord& record, const std::vector<Feed>& feeds) {
  int64_t k = model_.config().num_experts_per_tok;
  int64_t layers = static_cast<int64_t>(record.routed.size());
  std::vector<int32_t> chosen;  // of all rows, in one block
  for (int64_t l = 0; l < layers; ++l) {
    const Tensor& expert = record.routed[static_cast<size_t>(l)].routed.expert.t;
    chosen.resize(static_cast<size_t>(expert.rows * expert.cols));
    dev_.download(expert, chosen.data());
    for (const Feed& f : feeds) {
      if (!traced(f)) continue;
      Sequence& s = *f.s;
      int64_t from = s.request.trace_from;
      int64_t refused = static_cast<int64_t>(s.drafts.size()) - f.accepted;
      // The last token has no row, also where it is a draft that was computed already.
      int64_t rows = std::max(s.prompt, static_cast<int64_t>(s.history.size()) - 1);
      int64_t end = std::min({f.past + f.rows - refused, from + s.request.trace_rows, rows});
      std::vector<int16_t>& out = s.result.experts;
      size_t size = static_cast<size_t>(std::max<int64_t>(end - from, 0) * layers * k);
      if (out.size() < size) out.resize(size, -1);
      for (int64_t row = std::max(f.past, from); row < end; ++row) {
        auto source = chosen.begin() + (f.row_begin + row - f.past) * k;
        std::copy(source, source + k, out.begin() + ((row - from) * layers + l) * k);
      }
    }
  }
}

}  // namespace wels
