#include "apps/text_eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/progress.h"
#include "data/corpus.h"
#include "nn/ops.h"

namespace wels {

ReadText each_window(const std::vector<std::string>& files, std::optional<int32_t> before,
                     int64_t sequence, const std::function<bool()>& stop,
                     const std::function<std::vector<int32_t>(std::string_view)>& encode,
                     const std::function<void(std::span<const int32_t>)>& window) {
  ReadText read;
  CorpusReader corpus(list_corpus(files));
  Progress progress("eval", static_cast<double>(corpus.stored_bytes_total()), "B");
  std::vector<int32_t> ids;
  Piece piece;
  double of_piece = 1;  // tokens
  auto run = [&](size_t n) {
    window(std::span<const int32_t>(ids).first(n));
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n) - 1);
    read.stopped = stop && stop();
    double left = static_cast<double>(ids.size()) / of_piece;
    int64_t done = read.bytes - static_cast<int64_t>(left * static_cast<double>(piece.text.size()));
    progress.set(std::min(done, corpus.stored_bytes_done()));
  };
  while (!read.stopped && corpus.next(piece)) {
    if (piece.first) ids.clear();
    if (piece.first && before) ids.push_back(*before);
    std::vector<int32_t> more = encode(piece.text);
    ids.insert(ids.end(), more.begin(), more.end());
    read.bytes += static_cast<int64_t>(piece.text.size());
    of_piece = static_cast<double>(ids.size());
    while (!read.stopped && static_cast<int64_t>(ids.size()) > sequence)
      run(static_cast<size_t>(sequence) + 1);
    if (!read.stopped && piece.last && ids.size() >= 2) run(ids.size());
  }
  progress.finish();
  return read;
}

int64_t window_length(int64_t asked, int64_t longest) {
  if (asked > longest) {
    throw Error("--seq", fmt::format("{} is beyond the model's {} positions", asked, longest),
                "use a shorter one");
  }
  return asked > 0 ? asked : std::min<int64_t>(1024, longest);
}

TextEvaluation evaluate_text(LoadedModel& m, const std::vector<std::string>& files,
                             int64_t sequence, const std::function<bool()>& stop) {
  require_tokenizer(m);
  TextEvaluation out;
  Pool pool;
  double nats = 0;
  out.read = each_window(
      files, m.tokenizer->document_begin(),
      window_length(sequence, m.model->config().max_position_embeddings), stop,
      [&](std::string_view text) { return m.tokenizer->encode(text, AddedTokens::kAsText); },
      [&](std::span<const int32_t> ids) {
        size_t n = ids.size() - 1;
        Batch batch;
        batch.append(ids.first(n));
        Ctx ctx{.dev = *m.dev, .pool = pool, .tape = nullptr, .dtype = m.dtype};
        Var h = m.model->hidden(ctx, batch, {});
        Var logp = token_logp(ctx, h, m.model->head(),
                              ctx.make_ids(ids.data() + 1, static_cast<int64_t>(n)));
        std::vector<float> values(n);
        m.dev->download(logp.t, values.data());
        for (float x : values) nats -= static_cast<double>(x);
        out.tokens += static_cast<int64_t>(n);
      });
  if (!std::isfinite(nats))
    throw Error(m.folder, "gives log-probabilities that are not finite", "the weights are damaged");
  out.nats_per_token = nats / static_cast<double>(std::max<int64_t>(out.tokens, 1));
  out.bits_per_byte =
      nats / std::numbers::ln2 / static_cast<double>(std::max<int64_t>(out.read.bytes, 1));
  return out;
}

}  // namespace wels
