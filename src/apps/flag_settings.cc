#include "apps/flag_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/usage.h"
#include "base/error.h"
#include "formats/json.h"

namespace wels {
namespace {

using nlohmann::json;

std::string flag_of(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return key;
}

std::string setting_of(std::string flag) {
  std::replace(flag.begin(), flag.end(), '-', '_');
  return flag;
}

std::string settings_of(const CLI::App& app, const std::set<std::string>& reserved) {
  std::string names;
  for (const CLI::Option* o : app.get_options()) {
    if (o->get_lnames().empty() || o->get_group().empty()) continue;
    const std::string& flag = o->get_lnames()[0];
    if (!reserved.contains(flag)) names += (names.empty() ? "" : ", ") + setting_of(flag);
  }
  return names;
}

// "--task is required" -> "task is required"
std::string without_dashes(std::string text) {
  for (size_t at; (at = text.find("--")) != std::string::npos;) text.erase(at, 2);
  return text;
}

// One argument of the command line.
std::string argument(const CLI::Option& option, const std::string& key, const json& value,
                     const std::string& where) {
  std::string type = option.get_type_name();
  auto need = [&](bool right, const char* what) {
    if (!right)
      throw Error(where + "." + key, fmt::format("is {}, not {}", printable(value.dump()), what));
  };
  if (option.get_items_expected_max() == 0 || type.starts_with("BOOLEAN")) {
    need(value.is_boolean(), "true or false");
  } else if (type.starts_with("INT") || type.starts_with("UINT")) {
    need(value.is_number_integer(), "a whole number");
    need(type.starts_with("INT") || value >= 0, "0 or more");
  } else if (type.starts_with("FLOAT")) {
    need(value.is_number(), "a number");
  } else {
    need(value.is_string(), "a string");
  }
  return fmt::format("--{}={}", option.get_lnames()[0],
                     value.is_string() ? value.get<std::string>() : value.dump());
}

}  // namespace

void apply_settings(CLI::App& app, const json& object, const std::string& where,
                    const std::vector<std::string>& positional,
                    const std::set<std::string>& reserved) {
  app.set_help_flag("");
  std::vector<std::string> args;
  for (const auto& [key, value] : object.items()) {
    std::string flag = flag_of(key);
    const CLI::Option* option =
        key.find('-') == std::string::npos ? app.get_option_no_throw("--" + flag) : nullptr;
    if (reserved.contains(flag)) option = nullptr;
    if (!option)
      throw Error(where, fmt::format("there is no setting \"{}\"", printable(key)),
                  "use " + settings_of(app, reserved));
    args.push_back(argument(*option, key, value, where));
  }
  args.insert(args.end(), positional.begin(), positional.end());
  std::reverse(args.begin(), args.end());  // as CLI11 takes them
  try {
    app.parse(args);
  } catch (const CLI::ParseError& e) {
    Error told = usage_error(app, e);
    throw setting_error(Error(told.where(), without_dashes(told.fact()),
                              told.hint().starts_with("see ") ? "" : told.hint()),
                        where);
  }
}

Error setting_error(const Error& e, const std::string& where) {
  std::string place = where;
  if (e.where().starts_with("--")) {
    place += "." + setting_of(e.where().substr(2));
  } else if (!e.where().empty()) {
    place += ": " + e.where();
  }
  return Error(place, e.fact(), e.hint());
}

}  // namespace wels
