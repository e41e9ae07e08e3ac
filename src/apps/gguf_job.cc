#include "apps/gguf_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signal.h"
#include "data/corpus.h"
#include "engine/calibration.h"
#include "formats/gguf_export.h"
#include "model/checkpoint.h"
#include "tensor/quant.h"
#include "text/gguf_vocab.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

// Ctrl-C was pressed.
struct Stopped {};

std::optional<int32_t> token_of(int64_t id) {
  return id < 0 ? std::nullopt : std::optional(static_cast<int32_t>(id));
}

// The vocabulary in the form of the exporter, by way of the metadata that the text layer writes.
GgufTokenizer gguf_tokenizer(const std::string& path, const ModelConfig& config) {
  VocabSource source = load_vocab_source(path);
  GgufContent c;
  c.where = source.where;
  append_gguf_vocab(source, config.vocab_size, c.metadata);
  GgufTokenizer t;
  for (auto& [key, value] : c.metadata) {
    if (key == "tokenizer.ggml.pre") t.pre = std::get<std::string>(value.value);
    if (key == "tokenizer.ggml.tokens") t.tokens = std::get<GgufArray>(value.value).strings;
    if (key == "tokenizer.ggml.merges") t.merges = std::get<GgufArray>(value.value).strings;
    if (key == "tokenizer.ggml.token_type") {
      const std::vector<uint8_t>& bytes = std::get<GgufArray>(value.value).packed;
      t.types.resize(bytes.size() / sizeof(int32_t));
      std::memcpy(t.types.data(), bytes.data(), bytes.size());
    }
  }
  // Also those that only their names or the model's config tell: llama.cpp would take token 11 for
  // the end of the text.
  t.add_bos = source.add_bos;
  Tokenizer named(std::move(source));
  const std::vector<int64_t>& ends = config.eos_token_ids;
  t.bos = named.bos() ? named.bos() : token_of(config.bos_token_id);
  t.eos = named.eos() ? named.eos() : token_of(ends.empty() ? -1 : ends[0]);
  t.pad = named.pad() ? named.pad() : token_of(config.pad_token_id);
  t.chat_template = load_chat_template(path);
  return t;
}

// What is read.
struct Checkpoint {
  std::string path;
  ModelConfig config;
  std::unique_ptr<SafetensorsReader> folder;  // one of the two
  std::unique_ptr<GgufCheckpoint> file;
  std::optional<GgufTokenizer> tokenizer;
  std::string name = "wels";
  CheckpointWeights weights() const {
    return file ? CheckpointWeights(*file) : CheckpointWeights(*folder);
  }
};

Checkpoint open_checkpoint(const std::string& path) {
  Checkpoint c;
  if (fs::is_regular_file(path)) {
    c.path = path;
    c.file = std::make_unique<GgufCheckpoint>(path);
    c.config = c.file->config();
    const GgufContent& content = c.file->content();
    if (content.has("general.name")) c.name = content.text("general.name");
    if (has_vocab(content)) c.tokenizer = gguf_tokenizer(path, c.config);
    return c;
  }
  c.path = resolve_whole_model(path);
  c.folder = std::make_unique<SafetensorsReader>(c.path);
  c.config = checkpoint_config(c.path, *c.folder);
  if (fs::exists(c.path + "/tokenizer.json")) c.tokenizer = gguf_tokenizer(c.path, c.config);
  return c;
}

std::vector<TensorChoice> parse_choices(const std::vector<std::string>& texts) {
  std::vector<TensorChoice> out;
  for (const std::string& text : texts) {
    size_t at = text.rfind('=');
    if (at == std::string::npos || at == 0)
      throw Error("--tensor", fmt::format("\"{}\" is not PATTERN=TYPE", text),
                  "as blk.*.ffn_down.weight=q6_k");
    out.push_back({text.substr(0, at), find_quant_mix(text.substr(at + 1), "--tensor").base});
  }
  return out;
}

