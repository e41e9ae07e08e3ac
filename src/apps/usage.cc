#include "apps/usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "formats/json.h"

namespace wels {
namespace {

const auto kAll = [](const CLI::App*) { return true; };

// What is right. positive: not 0, which the parser does not say.
std::string range_text(double least, double most, bool positive) {
  constexpr double kLargest = std::numeric_limits<double>::max();
  if (most == kLargest && least == 0) return positive ? "more than 0" : "0 or more";
  return fmt::format("{} to {}", least, most);
}

bool is_number(const std::string& text) {
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0';
}

struct Finding {
  std::string where, what, hint;
};

// Names of a set as the parser writes it: {a,b} or {a->0,b->1}.
std::string names_in(const std::string& braces) {
  std::string out;
  size_t open = braces.find('{'), close = braces.find('}');
  if (open == std::string::npos || close == std::string::npos) return "";
  std::string rest = braces.substr(open + 1, close - open - 1) + ",";
  for (size_t at; (at = rest.find(',')) != std::string::npos; rest.erase(0, at + 1)) {
    std::string name = rest.substr(0, at);
    out += (out.empty() ? "" : ", ") + name.substr(0, name.find("->"));
  }
  return out;
}

// "--lr: Value x not in range a to b", "--dtype: x not in {auto,bf16}", ...
Finding bad_value(const CLI::App& command, const std::string& text) {
  size_t colon = text.find(": ");
  if (colon == std::string::npos) return {"", text, ""};
  Finding f{text.substr(0, colon), text.substr(colon + 2), ""};
  constexpr std::string_view kValue = "Value ", kRange = " not in range ", kTo = " to ";
  size_t range = f.what.rfind(kRange);
  if (f.what.starts_with(kValue) && range != std::string::npos) {
    std::string value = f.what.substr(kValue.size(), range - kValue.size());
    std::string bounds = f.what.substr(range + kRange.size());
    size_t to = bounds.find(kTo);
    const CLI::Option* o = command.get_option_no_throw(f.where);
    bool positive = o && o->get_type_name().ends_with(":" + CLI::PositiveNumber.get_description());
    double least = std::strtod(bounds.c_str(), nullptr),
           most = std::strtod(bounds.c_str() + to + kTo.size(), nullptr),
           given = std::strtod(value.c_str(), nullptr);
    bool within = given >= least && given <= most && !(positive && given == 0);
    f.hint = "use " + range_text(least, most, positive);
    f.what = !is_number(value) ? fmt::format("\"{}\" is no number that fits", printable(value))
             : within          ? value + " is no whole number"
                               : value + " is out of range";
    return f;
  }
  if (f.what.starts_with(kValue)) f.what.erase(0, kValue.size());
  size_t set = f.what.find(" not in {"), check = f.what.find(" value in {");
  if (set != std::string::npos || check != std::string::npos) {
    bool plain = set != std::string::npos;
    std::string value = plain ? f.what.substr(0, set) : f.what.substr(6, check - 6);  // "Check x"
    f.hint = "use " + names_in(f.what.substr(plain ? set : check));
    f.what = fmt::format("there is no \"{}\"", printable(value));
  }
  return f;
}

// "Could not convert: --top-k = abc"
Finding bad_type(const CLI::App& command, const std::string& text) {
  constexpr std::string_view kBegin = "Could not convert: ", kIs = " = ";
  size_t is = text.find(kIs);
  if (!text.starts_with(kBegin) || is == std::string::npos) return {"", text, ""};
  Finding f{text.substr(kBegin.size(), is - kBegin.size()), "", ""};
  std::string value = text.substr(is + kIs.size()), type;
  if (const CLI::Option* o = command.get_option_no_throw(f.where)) type = o->get_type_name();
  f.what = fmt::format("\"{}\" is no {}", printable(value),
                       type.starts_with("INT")    ? "whole number that fits"
                       : type.starts_with("UINT") ? "whole number that fits, 0 or more"
                                                  : "number that fits");
  return f;
}

// The flag or command that is most like a word; empty: none is.
std::string nearest(const std::string& word, const std::vector<std::string>& names) {
  std::string best;
  size_t least = std::max<size_t>(1, word.size() / 3);
  for (const std::string& name : names) {  // Levenshtein's distance, row by row
    std::vector<size_t> row(name.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t corner = row[0]++;
      for (size_t j = 1; j <= name.size(); ++j) {
        size_t change = corner + (word[i - 1] != name[j - 1]);
        corner = row[j];
        row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
      }
    }
    if (row.back() <= least && (best.empty() || row.back() < least)) {
      best = name;
      least = row.back();
    }
  }
  return best;
}

std::string commands_of(const CLI::App& app) {
  std::string out;
  for (const CLI::App* sub : app.get_subcommands(kAll)) {
    if (!sub->get_group().empty()) out += (out.empty() ? "" : ", ") + sub->get_name();
  }
  return out;
}

// One that was not expected: a flag, a command, or a positional argument too many.
Finding unexpected(const CLI::App& command, const std::string& path, std::string word) {
  std::vector<std::string> names;
  bool flag = word.starts_with('-');
  bool wants_command = !flag && !command.get_subcommands(kAll).empty();
  if (flag) {
    word = word.substr(0, word.find('='));
    for (const CLI::Option* o : command.get_options()) {
      for (const std::string& l : o->get_lnames()) names.push_back("--" + l);
    }
  } else if (wants_command) {
    for (const CLI::App* sub : command.get_subcommands(kAll)) names.push_back(sub->get_name());
  }
  std::string like = nearest(word, names), seen = printable(word);
  Finding f{path, "", like.empty() ? "" : "did you mean " + like + "?"};
  f.what = flag            ? fmt::format("there is no flag {}", seen)
           : wants_command ? fmt::format("unknown command '{}'", seen)
                           : fmt::format("\"{}\" is one argument too many", seen);
  if (wants_command && like.empty()) f.hint = "use one of " + commands_of(command);
  return f;
}

std::string finite(const std::string& text) {
  return is_number(text) && !std::isfinite(std::strtod(text.c_str(), nullptr))
             ? "Value " + text + " is no finite number"
             : "";
}

Finding find(const CLI::App& command, const std::string& path, const CLI::ParseError& e) {
  std::string text = e.what(), kind = e.get_name();
  auto split = [&](const char* word) {
    size_t at = text.find(word);
    return at == std::string::npos
               ? std::pair(std::string(), text)
               : std::pair(text.substr(0, at), text.substr(at + std::string(word).size()));
  };
  if (kind == "ValidationError") return bad_value(command, text);
  if (kind == "ConversionError") return bad_type(command, text);
  if (text.starts_with("The following argument")) {  // its kind is the command's name
    std::string words = split("expected: ").second;
    std::vector<std::string> rest = command.remaining();
    return unexpected(command, path, rest.empty() ? words : rest[0]);
  }
  if (text == "A subcommand is required") {
    std::vector<std::string> rest = command.remaining();
    if (!rest.empty()) return unexpected(command, path, rest[0]);
    return {path, "needs a command", "use one of " + commands_of(command)};
  }
  if (kind == "RequiredError") return {path, text, ""};
  if (kind == "RequiresError")
    return {split(" requires ").first, "needs " + split(" requires ").second + " too", ""};
  if (kind == "ExcludesError")
    return {split(" excludes ").first, "does not go with " + split(" excludes ").second,
            "leave one of them out"};
  if (kind == "ArgumentMismatch" && text.ends_with(" missing"))
    return {split(": ").first, "needs a value", ""};
  return {"", text, ""};
}

// A number with a sign would be taken as a large one without.
std::string not_negative(const std::string& text) {
  return text.starts_with('-') ? fmt::format("Value {} not in range 0 to {}", text,
                                             std::numeric_limits<double>::max())
                               : "";
}

}  // namespace

void tighten_flags(CLI::App& app) {
  bool positional = false;
  for (const CLI::Option* o : app.get_options()) positional |= o->get_positional();
  for (CLI::Option* o : app.get_options()) {
    if (o->get_type_name().starts_with("FLOAT")) o->check(finite);
    if (!o->get_positional() && o->get_items_expected_max() == 1 &&
        o->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw)
      o->take_last();
    if (o->get_type_name().starts_with("UINT")) o->check(not_negative);
    if (positional && !o->get_positional() && o->get_items_expected_max() > 1)
      o->allow_extra_args(false);
  }
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) tighten_flags(*sub);
}

