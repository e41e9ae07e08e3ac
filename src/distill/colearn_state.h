// What a run of colearn() writes down of itself in state.json, and reads again.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>

#include "distill/colearn.h"

namespace wels {

// Places of the two models in every pair of values.
constexpr int kSmall = 0, kLarge = 1;

nlohmann::json to_json(const PairEvaluation& e);
nlohmann::json to_json(const ColearnPhase& p);

// Back again. Throw nlohmann::json::exception where a field is missing or of another kind.
PairEvaluation evaluation_of(const nlohmann::json& j);
ColearnPhase phase_of(const nlohmann::json& j);

// What must be the same in a run that is resumed. data: hash of the examples.
nlohmann::json settings_json(const ColearnSettings& s, const std::string (&models)[2],
                             uint64_t data);

}  // namespace wels
