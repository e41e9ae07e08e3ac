// wels bench infer: prompt and generation speed of a model, or of random weights in a published
// model's shape, next to the ceilings measured in the same run: decoding reads every active weight
// once per step and is held against the bandwidth of memory; a prompt is arithmetic and is held
// against the peak of the units that its products run on.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/bench.h"
#include "apps/bench_shapes.h"
#include "apps/bench_weights.h"
#include "apps/cache_flags.h"
#include "apps/expert_flags.h"
#include "apps/loaded_model.h"
#include "backend/registry.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/median.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/threads.h"
#include "tensor/quant.h"
#include "tensor/read_bandwidth.h"
#include "train/memory_plan.h"

namespace wels {
namespace {

struct Flags {
  DeviceFlags device;
  std::string shape, model, gguf, type = "bf16", dtype = "auto", kv_cache = "auto";
  int64_t layers = 0;
  std::vector<int64_t> prompts{512}, generated{64}, depths{0}, streams{1};
  std::vector<int> threads{0};
  ExpertFlags experts;
  int repeats = 3;
  bool json = false, csv = false;
};

// --- measuring ---

int64_t stored_bytes(const Weight& w) { return w.value.empty() ? 0 : w.value[0].bytes(); }

struct Run {
  Device& dev;
  Model& model;
  DType dtype, cache_dtype;
  Pool pool;
  Rng rng{1, 0};
  ReadBandwidth reader;
  double bandwidth = 0, peak = 0;
  DType peak_type;

  Run(Device& dev, Model& model, DType dtype, DType cache_dtype)
      : dev(dev), model(model), dtype(dtype), cache_dtype(cache_dtype), peak_type(product_type()) {}

  // What the products run on: int8 where weights are quantised.
  DType product_type() {
    DType t = model.weights().blocks.back().attention.o.value[0].dtype;
    return is_quantised(t) ? DType::kI8 : DType::kBF16;
  }
  // Between the measurements, since the machine may be shared.
  void measure_ceilings() {
    bandwidth = std::max(bandwidth, reader.measure());
    peak = std::max(peak, dev.measure_peak_flops(peak_type));
  }
  std::vector<int32_t> random_tokens(int64_t n) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i)
      ids.push_back(
          static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.config().vocab_size))));
    return ids;
  }
  // One forward; logits of the last row of each segment. Seconds.
  double forward(KvCache& kv, const Batch& batch, ForwardRecord* record) {
    double begin = monotonic_seconds();
    Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = dtype};
    ForwardOptions options;
    options.kv = &kv;
    std::vector<int32_t> last;
    for (const Segment& s : batch.segments)
      last.push_back(static_cast<int32_t>(s.row_begin + s.rows - 1));
    Var h = model.hidden(ctx, batch, options, record);
    Var z = model.logits(ctx, select_rows(ctx, h, last));
    std::vector<float> out(static_cast<size_t>(z.t.size()));
    dev.download(z.t, out.data());
    if (!std::isfinite(out[0])) throw Error("bench infer", "logits are not finite", "");
    return monotonic_seconds() - begin;
  }
  int64_t all_weight_bytes() {
    int64_t bytes = stored_bytes(model.head());
    visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
      if (s.layer >= 0 && s.layer < model.config().num_hidden_layers)
        bytes += stored_bytes(w) * s.experts;
    });
    return bytes;
  }
  // Weights that one step with these routers' choices reads.
  int64_t weight_bytes(const ForwardRecord& record) {
    int64_t bytes = stored_bytes(model.head());
    std::vector<int64_t> touched(model.weights().blocks.size(), 0);
    for (const auto& layer : record.routed) {
      const Tensor& load = layer.routed.load.t;
      for (int64_t e = 0; e < load.cols; ++e)
        touched[static_cast<size_t>(layer.layer)] += load.row<int32_t>(0)[e] > 0;
    }
    visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
      if (s.layer < 0 || s.layer >= model.config().num_hidden_layers) return;
      bytes += stored_bytes(w) * (s.experts > 1 ? touched[static_cast<size_t>(s.layer)] : 1);
    });
    return bytes;
  }
};

