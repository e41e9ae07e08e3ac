#include "train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <tuple>

#include "base/error.h"
#include "base/machine.h"
#include "base/progress.h"
#include "train/dry_device.h"
#include "train/ema.h"

namespace wels {
namespace {

constexpr int kSteps = 4;  // until the pool's buffers are spread over their uses as they stay

std::string bytes_text(int64_t n) { return human_bytes(static_cast<double>(n)); }

using TypeOf = std::function<DType(const WeightSpec&)>;

// Gives every weight addresses of the device without any memory behind them; returns the bytes of
// values and of gradients.
std::pair<int64_t, int64_t> place_weights(DryDevice& dev, Model& model, const TypeOf& type_of,
                                          bool trainable) {
  int64_t values = 0, gradients = 0;
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    DType type = type_of(s);
    for (int64_t e = 0; e < s.experts; ++e) {
      int64_t bytes = s.rows * row_bytes(type, s.cols);
      w.value.emplace_back(dev.allocate(bytes), type, s.rows, s.cols);
      values += bytes;
      if (!trainable || s.kind == WeightKind::kBuffer) continue;
      w.grad.emplace_back(dev.allocate(bytes), DType::kF32, s.rows, s.cols);
      gradients += bytes;
    }
  });
  return {values, gradients};
}

int64_t scaled(int64_t bytes, double scale) {
  return static_cast<int64_t>(static_cast<double>(bytes) * scale);
}

MicroBatch blank(int64_t sequences, int64_t length) {
  std::vector<int32_t> ids(static_cast<size_t>(length));
  MicroBatch out;
  for (int64_t i = 0; i < sequences; ++i) out.batch.append(ids);
  out.targets.resize(static_cast<size_t>(sequences * length));
  return out;
}

// A step's largest micro-batch and, where its last one is shorter, that one, of token 0. Of very
// many rows only a part, `scale` times smaller: what a step keeps grows with the rows, and lists of
// all of them would need memory themselves.
std::vector<MicroBatch> blank_batch(const TrainingShape& s, double* scale) {
  constexpr int64_t kMostRows = 65536;
  int64_t sequences = std::max<int64_t>(1, s.batch_tokens / s.sequence_length);
  int64_t at_once = std::clamp<int64_t>(s.micro_batch_tokens / s.sequence_length, 1, sequences);
  int64_t rest = sequences % at_once, most = std::max<int64_t>(1, kMostRows / s.sequence_length);
  *scale = 1;
  if (at_once > most) {
    *scale = static_cast<double>(at_once) / static_cast<double>(most);
    at_once = most;
    rest = 0;
  }
  std::vector<MicroBatch> out = {blank(at_once, s.sequence_length)};
  if (rest > 0) out.push_back(blank(rest, s.sequence_length));
  return out;
}

void generate_token(DryDevice& dev, Model& model, DType dtype) {
  Pool pool = device_pool(dev);
  KvCache cache(model.config(), dtype, 1);
  Batch batch;
  batch.append(std::vector<int32_t>{0}, 0, cache.add_sequence());
  ForwardOptions options;
  options.kv = &cache;
  Ctx ctx{.dev = dev, .pool = pool, .tape = nullptr, .dtype = dtype};
  model.logits(ctx, model.hidden(ctx, batch, options));
}

}  // namespace

int64_t MemoryPlan::total() const {
  return program + weights + gradients + optimizer + average + packed + activations + backward +
         cache + teacher + work;
}

std::vector<MemoryPlan::Part> MemoryPlan::parts() const {
  std::vector<Part> out = {{"program", program},
                           {"weights", weights},
                           {"gradients", gradients},
                           {"optimiser state", optimizer},
                           {"average of the weights", average},
                           {"packed weights", packed},
                           {"activations", activations},
                           {"gradients of activations", backward},
                           {"KV cache", cache},
                           {"work space", work}};
  if (teacher > 0) out.insert(out.end() - 1, {"other models", teacher});
  return out;
}

