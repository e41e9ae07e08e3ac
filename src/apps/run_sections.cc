#include "apps/run_sections.h"

#include <fmt/format.h>

#include <fstream>

#include "base/file.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "train/run_folder.h"

namespace wels {
namespace {

// The next page comes no sooner than so many times as long as the last one took to make.
constexpr double kPause = 100;

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

// When the run of this folder began; 0: it has none that could go on.
double started_before(const std::string& out) {
  if (list_checkpoints(out).empty()) return 0;
  try {
    return read_run_info(out).started;
  } catch (const Error&) {  // damaged: it is written anew
    return 0;
  }
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

std::string how_it_ended(const StageResult& r) {
  return fmt::format("{} {} steps, {} tokens{}", r.stopped ? "stopped after" : "done:", r.steps,
                     human_count(static_cast<double>(r.tokens)),
                     r.tokens_per_s > 0 ? ", " + human_rate(r.tokens_per_s, "tok") : "");
}

RunReport::RunReport(std::string out, std::vector<InfoSection> sections) : out_(std::move(out)) {
  info_.name = folder_name(out_);
  info_.started = started_before(out_);
  if (info_.started <= 0) info_.started = unix_seconds();
  info_.sections = std::move(sections);
  std::string line = command_line();
  if (!line.empty()) info_.sections.push_back({"Command", {{"as typed", line}}});
}

void RunReport::write(int64_t total_steps) {
  info_.total_steps = total_steps;
  info_.updated = unix_seconds();
  write_run_info(out_, info_);
  bool over = info_.status != "running";
  if (written_ && !over && monotonic_seconds() < next_page_s_) return;
  written_ = true;
  double begin = monotonic_seconds();
  write_report(out_ + "/report.html", {out_});
  double end = monotonic_seconds();
  next_page_s_ = end + kPause * (end - begin);
}

void RunReport::finish(const StageResult& r) {
  info_.status = r.stopped ? "stopped" : "finished";
  write(r.stopped ? info_.total_steps : r.steps);
}

void RunReport::failed(const std::string& what) {
  if (!written_) return;
  info_.status = "failed: " + what;
  try {
    write(info_.total_steps);
  } catch (const Error& e) {  // on a full disk, say: what ended the run is the news
    log_warn("{}", e.what());
  }
}

}  // namespace wels