// Weights get their kernels' layout when they are first used.
struct Repack {
  double first_s = 0;  // memory for it is taken, too: pages that the system clears
  double again_s = 0;  // in memory that is there
  int64_t bytes = 0;   // read as they are stored and written as they are packed
};

// What the first token takes longer than a later one. packed: bytes that it leaves behind.
Repack repack(Run& run, int64_t packed) {
  KvCache kv(run.model.config(), run.cache_dtype, 2 * KvCache::kPageRows);
  int32_t sequence = kv.add_sequence();
  Batch token;
  token.append(run.random_tokens(1), 0, sequence);
  auto seconds = [&] {
    kv.truncate(sequence, 0);
    double s = run.forward(kv, token, nullptr);
    kv.commit(token);
    return s;
  };
  double first = seconds(), later = std::min(seconds(), seconds());
  visit_weights(run.model.config(), run.model.weights(),
                [](Weight& w, const WeightSpec&) { ++w.version; });
  double again = seconds();
  run.measure_ceilings();
  return {first - later, again - later, packed + run.all_weight_bytes()};
}

struct Prefill {
  int64_t prompt = 0;
  double tokens_per_s = 0, flops_per_token = 0;
};

// A prompt as one chunk of the engine after another, from an empty cache: the median.
Prefill prefill(Run& run, int64_t prompt, int repeats) {
  constexpr int64_t kChunk = 512;
  const ModelConfig& c = run.model.config();
  KvCache kv(c, run.cache_dtype, prompt + KvCache::kPageRows);
  int32_t sequence = kv.add_sequence();
  std::vector<double> seconds;
  for (int i = 0; i <= repeats; ++i) {  // the first repacks weights and warms up
    kv.truncate(sequence, 0);
    double s = 0;
    for (int64_t past = 0; past < prompt; past += kChunk) {
      Batch batch;
      batch.append(run.random_tokens(std::min(kChunk, prompt - past)), past, sequence);
      s += run.forward(kv, batch, nullptr);
      kv.commit(batch);
    }
    if (i > 0) seconds.push_back(s);
    run.measure_ceilings();
  }
  ParameterCount n = count_parameters(c);
  int64_t tied = c.tie_word_embeddings ? 0 : n.head;
  double per_token = 2.0 * static_cast<double>(n.active - n.embedding - tied);
  return {prompt, static_cast<double>(prompt) / median(seconds), per_token};
}

struct Decode {
  int64_t generated = 0, depth = 0, streams = 0;
  double tokens_per_s = 0;  // of all streams together
  int64_t step_bytes = 0;   // weights and cached rows that a step reads
  double bandwidth = 0;     // the median reading
  double fraction = 0;      // of the readings before and after: the median of the windows
};

// Rows of small random values, as if they had been computed.
void fill_cache(Run& run, KvCache& kv, int32_t sequence, int64_t rows) {
  if (rows == 0) return;
  Batch batch;
  batch.append(run.random_tokens(rows), 0, sequence);
  std::vector<int32_t> places = kv.reserve(batch);
  const ModelConfig& c = run.model.config();
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    Tensor pool = kv.pool(layer);
    std::vector<float> values(static_cast<size_t>(pool.cols));
    for (float& v : values) v = static_cast<float>(run.rng.normal());
    Tensor row(values.data(), DType::kF32, 1, pool.cols);
    for (int32_t place : places) run.dev.scatter_rows(row, Tensor(&place, DType::kI32, 1, 1), pool);
  }
  kv.commit(batch);
}

// Rows of a stream's cache, with its last page's unused ones.
int64_t cache_rows(int64_t generated, int64_t depth) {
  return depth + generated + 1 + KvCache::kPageRows;
}

