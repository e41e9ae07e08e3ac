#include "apps/run_sections.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/machine.h"
#include "base/progress.h"

namespace wels {
namespace {

std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string out;
  for (std::string word; std::getline(in, word, '\0');) {
    if (!out.empty()) out += ' ';
    constexpr const char* kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,+@%";
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      out += word;
      continue;
    }
    out += '\'';
    for (char c : word) c == '\'' ? out += "'\\''" : out += c;
    out += '\'';
  }
  return out;
}

}  // namespace

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

void append_command(std::vector<InfoSection>& sections) {
  std::string line = command_line();
  if (!line.empty()) sections.push_back({"Command", {{"as typed", line}}});
}

std::string how_it_ended(const StageResult& r) {
  return fmt::format("{} {} steps, {} tokens{}", r.stopped ? "stopped after" : "done:", r.steps,
                     human_count(static_cast<double>(r.tokens)),
                     r.tokens_per_s > 0 ? ", " + human_rate(r.tokens_per_s, "tok") : "");
}

RunReport::RunReport(std::string out, int64_t total_steps, std::vector<InfoSection> sections)
    : out_(std::move(out)) {
  info_.name = std::filesystem::path(out_).filename().string();
  info_.started = info_.updated = unix_seconds();
  info_.total_steps = total_steps;
  info_.sections = std::move(sections);
  append_command(info_.sections);
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

void RunReport::failed(const std::string& what) {
  info_.status = "failed: " + what;
  write_run_info(out_, info_);
}

}  // namespace wels