// Bits per weight of what may be quantised, before and after.
struct Bits {
  double source = 0, target = 0;
  bool quantised = false, again = false;  // the source is; some of it changes its type
  DType most = DType::kF32;               // the source's commonest quantised type
};
Bits compare_bits(const CheckpointWeights& weights, const GgufExportPlan& plan) {
  double values = 0, from = 0, to = 0;
  std::map<DType, double> by_type;
  Bits bits;
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    const GgufTensorPlan& t = plan.tensors[i];
    // The halves of kv_b come out of a quantised file decoded, whatever they were.
    if (t.full_precision || t.source.ends_with("kv_b_proj.weight")) continue;
    DType type = weights.at(gguf_source_name(t, 0)).dtype, target = plan.types[i].dtype;
    double n = 1;
    for (int64_t s : t.shape) n *= static_cast<double>(s);
    values += n;
    from += n * 8 * info(type).bytes / info(type).block;
    to += n * 8 * info(target).bytes / info(target).block;
    if (!is_quantised(type)) continue;
    bits.quantised = true;
    bits.again |= type != target && is_quantised(target);
    if ((by_type[type] += n) > by_type[bits.most]) bits.most = type;
  }
  bits.source = from / values;
  bits.target = to / values;
  return bits;
}

// What quantisation has taken does not come back.
void check_requantising(const Checkpoint& c, const CheckpointWeights& weights,
                        const GgufExportPlan& plan, DType base) {
  Bits bits = compare_bits(weights, plan);
  if (!bits.quantised) return;
  if (is_quantised(base) && bits.target > 1.02 * bits.source) {
    throw Error(c.path,
                fmt::format("is quantised already, mostly {}, {:.2f} bits per weight; {:.2f} would "
                            "take more room and bring nothing back",
                            name(bits.most), bits.source, bits.target),
                "quantise the original, choose a smaller --type, or bf16 to decode it");
  }
  if (bits.again) {
    log_warn(
        "{}: is quantised already, mostly {}, {:.2f} bits per weight: its errors and those of {} "
        "add up; better quantise the original",
        c.path, name(bits.most), bits.source, name(base));
  }
}

// A file that nothing could be done with must be refused before the work.
void check_output(const Checkpoint& c, const std::string& out) {
  if (out.empty()) throw Error("-o", "the name is empty", "name the file to write");
  std::error_code ec;
  if (fs::equivalent(out, c.path, ec))
    throw Error(out, "is the file that is read", "give another name");
  for (fs::directory_iterator it(c.path, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code none;
    if (fs::equivalent(out, it->path(), none))
      throw Error(out, "is part of the model that is read", "give another name");
  }
  if (fs::is_directory(out)) throw Error(out, "is a folder", "give a file: -o " + out + "/m.gguf");
  if (!fs::is_other(out, ec)) AtomicFile probe(out);  // a pipe's reader would see its end
}

ColumnImportance calibrate(const GgufJob& job, const StopSignal& stop) {
  LoadedModel m = open_model(job.model, "auto", "auto");
  if (!m.tokenizer)
    throw Error(m.folder, "has no tokenizer, which --calibration needs",
                "copy the model's tokenizer.json into the folder");
  int64_t sequence = std::min<int64_t>(1024, m.model->config().max_position_embeddings);
  Calibration calibration(*m.dev, *m.model, m.dtype, job.mtp);
  Progress progress("calibration", static_cast<double>(job.calibration_tokens), "tok");
  CorpusReader corpus(list_corpus({job.calibration}));
  std::vector<int32_t> ids;
  int64_t left = job.calibration_tokens;
  auto run = [&](size_t n) {
    if (stop.requested()) throw Stopped{};
    calibration.add(std::span(ids).first(n));
    left -= static_cast<int64_t>(n) - 1;
    progress.add(static_cast<int64_t>(n) - 1);
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n) - 1);
  };
  // Documents one after another, each behind its token of beginning, in sequences of full length.
  Piece piece;
  while (left > 0 && corpus.next(piece)) {
    std::optional<int32_t> begin = m.tokenizer->document_begin();
    if (piece.first && begin) ids.push_back(*begin);
    std::vector<int32_t> more = m.tokenizer->encode(piece.text, AddedTokens::kAsText);
    ids.insert(ids.end(), more.begin(), more.end());
    while (left > 0 && static_cast<int64_t>(ids.size()) > std::min(sequence, left))
      run(static_cast<size_t>(std::min(sequence, left) + 1));
  }
  if (left > 0 && ids.size() >= 2) run(ids.size());
  progress.finish();
  if (calibration.tokens() == 0)
    throw Error(job.calibration, "has no token to predict", "give more text");
  log_info("calibration: {} tokens, perplexity {:.2f}", calibration.tokens(),
           std::exp(calibration.nats_per_token()));
  return calibration.importance();
}