Decode decode(Run& run, int64_t generated, int64_t depth, int64_t streams) {
  const ModelConfig& c = run.model.config();
  KvCache kv(c, run.cache_dtype, cache_rows(generated, depth) * streams);
  std::vector<int32_t> sequences;
  for (int64_t i = 0; i < streams; ++i) {
    sequences.push_back(kv.add_sequence());
    fill_cache(run, kv, sequences.back(), depth);
  }
  // The bandwidth of a machine that is shared can double for a second: steps are held against what
  // plain reads reach just before and after them.
  constexpr int64_t kWindow = 8;  // steps
  std::vector<double> seconds, windows, readings;
  ForwardRecord record;
  for (int64_t i = 0; i <= generated; ++i) {
    Batch batch;
    for (int32_t s : sequences) batch.append(run.random_tokens(1), kv.length(s), s);
    record.routed.clear();
    double s = run.forward(kv, batch, &record);
    kv.commit(batch);
    if (i > 0) seconds.push_back(s);
    if (i % kWindow != 0 && i < generated) continue;
    readings.push_back(run.reader.measure());
    int64_t steps = i % kWindow == 0 ? kWindow : i % kWindow;
    if (i > 0) windows.push_back(median({seconds.end() - steps, seconds.end()}));
  }
  int64_t cached = (depth + generated / 2) * c.num_hidden_layers *
                   row_bytes(run.cache_dtype, kv.layout().width) * streams;
  int64_t bytes = run.weight_bytes(record) + cached;
  std::vector<double> fractions;
  for (size_t w = 0; w < windows.size(); ++w)
    fractions.push_back(2 * static_cast<double>(bytes) / windows[w] /
                        (readings[w] + readings[w + 1]));
  return {generated,
          depth,
          streams,
          static_cast<double>(streams) / median(seconds),
          bytes,
          median(readings),
          median(fractions)};
}

// --- reporting ---

nlohmann::ordered_json result(const Flags& f, const Run& run, const Repack& packing,
                              const Prefill* p, const Decode* d) {
  nlohmann::ordered_json j;
  j["model"] = f.model.empty() ? f.shape : f.model;
  j["layers"] = run.model.config().num_hidden_layers;
  j["type"] = f.model.empty() ? f.type : "file";
  j["threads"] = thread_count();
  if (p) {
    j["prompt"] = p->prompt;
    j["prefill_tokens_per_s"] = p->tokens_per_s;
    j["prefill_flops_per_token"] = p->flops_per_token;
    j["peak_ops"] = run.peak;
    j["peak_type"] = name(run.peak_type);
    j["prefill_fraction_of_peak"] =
        run.peak > 0 ? p->tokens_per_s * p->flops_per_token / run.peak : 0.0;
  }
  if (d) {
    j["generated"] = d->generated;
    j["depth"] = d->depth;
    j["streams"] = d->streams;
    j["decode_tokens_per_s"] = d->tokens_per_s;
    j["bytes_read_per_token"] = d->step_bytes / d->streams;
    j["read_bandwidth"] = d->bandwidth;
    j["decode_fraction_of_bandwidth"] = d->fraction;
  }
  if (packing.again_s > 0) {
    double rate = static_cast<double>(packing.bytes) / packing.again_s;
    j["first_pack_seconds"] = packing.first_s;
    j["repack_seconds"] = packing.again_s;
    j["repack_bytes_per_s"] = rate;
    if (run.bandwidth > 0) j["repack_fraction_of_bandwidth"] = rate / run.bandwidth;
  }
  j["peak_rss_bytes"] = peak_rss_bytes();
  j["dtype"] = name(run.dtype);
  j["kv_cache"] = name(run.cache_dtype);
  if (const auto* cpu = dynamic_cast<const CpuDevice*>(&run.dev); cpu && f.experts.gigabytes > 0) {
    j["expert_calls"] = cpu->expert_counts().uses;
    j["expert_calls_in_memory"] = cpu->expert_counts().found;
  }
  j["device"] = run.dev.name();
  return j;
}

void print_table(const std::vector<nlohmann::ordered_json>& rows) {
  for (const auto& j : rows) {
    if (j.contains("prompt"))
      fmt::print(
          "{} {}, {} layers, {} threads: prompt {:>6}: {:>9.1f} tokens/s, {:4.1f} % of {:.0f} "
          "Gop/s {}\n",
          j["model"].get<std::string>(), j["type"].get<std::string>(), j["layers"].get<int64_t>(),
          j["threads"].get<int64_t>(), j["prompt"].get<int64_t>(),
          j["prefill_tokens_per_s"].get<double>(),
          100 * j["prefill_fraction_of_peak"].get<double>(), j["peak_ops"].get<double>() / 1e9,
          j["peak_type"].get<std::string>());
    if (j.contains("streams"))
      fmt::print(
          "{} {}, {} layers, {} threads: {:>3} streams at depth {:>6}: {:>9.1f} tokens/s, {:.3f} "
          "GB a token, {:4.1f} % of {:.1f} GB/s\n",
          j["model"].get<std::string>(), j["type"].get<std::string>(), j["layers"].get<int64_t>(),
          j["threads"].get<int64_t>(), j["streams"].get<int64_t>(), j["depth"].get<int64_t>(),
          j["decode_tokens_per_s"].get<double>(), j["bytes_read_per_token"].get<double>() / 1e9,
          100 * j["decode_fraction_of_bandwidth"].get<double>(),
          j["read_bandwidth"].get<double>() / 1e9);
  }
}

