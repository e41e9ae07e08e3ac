// wels completion SHELL, wels man: what shells and man know of the flags, made from the flags
// themselves.
#include <fmt/format.h>

#include <algorithm>

#include "apps/commands.h"
#include "base/version.h"

namespace wels {
namespace {

using Apps = std::vector<const CLI::App*>;

// All subcommands with their paths ("bench infer"), depth first.
void collect(const CLI::App& app, const std::string& path,
             std::vector<std::pair<std::string, const CLI::App*>>& out) {
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_group().empty()) continue;  // hidden
    std::string own = path.empty() ? sub->get_name() : path + " " + sub->get_name();
    out.emplace_back(own, sub);
    collect(*sub, own, out);
  }
}

std::vector<const CLI::Option*> options_of(const CLI::App& app, bool positional) {
  std::vector<const CLI::Option*> out;
  for (const CLI::Option* o : app.get_options()) {
    if (o->get_positional() == positional) out.push_back(o);
  }
  return out;
}

std::vector<std::string> flags_of(const CLI::Option& o) {
  std::vector<std::string> out;
  for (const std::string& s : o.get_snames()) out.push_back("-" + s);
  for (const std::string& l : o.get_lnames()) out.push_back("--" + l);
  return out;
}

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string out;
  for (const std::string& w : words) out += (out.empty() ? "" : between) + w;
  return out;
}

// --- bash; zsh by its bashcompinit ---

std::string bash(const CLI::App& app) {
  std::vector<std::pair<std::string, const CLI::App*>> commands;
  collect(app, "", commands);
  std::string out =
      "_wels() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} command= w i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    w=${COMP_WORDS[i]}\n"
      "    [[ $w == -* ]] && break\n"
      "    case \"$command $w\" in\n";
  std::string paths;
  for (const auto& [path, sub] : commands)
    paths += (paths.empty() ? "" : " | ") +
             fmt::format("'{}'", path.find(' ') == std::string::npos ? " " + path : path);
  out += "      " + paths +
         ") command=${command:+$command }$w ;;\n      *) break ;;\n    esac\n"
         "  done\n  local words=\n  case $command in\n";
  auto add = [&](const std::string& path, const CLI::App& sub) {
    std::vector<std::string> words;
    for (const CLI::App* s : sub.get_subcommands([](const CLI::App*) { return true; }))
      words.push_back(s->get_name());
    for (const CLI::Option* o : options_of(sub, false)) {
      for (const std::string& f : flags_of(*o)) {
        if (f.starts_with("--")) words.push_back(f);
      }
    }
    out += fmt::format("    '{}') words='{}' ;;\n", path, joined(words, " "));
  };
  add("", app);
  for (const auto& [path, sub] : commands) add(path, *sub);
  out +=
      "  esac\n"
      "  if [[ $word == -* || -z $command || $command == bench ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "  else\n"
      "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
      "  fi\n"
      "}\n"
      "complete -o filenames -F _wels wels\n";
  return out;
}

// --- fish ---

std::string fish_quoted(std::string_view text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "'";
}

std::string fish(const CLI::App& app) {
  std::vector<std::pair<std::string, const CLI::App*>> commands;
  collect(app, "", commands);
  std::string out;
  for (const auto& [path, sub] : commands) {
    size_t space = path.find(' ');
    std::string when = space == std::string::npos
                           ? "__fish_use_subcommand"
                           : "__fish_seen_subcommand_from " + path.substr(0, space);
    out += fmt::format("complete -c wels -f -n {} -a {} -d {}\n", fish_quoted(when),
                       sub->get_name(), fish_quoted(sub->get_description()));
    for (const CLI::Option* o : options_of(*sub, false)) {
      std::string names;
      for (const std::string& s : o->get_snames()) names += " -s " + s;
      for (const std::string& l : o->get_lnames()) names += " -l " + l;
      bool takes = o->get_items_expected_max() > 0;
      out += fmt::format("complete -c wels -n {}{}{} -d {}\n",
                         fish_quoted("__fish_seen_subcommand_from " + sub->get_name()), names,
                         takes ? " -r" : "", fish_quoted(o->get_description()));
    }
  }
  return out;
}

// --- man ---

std::string roff(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  if (out.starts_with('.') || out.starts_with('\'')) out = "\\&" + out;
  return out;
}

void man_options(const CLI::App& app, std::string& out) {
  for (bool positional : {true, false}) {
    for (const CLI::Option* o : options_of(app, positional)) {
      std::string name = positional ? o->get_name(true) : joined(flags_of(*o), ", ");
      std::string value =
          !positional && o->get_items_expected_max() > 0 ? " " + o->get_type_name() : "";
      std::string usual = o->get_default_str().empty() ? "" : " (" + o->get_default_str() + ")";
      out += fmt::format(".TP\n\\fB{}\\fR{}\n{}{}\n", roff(name), roff(value),
                         roff(o->get_description()), roff(usual));
    }
  }
}

std::string man(const CLI::App& app) {
  std::vector<std::pair<std::string, const CLI::App*>> commands;
  collect(app, "", commands);
  std::string out = fmt::format(
      ".TH WELS 1 \"\" \"wels {}\" \"User commands\"\n.SH NAME\nwels \\- {}\n.SH SYNOPSIS\n"
      ".B wels\n.I command\n[\\fIoptions\\fR]\n.SH COMMANDS\n",
      roff(version()), roff(app.get_description().substr(app.get_description().find(": ") + 2)));
  for (const auto& [path, sub] : commands)
    out += fmt::format(".TP\n\\fBwels {}\\fR\n{}\n", roff(path), roff(sub->get_description()));
  for (const auto& [path, sub] : commands) {
    out += fmt::format(
        ".SH WELS {}\n{}\n",
        [&] {
          std::string upper = path;
          std::transform(upper.begin(), upper.end(), upper.begin(), [](char c) {
            return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
          });
          return roff(upper);
        }(),
        roff(sub->get_description()));
    man_options(*sub, out);
  }
  out += ".SH EXIT STATUS\n" + roff(app.get_footer()) + "\n";
  return out;
}

}  // namespace

void add_shell_help(CLI::App& app, Command& run) {
  CLI::App* completion =
      app.add_subcommand("completion", "what a shell completes, for its settings");
  auto shell = std::make_shared<std::string>();
  completion->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&app, shell, &run] {
    run = [&app, shell] {
      if (*shell == "zsh")
        fmt::print("#compdef wels\nautoload -U +X bashcompinit && bashcompinit\n");
      fmt::print("{}", *shell == "fish" ? fish(app) : bash(app));
      return 0;
    };
  });
  CLI::App* page = app.add_subcommand("man", "the manual page, in roff");
  page->callback([&app, &run] {
    run = [&app] {
      fmt::print("{}", man(app));
      return 0;
    };
  });
}

}  // namespace wels