// --- what is said afterwards ---

struct Sum {
  int64_t tensors = 0, copied = 0;
  double values = 0, bytes = 0, error = 0, squares = 0, weighted = 0, weighted_squares = 0;
  void add(const GgufTensorReport& r) {
    ++tensors;
    copied += r.copied;
    values += static_cast<double>(r.values);
    bytes += static_cast<double>(r.bytes);
    error += r.error;
    squares += r.squares;
    weighted += r.weighted_error;
    weighted_squares += r.weighted_squares;
  }
  // Root mean square error as a part of the values'; "-" where nothing was encoded.
  static std::string percent(double error, double squares) {
    return squares > 0 ? fmt::format("{:.3f} %", 100 * std::sqrt(error / squares)) : "-";
  }
  void print(const std::string& type, bool with_importance) const {
    fmt::print("{:8} {:>8} {:>9} {:>11} {:>12.2f} {:>10}", type, tensors, human_count(values),
               human_bytes(bytes), 8 * bytes / values, percent(error, squares));
    if (with_importance) fmt::print(" {:>10}", percent(weighted, weighted_squares));
    fmt::print("\n");
  }
};

void print_summary(const GgufJob& job, const GgufExport& done) {
  std::map<DType, Sum> sums;
  Sum total;
  std::map<std::pair<DType, DType>, std::vector<std::string>> replaced;
  for (const GgufTensorReport& r : done.tensors) {
    sums[r.type.dtype].add(r);
    total.add(r);
    if (r.type.dtype != r.type.wanted) replaced[{r.type.wanted, r.type.dtype}].push_back(r.name);
  }
  for (const auto& [types, names] : replaced) {
    log_info("{} in place of {} where rows are no multiple of {}: {} tensors ({}{})",
             name(types.second), name(types.first), info(types.first).block, names.size(),
             names.front(), names.size() > 1 ? ", ..." : "");
  }
  bool weighted = !job.calibration.empty();
  fmt::print("type      tensors   weights        size  bits/weight       RMSE{}\n",
             weighted ? "   weighted" : "");
  std::vector<std::pair<DType, Sum>> order(sums.begin(), sums.end());
  std::sort(order.begin(), order.end(),
            [](auto& a, auto& b) { return a.second.bytes > b.second.bytes; });
  for (auto& [type, sum] : order) sum.print(std::string(name(type)), weighted);
  total.print("all", weighted);
  if (total.copied > 0)
    fmt::print("{} tensors had their type already and were copied\n", total.copied);
  fmt::print("{}: {}\n", job.out, human_bytes(static_cast<double>(done.bytes)));
}

}  // namespace

int write_gguf_file(const GgufJob& job) {
  GgufExportOptions options;
  options.dtype = find_quant_mix(job.type, "--type").base;
  options.choices = parse_choices(job.choices);
  options.include_mtp = job.mtp;
  StopSignal stop;
  GgufExport done;
  int64_t left_out = 0;
  try {
    Checkpoint c = open_checkpoint(job.model);
    if (!job.mtp) left_out = c.config.num_nextn_predict_layers;
    CheckpointWeights weights = c.weights();
    options.name = c.name;
    GgufExportPlan plan = plan_gguf_export(c.config, weights, options);
    check_requantising(c, weights, plan, options.dtype);
    check_output(c, job.out);
    ColumnImportance importance;
    if (!job.calibration.empty()) {
      importance = calibrate(job, stop);
      options.importance = &importance;
    }
    Progress progress(job.type, static_cast<double>(plan.values()), "weights");
    options.progress = [&](int64_t n) {
      progress.add(n);
      if (stop.requested()) throw Stopped{};
    };
    done = export_gguf(job.out, c.config, weights, c.tokenizer ? &*c.tokenizer : nullptr, options);
  } catch (const Stopped&) {
    fmt::print("stopped; {} is not written\n", job.out);
    return 128 + stop.number();
  }
  print_summary(job, done);
  if (left_out > 0)
    log_info("left out: {} MTP module(s), which --mtp keeps for --speculate mtp", left_out);
  return 0;
}

}  // namespace wels