void print_csv(const std::vector<nlohmann::ordered_json>& rows) {
  std::vector<std::string> names;
  for (const auto& j : rows) {
    for (const auto& [key, value] : j.items()) {
      if (std::find(names.begin(), names.end(), key) == names.end()) names.push_back(key);
    }
  }
  fmt::print("{}\n", fmt::join(names, ","));
  for (const auto& j : rows) {
    std::vector<std::string> cells;
    for (const auto& n : names) cells.push_back(j.contains(n) ? j[n].dump() : "");
    fmt::print("{}\n", fmt::join(cells, ","));
  }
}

// Rows that the caches of the largest run hold.
int64_t most(const std::vector<int64_t>& v) { return *std::max_element(v.begin(), v.end()); }

int64_t most_cache_rows(const Flags& f) {
  int64_t decoding = cache_rows(most(f.generated), most(f.depths)) * most(f.streams);
  return std::max(most(f.prompts) + KvCache::kPageRows, decoding);
}

// Random weights, refused before they are made where they do not fit.
LoadedModel make_random(const Flags& f, Pool& pool, std::vector<std::shared_ptr<void>>& kept) {
  RandomModel random{f.shape, f.layers, f.type};
  LoadedModel m;
  m.dev = make_device(f.device.device);
  m.dtype = activation_type(*m.dev, f.dtype);
  ModelConfig c = random_model_config(random);
  InferenceShape shape{.dtype = m.dtype,
                       .cache_dtype = cache_type(f.kv_cache, m.dtype),
                       .context = most_cache_rows(f),
                       .stored = random_model_types(random)};
  shape.expert_share = f.experts.apply(*m.dev, c, shape);
  MemoryPlan plan = plan_inference(*m.dev, c, shape);
  auto needed = static_cast<double>(plan.total() - plan.program);
  auto available = static_cast<double>(memory_available_bytes());
  if (needed > available)
    throw Error("memory",
                fmt::format("random weights and what goes with them need {} (weights {}, packed "
                            "for the kernels {}, KV cache {}), {} are free",
                            human_bytes(needed), human_bytes(static_cast<double>(plan.weights)),
                            human_bytes(static_cast<double>(plan.packed)),
                            human_bytes(static_cast<double>(plan.cache)), human_bytes(available)),
                "use fewer --layers, a smaller --type, or less --depth and --streams");
  m.model = random_model(random, pool, kept);
  return m;
}

// A model from a file, refused where the largest run does not fit.
LoadedModel open_measured(const Flags& f) {
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  const int64_t positions = m.model->config().max_position_embeddings,
                asked = std::max(most(f.prompts), most(f.depths) + most(f.generated));
  if (asked > positions) {
    throw Error(f.model, fmt::format("has {} positions, {} are asked for", positions, asked),
                "choose a smaller --prompt, --depth or --gen");
  }
  double share = f.experts.apply(m);
  require_memory_for(m, most_cache_rows(f), cache_type(f.kv_cache, m.dtype), share);
  return m;
}

int64_t packed_bytes(const LoadedModel& m) {
  return plan_inference(*m.dev, m.model->config(),
                        {.dtype = m.dtype, .stored = stored_types(*m.model)})
      .packed;
}

