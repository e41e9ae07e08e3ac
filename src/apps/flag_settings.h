// A command's flags as settings in a JSON object: {"task": "parity:20", "p_cot": 0.2, "curriculum":
// true} stands for --task parity:20 --p-cot 0.2 --curriculum. So a recipe has every setting that
// the command has, under the same names, with the same checks.
#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"

namespace wels {

// Parses the object into what the flags of `app` point to; positional: its arguments without a
// name. reserved: flags that are not to be set ("out"). Throws Error(where, ...) for settings that
// there are not, of a wrong type, refused by the flag's own check, or missing.
void apply_settings(CLI::App& app, const nlohmann::json& object, const std::string& where,
                    const std::vector<std::string>& positional,
                    const std::set<std::string>& reserved);

// An error of a flag as one of the setting that stands for it: where.lora_targets for
// --lora-targets; any other with the place before it.
Error setting_error(const Error& e, const std::string& where);

}  // namespace wels
