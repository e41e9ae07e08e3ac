#include "apps/expert_flags.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"

namespace wels {

double ExpertFlags::apply(const LoadedModel& m) const {
  if (gigabytes == 0) return 1;
  return apply(*m.dev, m.model->config(), {.dtype = m.dtype, .stored = stored_types(*m.model)});
}

double ExpertFlags::apply(Device& dev, const ModelConfig& cfg, const InferenceShape& shape) const {
  if (gigabytes == 0) return 1;
  auto* cpu = dynamic_cast<CpuDevice*>(&dev);
  if (!cpu)
    throw Error("--expert-memory", dev.name() + " keeps no experts of its own",
                "use --device cpu, or leave it out");
  int64_t all = expert_pack_bytes(dev, cfg, shape);
  if (all == 0) throw Error("--expert-memory", "the model has no routed experts", "leave it out");
  double share = std::min(gigabytes * 1e9 / static_cast<double>(all), 1.0);
  cpu->set_expert_share(share);
  return share;
}

std::string ExpertFlags::summary(const LoadedModel& m) const {
  if (gigabytes == 0) return "";
  const ExpertCounts& n = dynamic_cast<CpuDevice&>(*m.dev).expert_counts();
  if (n.uses == 0) return "all experts are in memory";
  double found = static_cast<double>(n.found) / static_cast<double>(std::max<int64_t>(n.uses, 1));
  return fmt::format("{:.1f} % of {} calls of experts found them in memory", 100 * found,
                     human_count(static_cast<double>(n.uses)));
}

}  // namespace wels
