// The report card of a recipe: how good each stage's model is, and what it cost.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace wels {

// What a stage did. outcome: StageOutcome's; evaluation: json_of a TaskEvaluation, null: none.
struct CardRow {
  std::string name, kind, from = "";
  double active_parameters = 0;  // without embeddings and MTP; 0: no model
  nlohmann::ordered_json outcome = nullptr, evaluation = nullptr;
};

// Operations: 6 · N for a trained token, 2 · N for a sampled one, attention, scoring and evaluation
// not counted.
double flops_of(const CardRow& row);

// {"recipe", "price_per_hour", "stages": [...], "total": {...}}
nlohmann::ordered_json card_json(const std::string& recipe, const std::vector<CardRow>& rows,
                                 double price_per_hour);
// The same as a Markdown table, a line each, aligned for terminals; price 0: no money.
std::string card_table(const std::vector<CardRow>& rows, double price_per_hour);

}  // namespace wels
