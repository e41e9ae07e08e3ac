#include "distill/colearn_state.h"

#include <fmt/format.h>

#include <string>
#include <vector>

namespace wels {

using nlohmann::json;

json to_json(const PairEvaluation& e) {
  return {{"accuracy", {e.accuracy[0], e.accuracy[1]}},
          {"nats", {e.nats[0], e.nats[1]}},
          {"kl", e.kl},
          {"agreement", e.agreement},
          {"complementarity", e.complementarity},
          {"items", e.items}};
}

PairEvaluation evaluation_of(const json& j) {
  PairEvaluation e;
  for (int i : {kSmall, kLarge}) {
    e.accuracy[i] = j.at("accuracy").at(static_cast<size_t>(i)).get<double>();
    e.nats[i] = j.at("nats").at(static_cast<size_t>(i)).get<double>();
  }
  e.kl = j.at("kl").get<double>();
  e.agreement = j.at("agreement").get<double>();
  e.complementarity = j.at("complementarity").get<double>();
  e.items = j.at("items").get<int64_t>();
  return e;
}

json to_json(const ColearnPhase& p) {
  return {{"round", p.round},       {"name", p.name},       {"large", p.large},
          {"flops", p.flops},       {"seconds", p.seconds}, {"after", to_json(p.after)},
          {"kept", p.kept},         {"lambda", p.lambda},   {"w", p.w},
          {"explored", p.explored}, {"solved", p.solved},   {"trouble", p.trouble}};
}

ColearnPhase phase_of(const json& j) {
  ColearnPhase p;
  p.round = j.at("round").get<int64_t>();
  p.name = j.at("name").get<std::string>();
  p.large = j.at("large").get<bool>();
  p.flops = j.at("flops").get<double>();
  p.seconds = j.at("seconds").get<double>();
  p.after = evaluation_of(j.at("after"));
  p.kept = j.at("kept").get<bool>();
  p.lambda = j.at("lambda").get<double>();
  p.w = j.at("w").get<double>();
  p.explored = j.at("explored").get<int64_t>();
  p.solved = j.value("solved", std::vector<int64_t>());
  p.trouble = j.value("trouble", "");
  return p;
}

json settings_json(const ColearnSettings& s, const std::string (&models)[2], uint64_t data) {
  return {{"small", models[0]},
          {"large", models[1]},
          {"tasks", s.tasks},
          {"channels", {s.a, s.b1, s.b2, s.b3, s.c}},
          {"rounds", s.rounds},
          {"round_flops", s.round_flops},
          {"rl_share", s.rl_share},
          {"lambda", s.lambda},
          {"alpha", s.alpha},
          {"w", s.w},
          {"keep", {s.keep_low, s.keep_high}},
          {"pool", s.pool},
          {"replay", s.replay},
          {"favour", s.favour},
          {"explore", {s.explore.questions, s.explore.tries, s.explore.large_tries}},
          {"lr", {s.lr_small, s.lr_large, s.lr_rl}},
          {"rl", {s.rl_groups, s.rl_samples}},
          {"eval_items", s.eval_items},
          {"batch", {s.sft.batch, s.sft.longest, s.sft.micro_batch_tokens}},
          {"dtype", name(s.sft.trainer.dtype)},
          {"max_tokens", s.rollout.max_tokens},
          {"seed", s.sft.seed},
          {"data", fmt::format("{:016x}", data)}};
}

}  // namespace wels
