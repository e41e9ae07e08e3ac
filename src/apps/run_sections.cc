#include "apps/run_sections.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/machine.h"
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

RunReport::RunReport(std::string out, int64_t total_steps, std::vector<InfoSection> sections)
    : out_(std::move(out)) {
  info_.name = std::filesystem::path(out_).filename().string();
  info_.started = info_.updated = unix_seconds();
  info_.total_steps = total_steps;
  info_.sections = std::move(sections);
}

void RunReport::write() {
  info_.updated = unix_seconds();
  write_run_info(out_, info_);
  write_report(out_ + "/report.html", {out_});
}

void RunReport::finish(const StageResult& r) {
  info_.status = r.stopped ? "stopped" : "finished";
  if (!r.stopped) info_.total_steps = r.steps;
  write();
}

}  // namespace wels
