#include "apps/r1_card.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/progress.h"

namespace wels {
namespace {

using nlohmann::ordered_json;
using Cells = std::vector<std::string>;

double number(const ordered_json& j, const char* key) {
  return j.is_object() && j.contains(key) ? j[key].get<double>() : 0.0;
}

double money(double seconds, double price_per_hour) { return seconds / 3600 * price_per_hour; }

// Names of tasks or texts in the order in which they first come.
Cells names_of(const std::vector<CardRow>& rows, const char* what) {
  Cells names;
  for (const CardRow& r : rows) {
    if (!r.evaluation.is_object() || !r.evaluation.contains(what)) continue;
    for (const auto& [name, part] : r.evaluation[what].items()) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

// "1.834": bits per byte of a held-out text.
std::string text_cell(const ordered_json& evaluation, const std::string& text) {
  if (!evaluation.is_object() || !evaluation.contains("texts")) return "";
  const ordered_json& texts = evaluation["texts"];
  return texts.contains(text) ? fmt::format("{:.4f}", number(texts[text], "bits_per_byte")) : "";
}

bool has_examples(const ordered_json& evaluation) {
  return evaluation.is_object() && evaluation.contains("examples");
}

// "1.20 / 0.71": nats per learned token, share of them that is most probable.
std::string examples_cell(const ordered_json& evaluation) {
  if (!has_examples(evaluation)) return "";
  const ordered_json& e = evaluation["examples"];
  return fmt::format("{:.3f} / {:.3f}", number(e, "nats_per_token"), number(e, "token_accuracy"));
}

// "0.57 / 0.61 / 1.00": greedy, sampled, pass@k
std::string accuracy_cell(const ordered_json& evaluation, const std::string& task) {
  if (!evaluation.is_object() || !evaluation.contains("tasks") ||
      !evaluation["tasks"].contains(task))
    return "";
  const ordered_json& p = evaluation["tasks"][task];
  std::string out = fmt::format("{:.3f}", number(p, "greedy"));
  if (p.contains("sampled"))
    out += fmt::format(" / {:.3f} / {:.3f}", number(p, "sampled"), number(p, "pass_at_k"));
  return out;
}

// The greedy answers' figure, and the sampled ones'.
std::string pair_cell(const ordered_json& evaluation, const char* key, int digits) {
  if (!evaluation.is_object() || !evaluation.contains("greedy")) return "";
  std::string out = fmt::format("{:.{}f}", number(evaluation["greedy"], key), digits);
  if (evaluation.contains("sampled"))
    out += fmt::format(" / {:.{}f}", number(evaluation["sampled"], key), digits);
  return out;
}

std::string count_cell(double n) { return n > 0 ? human_count(n) : ""; }

std::string aligned(const std::vector<Cells>& table) {
  std::vector<size_t> widths(table[0].size(), 3);
  for (const Cells& row : table) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  auto line = [&](const Cells& row) {
    for (size_t i = 0; i < row.size(); ++i) out += fmt::format("| {:<{}} ", row[i], widths[i]);
    out += "|\n";
  };
  line(table[0]);
  for (size_t w : widths) out += "|" + std::string(w + 2, '-');
  out += "|\n";
  for (size_t i = 1; i < table.size(); ++i) line(table[i]);
  return out;
}

int64_t samples_of(const std::vector<CardRow>& rows) {
  for (const CardRow& r : rows) {
    if (r.evaluation.is_object() && r.evaluation.contains("samples"))
      return r.evaluation["samples"].get<int64_t>();
  }
  return 0;
}

struct Total {
  double flops = 0, seconds = 0, trained = 0, sampled = 0;
};

Total total_of(const std::vector<CardRow>& rows) {
  Total t;
  for (const CardRow& r : rows) {
    t.flops += flops_of(r);
    t.seconds += number(r.outcome, "seconds");
    t.trained += number(r.outcome, "trained_tokens");
    t.sampled += number(r.outcome, "sampled_tokens");
  }
  return t;
}

Cells cost_cells(const Total& t, double price_per_hour) {
  Cells out = {count_cell(t.trained), count_cell(t.sampled),
               t.flops > 0 ? fmt::format("{:.2e}", t.flops) : "", human_duration(t.seconds)};
  if (price_per_hour > 0) out.push_back(fmt::format("{:.4f}", money(t.seconds, price_per_hour)));
  return out;
}

}  // namespace

double flops_of(const CardRow& r) {
  return r.active_parameters *
         (6 * number(r.outcome, "trained_tokens") + 2 * number(r.outcome, "sampled_tokens"));
}

ordered_json card_json(const std::string& recipe, const std::vector<CardRow>& rows,
                       double price_per_hour) {
  ordered_json stages = ordered_json::array();
  for (const CardRow& r : rows) {
    ordered_json j = {{"name", r.name}, {"kind", r.kind}};
    if (!r.from.empty()) j["from"] = r.from;
    if (r.active_parameters > 0) j["active_parameters"] = r.active_parameters;
    j.update(r.outcome);
    j["flops"] = flops_of(r);
    j["money"] = money(number(r.outcome, "seconds"), price_per_hour);
    if (r.evaluation.is_object()) j["evaluation"] = r.evaluation;
    stages.push_back(std::move(j));
  }
  Total t = total_of(rows);
  return {{"recipe", recipe},
          {"price_per_hour", price_per_hour},
          {"stages", stages},
          {"total",
           {{"trained_tokens", t.trained},
            {"sampled_tokens", t.sampled},
            {"flops", t.flops},
            {"seconds", t.seconds},
            {"money", money(t.seconds, price_per_hour)}}}};
}

std::string card_table(const std::vector<CardRow>& rows, double price_per_hour) {
  Cells tasks = names_of(rows, "tasks"), texts = names_of(rows, "texts");
  bool examples = std::any_of(rows.begin(), rows.end(),
                              [](const CardRow& r) { return has_examples(r.evaluation); });
  Cells head = {"stage", "kind", "from"};
  for (const std::string& t : texts) head.push_back(t + ": bits per byte");
  if (examples) head.push_back("examples: nats / right tokens");
  int64_t k = samples_of(rows);
  for (const std::string& t : tasks)
    head.push_back(k > 0 ? fmt::format("{}: greedy / sampled / pass@{}", t, k) : t + ": greedy");
  Cells more = {"kept", "trained", "sampled", "FLOPs", "time"};
  if (!tasks.empty()) more.insert(more.begin(), {"length", "thoughts", "format", "one language"});
  head.insert(head.end(), more.begin(), more.end());
  if (price_per_hour > 0) head.push_back("money");
  std::vector<Cells> table = {head};
  auto add_cost = [&](Cells& cells, const Total& t) {
    for (std::string& c : cost_cells(t, price_per_hour)) cells.push_back(std::move(c));
  };
  for (const CardRow& r : rows) {
    Cells cells = {r.name, r.kind, r.from};
    for (const std::string& t : texts) cells.push_back(text_cell(r.evaluation, t));
    if (examples) cells.push_back(examples_cell(r.evaluation));
    for (const std::string& t : tasks) cells.push_back(accuracy_cell(r.evaluation, t));
    if (!tasks.empty()) {
      cells.push_back(pair_cell(r.evaluation, "length_mean", 1));
      cells.push_back(pair_cell(r.evaluation, "long_share", 2));
      cells.push_back(pair_cell(r.evaluation, "format", 2));
      cells.push_back(pair_cell(r.evaluation, "one_language", 2));
    }
    cells.push_back(count_cell(number(r.outcome, "kept")));
    add_cost(cells, total_of({r}));
    table.push_back(std::move(cells));
  }
  Cells sum(head.size() - (price_per_hour > 0 ? 5 : 4));
  sum[0] = "all";
  add_cost(sum, total_of(rows));
  table.push_back(std::move(sum));
  return aligned(table);
}

}  // namespace wels
