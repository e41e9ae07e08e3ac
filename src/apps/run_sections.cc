#include "apps/run_sections.h"

#include <fmt/format.h>

#include "base/progress.h"

namespace wels {

InfoSection model_section(const ModelConfig& cfg) {
  ParameterCount n = count_parameters(cfg);
  auto num = [](auto x) { return fmt::format("{}", x); };
  auto count = [](int64_t x) { return human_count(static_cast<double>(x)); };
  return {"Model",
          {{"architecture", architecture_name(cfg.architecture)},
           {"blocks", num(cfg.num_hidden_layers)},
           {"width", num(cfg.hidden_size)},
           {"vocabulary", num(cfg.vocab_size)},
           {"experts", fmt::format("{} of {} + {} shared", cfg.num_experts_per_tok,
                                   cfg.n_routed_experts, cfg.n_shared_experts)},
           {"parameters", count(n.total)},
           {"active", count(n.active)},
           {"MTP", count(n.mtp)}}};
}

}  // namespace wels