Error usage_error(const CLI::App& app, const CLI::ParseError& e) {
  const CLI::App* command = &app;
  std::string path = app.get_name();
  for (auto below = command->get_subcommands(); !below.empty();
       below = command->get_subcommands()) {
    command = below[0];
    path += " " + command->get_name();
  }
  Finding f = find(*command, path, e);
  if (f.where.empty()) f.where = path;
  if (f.hint.empty()) f.hint = "see " + path + " --help";
  return Error(f.where, f.what, f.hint);
}

void add_help(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("help", "what a command does, and its flags");
  auto words = std::make_shared<std::vector<std::string>>();
  sub->add_option("command", *words, "such as generate, or bench infer; none: all commands");
  sub->callback([&app, words, &run] {
    run = [&app, words] {
      const CLI::App* command = &app;
      std::string path;
      for (const std::string& word : *words) {
        path += (path.empty() ? "" : " ") + command->get_name();
        const CLI::App* next = nullptr;
        for (const CLI::App* below : command->get_subcommands(kAll)) {
          if (below->get_name() == word) next = below;
        }
        if (!next) {
          Finding f = unexpected(*command, path, word);
          throw Error(f.where, f.what, f.hint.empty() ? "wels help lists them" : f.hint);
        }
        command = next;
      }
      // Not command->help(): the program's is that of the command that is running, this one.
      path += (path.empty() ? "" : " ") + command->get_name();
      fmt::print("{}",
                 command->get_formatter()->make_help(command, path, CLI::AppFormatMode::Normal));
      return 0;
    };
  });
}

}  // namespace wels
