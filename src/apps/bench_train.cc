// wels bench train: what a training step of a preset reaches on this machine, next to the peak
// measured in the same run.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/bench.h"
#include "backend/registry.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/rng.h"
#include "train/memory_plan.h"
#include "train/presets.h"
#include "train/trainer.h"

namespace wels {
namespace {

struct BenchFlags {
  DeviceFlags device;
  std::string preset = "mini", dtype = "bf16";
  int64_t sequence = 256, batch_tokens = 16384, micro_batch_tokens = 4096;
  double seconds = 10;
  bool json = false, fp8 = false, dense = false, mtp = false, recompute = false;
};

int bench_train(const BenchFlags& f) {
  f.device.apply();
  auto dev = make_device(f.device.device);
  ModelConfig cfg = preset(f.preset).model;
  if (!f.mtp) cfg.num_nextn_predict_layers = 0;
  if (f.dense) make_dense(cfg);
  cfg.max_position_embeddings = std::max(cfg.max_position_embeddings, f.sequence);
  TrainerConfig config;
  config.dtype = f.dtype == "f32" ? DType::kF32 : DType::kBF16;
  config.fp8 = f.fp8;
  config.recompute = f.recompute;
  double planned = static_cast<double>(plan_training(*dev, cfg,
                                                     {.trainer = config,
                                                      .sequence_length = f.sequence,
                                                      .batch_tokens = f.batch_tokens,
                                                      .micro_batch_tokens = f.micro_batch_tokens})
                                           .total());
  Model model(cfg);
  model.init(DType::kF32, 1, true);
  Trainer trainer(*dev, model, config);

  std::vector<MicroBatch> batch;
  Rng rng(1);
  int64_t per_micro = std::max<int64_t>(1, f.micro_batch_tokens / f.sequence), tokens = 0;
  for (int64_t i = 0; tokens < f.batch_tokens; ++i, tokens += f.sequence) {
    if (i % per_micro == 0) batch.emplace_back();
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < f.sequence; ++t)
      ids.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(cfg.vocab_size))));
    batch.back().batch.append(ids);
    batch.back().targets.insert(batch.back().targets.end(), ids.begin(), ids.end());
  }
  Objective objective =
      pretrain_objective(batch, static_cast<int>(cfg.num_nextn_predict_layers), 0.3);
  // The peak is measured before, between and after the steps: the machine may be shared.
  DType unit = config.dtype;
  double peak = dev->measure_peak_flops(unit);
  trainer.step(batch, objective, 1e-4);
  std::vector<double> times;
  StepStats parts;
  double begin = monotonic_seconds();
  while (times.size() < 3 || monotonic_seconds() - begin < f.seconds) {
    double t0 = monotonic_seconds();
    parts = trainer.step(batch, objective, 1e-4);
    times.push_back(monotonic_seconds() - t0);
    peak = std::max(peak, dev->measure_peak_flops(unit));
  }
  std::sort(times.begin(), times.end());
  double rate = static_cast<double>(tokens) / times[times.size() / 2];
  ParameterCount n = count_parameters(cfg);
  double flops = 6.0 * static_cast<double>(n.active - n.embedding + n.mtp_active);
  DType operands = dev->product_dtype(unit);
  double used = static_cast<double>(peak_rss_bytes());
  if (f.json) {
    nlohmann::ordered_json j = {{"preset", f.preset},
                                {"seq", f.sequence},
                                {"tokens_per_s", rate},
                                {"flops_per_token", flops},
                                {"gflops", rate * flops / 1e9},
                                {"peak_gflops_bf16", peak / 1e9},
                                {"fraction_of_peak", peak > 0 ? rate * flops / peak : 0.0},
                                {"params_total", n.total},
                                {"params_active", n.active},
                                {"peak_rss_bytes", peak_rss_bytes()},
                                {"planned_bytes", static_cast<int64_t>(planned)},
                                {"measured_over_planned", used / planned},
                                {"dtype", f.dtype},
                                {"fp8", f.fp8},
                                {"dense", f.dense},
                                {"mtp", f.mtp}};
    fmt::print("{}\n", j.dump());
    return 0;
  }
  fmt::print(
      "{} seq {}: {}, {:.0f} GFLOP/s ({:.1f} % of the measured peak: {:.0f} with {} operands{}), "
      "{} parameters, {} active\n"
      "  forward {:.0f} ms, backward {:.0f} ms, update {:.0f} ms; peak memory {}, planned {}\n",
      f.preset, f.sequence, human_rate(rate, "tok"), rate * flops / 1e9,
      peak > 0 ? 100 * rate * flops / peak : 0.0, peak / 1e9, name(operands),
      operands == unit ? "" : ", which this CPU multiplies bf16 with",
      human_count(static_cast<double>(n.total)), human_count(static_cast<double>(n.active)),
      parts.forward_s * 1e3, parts.backward_s * 1e3, parts.update_s * 1e3, human_bytes(used),
      human_bytes(planned));
  return 0;
}

}  // namespace

void add_bench_train(CLI::App* bench, Command& run) {
  CLI::App* sub = bench->add_subcommand("train", "tokens/s of a training step");
  auto f = std::make_shared<BenchFlags>();
  sub->add_option("--preset", f->preset, "nano, micro, mini, small, base")->capture_default_str();
  sub->add_option("--seq", f->sequence, "sequence length")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--batch-tokens", f->batch_tokens, "tokens per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--micro-batch", f->micro_batch_tokens, "tokens per forward")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--seconds", f->seconds, "how long to measure")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--dtype", f->dtype, "bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--fp8", f->fp8, "FP8 matrix products, emulated");
  sub->add_flag("--dense", f->dense, "the dense model of equal active FLOPs");
  sub->add_flag("--mtp", f->mtp, "with the MTP module");
  sub->add_flag("--recompute", f->recompute, "recompute activations");
  sub->add_flag("--json", f->json, "one JSON object");
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return bench_train(*f); }; });
}

}  // namespace wels