MemoryPlan plan_training(const Device& dev, const ModelConfig& cfg, const TrainingShape& shape) {
  MemoryPlan plan;
  plan.program = rss_bytes();
  DryDevice dry(dev);
  Model model(cfg);
  TypeOf masters = [](const WeightSpec&) { return DType::kF32; };
  std::tie(plan.weights, plan.gradients) =
      place_weights(dry, model, shape.lora ? shape.stored : masters, !shape.lora);
  if (shape.lora) {
    add_lora(model, *shape.lora, DType::kF32, 1);
    plan.weights += count_lora(model) * 4;
    plan.gradients = count_lora(model) * 4;
  }
  int64_t before = dry.held_bytes();
  std::optional<WeightEma> average;
  if (shape.average) average.emplace(dry, model, 0.999);
  plan.average = dry.held_bytes() - before;
  before = dry.held_bytes();
  Trainer trainer(dry, model, shape.trainer);
  double scale;
  std::vector<MicroBatch> batch = blank_batch(shape, &scale);
  int depths = static_cast<int>(cfg.num_nextn_predict_layers);
  Objective objective = pretrain_objective(batch, depths, shape.mtp_lambda);
  StepStats stats;
  for (int i = 0; i < kSteps; ++i) stats = trainer.step(batch, objective, 0);
  int64_t held = trainer.pool().bytes_held();
  plan.activations = scaled(stats.activation_bytes, scale);
  plan.backward = scaled(held - stats.activation_bytes, scale);
  plan.optimizer = dry.held_bytes() - before - held;
  if (shape.samples) generate_token(dry, model, shape.trainer.dtype);
  plan.packed = dry.packed_bytes();
  plan.teacher = shape.teacher;
  if (shape.lora && shape.other_lora) {
    OtherLora others(model, copy_lora(model));
    Pool pool = device_pool(dry);
    Ctx ctx{.dev = dry, .pool = pool, .tape = nullptr, .dtype = shape.trainer.dtype};
    model.hidden(ctx, batch[0].batch, {});
    plan.teacher += count_lora(model) * 4 + dry.packed_bytes() - plan.packed;
  }
  plan.work = dry.work_bytes();
  return plan;
}

std::function<DType(const WeightSpec&)> stored_types(Model& model) {
  std::map<std::string, DType> types;
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec& s) {
    if (!w.value.empty()) types[s.name] = w.value[0].dtype;
  });
  return [types](const WeightSpec& s) {
    auto it = types.find(s.name);
    return it == types.end() ? DType::kF32 : it->second;
  };
}

std::function<DType(const WeightSpec&)> config_types(const ModelConfig& cfg) {
  DType plain = cfg.torch_dtype == "float32"   ? DType::kF32
                : cfg.torch_dtype == "float16" ? DType::kF16
                                               : DType::kBF16;
  bool fp8 = cfg.fp8.block_rows > 0;
  return [plain, fp8](const WeightSpec& s) { return fp8 && s.fp8 ? DType::kF8E4M3 : plain; };
}

namespace {

// What stays packed of `all` that the stacks take: their share, and two stacks whole while a prompt
// goes through them (gate and up).
int64_t packed_with_share(const DryDevice& dry, double share) {
  int64_t gone = 0, largest = 0;
  for (const DryDevice::Stack& s : dry.stacks()) {
    int64_t stay =
        std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(s.experts)));
    int64_t rest = s.bytes / s.experts * (s.experts - std::min(stay, s.experts));
    gone += rest;
    largest = std::max(largest, rest);
  }
  return dry.packed_bytes() - gone + std::min(gone, 2 * largest);
}

}  // namespace

int64_t expert_pack_bytes(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape) {
  DryDevice dry(dev);
  Model model(cfg);
  place_weights(dry, model, shape.stored, false);
  generate_token(dry, model, shape.dtype);
  int64_t bytes = 0;
  for (const DryDevice::Stack& s : dry.stacks()) bytes += s.bytes;
  return bytes;
}

MemoryPlan plan_inference(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape) {
  MemoryPlan plan;
  plan.program = rss_bytes();
  DryDevice dry(dev);
  Model model(cfg);
  plan.weights = place_weights(dry, model, shape.stored, false).first;
  generate_token(dry, model, shape.dtype);
  plan.packed = packed_with_share(dry, shape.expert_share);
  plan.cache = shape.context * kv_token_bytes(cfg, shape.cache_dtype.value_or(shape.dtype));
  plan.work = dry.work_bytes();
  return plan;
}

int64_t teacher_bytes(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape,
                      int64_t rows) {
  DryDevice dry(dev);
  Model model(cfg);
  place_weights(dry, model, shape.stored, false);
  Pool pool = device_pool(dry);
  int64_t length = std::min<int64_t>(rows, cfg.max_position_embeddings);
  MicroBatch mb = blank(std::max<int64_t>(rows / length, 1), length);
  Ctx ctx{.dev = dry, .pool = pool, .tape = nullptr, .dtype = shape.dtype};
  model.hidden(ctx, mb.batch, {});
  int64_t held = pool.bytes_held();
  if (shape.context > 0) generate_token(dry, model, shape.dtype);
  return dry.packed_bytes() + held + dry.work_bytes() +
         shape.context * kv_token_bytes(cfg, shape.cache_dtype.value_or(shape.dtype));
}