// All runs with the threads that are set, each told with the packing of the weights (empty: it was
// not measured with these threads).
void measure_all(const Flags& f, Run& run, const Repack& packing, bool one,
                 std::vector<nlohmann::ordered_json>& rows) {
  std::optional<Prefill> first;
  size_t before = rows.size();
  for (int64_t prompt : f.prompts) {
    if (prompt == 0) continue;
    Prefill p = prefill(run, prompt, f.repeats);
    if (one) first = p;
    if (!one) rows.push_back(result(f, run, packing, &p, nullptr));
  }
  for (int64_t g : f.generated) {
    for (int64_t depth : f.depths) {
      for (int64_t streams : f.streams) {
        if (g == 0) continue;
        Decode d = decode(run, g, depth, streams);
        rows.push_back(result(f, run, packing, first ? &*first : nullptr, &d));
      }
    }
  }
  if (rows.size() == before && first) rows.push_back(result(f, run, packing, &*first, nullptr));
}

int bench_infer(const Flags& f) {
  if (f.shape.empty() == f.model.empty())
    throw Error("bench infer", "needs a model", "give either --shape or --model");
  if (f.gguf.empty() && most(f.prompts) == 0 && most(f.generated) == 0)
    throw Error("bench infer", "has nothing to measure", "give --prompt or --gen more than 0");
  std::vector<int> threads = f.threads;
  for (int& n : threads) n = n > 0 ? n : thread_count();
  set_thread_count(*std::max_element(threads.begin(), threads.end()));
  if (!f.gguf.empty()) {
    write_random_gguf(f.gguf, {f.shape, f.layers, f.type});
    return 0;
  }
  Pool pool;
  std::vector<std::shared_ptr<void>> kept;
  LoadedModel loaded = f.model.empty() ? make_random(f, pool, kept) : open_measured(f);
  bool one = f.prompts.size() * f.generated.size() * f.depths.size() * f.streams.size() == 1;
  std::vector<nlohmann::ordered_json> rows;
  for (size_t i = 0; i < threads.size(); ++i) {
    set_thread_count(threads[i]);
    Run run(*loaded.dev, *loaded.model, loaded.dtype, cache_type(f.kv_cache, loaded.dtype));
    Repack packing;  // of all experts, where all of them stay; once
    if (i == 0 && f.experts.gigabytes == 0) packing = repack(run, packed_bytes(loaded));
    measure_all(f, run, packing, one, rows);
  }
  if (f.json) {
    for (const auto& j : rows) fmt::print("{}\n", j.dump());
  } else if (f.csv) {
    print_csv(rows);
  } else {
    print_table(rows);
  }
  return 0;
}

}  // namespace

void add_bench_infer(CLI::App* bench, Command& run) {
  CLI::App* sub = bench->add_subcommand("infer", "tokens/s of prompts and of generation");
  auto f = std::make_shared<Flags>();
  sub->add_option(
      "--shape", f->shape,
      fmt::format("random weights in the shape of {}", fmt::join(published_shape_names(), ", ")));
  sub->add_option("--model", f->model, "a checkpoint folder or GGUF file");
  sub->add_option("--layers", f->layers, "only so many blocks (0: all)")
      ->check(CLI::NonNegativeNumber)
      ->needs("--shape");
  sub->add_option("--type", f->type, "of random weights: f32, f16, bf16, fp8, q8_0, q4_k, ...")
      ->needs("--shape")
      ->capture_default_str();
  sub->add_option("--gguf", f->gguf,
                  "write the random weights to this GGUF file, for other programs, and stop")
      ->needs("--shape");
  sub->add_option("--prompt", f->prompts, "tokens of a prompt (several: one run each; 0: none)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--gen", f->generated, "tokens to generate (0: none)")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--depth", f->depths, "tokens in the cache before generation")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--streams", f->streams, "sequences generated side by side")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--repeats", f->repeats, "prompts measured; the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--dtype", f->dtype, "of activations: auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  add_cache_type_flag(sub, f->kv_cache);
  f->experts.add(sub);
  sub->add_flag("--json", f->json, "one JSON object a run");
  sub->add_flag("--csv", f->csv, "a table for spreadsheets")->excludes("--json");
  f->device.add(sub);
  sub->remove_option(sub->get_option("--threads"));
  sub->add_option("--threads", f->threads, "threads (several: one run each; 0: all)")
      ->delimiter(',')
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  sub->callback([f, &run] { run = [f] { return bench_infer(*f); }; });
}

}  // namespace wels