namespace {

// What would make generating fit, that does not; empty: nothing would.
std::string smaller_generating(const Device& dev, const ModelConfig& cfg,
                               const InferenceShape& shape, const InferenceNeed& need) {
  auto resident = [&](const InferenceShape& s) { return plan_inference(dev, cfg, s).resident(); };
  std::string hint;
  if (need.longest_context > shape.context / 8)
    hint = fmt::format("use a context of {} tokens: chat's --context, generate's --max-tokens",
                       need.longest_context);
  InferenceShape eight = shape;
  eight.cache_dtype = DType::kQ8_0;
  if (resident(eight) <= need.available)
    hint = "use --kv-cache q8" + (hint.empty() ? "" : ", or " + hint.substr(4));
  for (DType type : {DType::kQ8_0, DType::kQ6_K, DType::kQ4_K, DType::kQ3_K, DType::kQ2_K}) {
    if (!hint.empty()) break;
    InferenceShape smaller = shape;
    smaller.stored = [&](const WeightSpec& s) {
      DType now = shape.stored(s);
      bool shrinks = s.kind == WeightKind::kMatrix && !s.full_precision &&
                     s.cols % info(type).block == 0 && row_bytes(type, 256) < row_bytes(now, 256);
      return shrinks ? type : now;
    };
    if (resident(smaller) <= need.available)
      hint = fmt::format("turn it into a smaller type: wels quantize MODEL --type {}", name(type));
  }
  InferenceShape less = shape;
  less.expert_share = 0;
  int64_t room = need.available - resident(less);
  if (room >= 100'000'000 && expert_pack_bytes(dev, cfg, shape) > 0) {
    hint +=
        fmt::format("{}keep fewer experts in memory: --expert-memory {:.1f}",
                    hint.empty() ? "" : ", or ", std::floor(static_cast<double>(room) / 1e8) / 10);
  }
  return hint.empty() ? "use a smaller model" : hint;
}

}  // namespace

InferenceNeed inference_need(const Device& dev, const ModelConfig& cfg, const InferenceShape& shape,
                             int64_t available) {
  InferenceNeed need{.plan = plan_inference(dev, cfg, shape), .available = available};
  const MemoryPlan& plan = need.plan;
  int64_t token_bytes = kv_token_bytes(cfg, shape.cache_dtype.value_or(shape.dtype));
  int64_t room = std::max<int64_t>(available - plan.packed - plan.work, 0);
  need.longest_context = room / token_bytes / 64 * 64;
  need.text = fmt::format(
      "generating needs {} (weights for the kernels {}, KV cache of {} tokens {}, work space {}), "
      "{} are free",
      bytes_text(plan.resident()), bytes_text(plan.packed), shape.context, bytes_text(plan.cache),
      bytes_text(plan.work), bytes_text(available));
  if (!need.fits()) need.hint = smaller_generating(dev, cfg, shape, need);
  return need;
}

InferenceNeed require_inference_memory(const Device& dev, const ModelConfig& cfg,
                                       const InferenceShape& shape, int64_t available) {
  InferenceNeed need = inference_need(dev, cfg, shape, available);
  if (!need.fits()) throw Error("memory", need.text, need.hint);
  return need;
}

namespace {

// The first of some cheaper ways to train the same model that fits, as flags; empty: none does.
std::string cheaper(const Device& dev, const ModelConfig& cfg, const TrainingShape& shape,
                    int64_t available) {
  for (bool recompute : {shape.trainer.recompute, true}) {
    for (int64_t tokens = std::min(shape.micro_batch_tokens, shape.batch_tokens);
         tokens >= shape.sequence_length; tokens /= 2) {
      TrainingShape s = shape;
      s.trainer.recompute = recompute;
      s.micro_batch_tokens = tokens;
      if (plan_training(dev, cfg, s).total() > available) continue;
      return fmt::format("--micro-batch {}{}", tokens, recompute ? " --recompute" : "");
    }
  }
  return "";
}

}  // namespace

void require_memory(const Device& dev, const ModelConfig& cfg, const TrainingShape& shape,
                    int64_t available) {
  MemoryPlan plan = plan_training(dev, cfg, shape);
  if (plan.total() <= available) return;
  std::string parts;
  for (const auto& [name, bytes] : plan.parts()) {
    if (bytes > 0)
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name, bytes_text(bytes));
  }
  std::string flags = cheaper(dev, cfg, shape, available);
  throw Error(
      "memory",
      fmt::format("training needs {} ({}), {} are free: {} are missing", bytes_text(plan.total()),
                  parts, bytes_text(available), bytes_text(plan.total() - available)),
      flags.empty() ? "use a smaller --preset, --depth, --vocab or --seq" : "use " + flags);
}

}  // namespace wels
