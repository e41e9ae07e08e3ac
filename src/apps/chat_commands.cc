#include "apps/chat_commands.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

#include "base/error.h"
#include "formats/json.h"
#include "rl/rephrase.h"

namespace wels {
namespace {

constexpr const char* kHelp =
    "/set parameter NAME VALUE   /set parameter alone lists them\n"
    "/set system TEXT            a system prompt (without TEXT: none)\n"
    "/set think | nothink        reasoning before the answer, where the template has the choice\n"
    "/set hidethinking | showthinking   fold the reasoning away, or show it\n"
    "/set format json            answers are JSON objects; format schema FILE: fit a JSON schema,\n"
    "                            format grammar FILE: match a GBNF; noformat: are free\n"
    "/set wordwrap | nowordwrap  lines end between words\n"
    "/set verbose | quiet        counts and speeds after an answer\n"
    "/set history | nohistory    the arrow keys bring inputs back\n"
    "/show parameters | system | template | info | thinking (the last answer's, unfolded)\n"
    "/load FILE   /save FILE     the conversation as JSON, [{\"role\", \"content\"}, ...]\n"
    "/clear                      forget the conversation, keep the system prompt\n"
    "/bye                        leave\n"
    "/? shortcuts                the keys\n"
    "\"\"\" begins and ends a message of several lines.\n";

constexpr const char* kShortcuts =
    "Ctrl-C            stops an answer, or gives up a line\n"
    "Ctrl-D            leaves\n"
    "Ctrl-A, Ctrl-E    to the line's beginning, its end\n"
    "Ctrl-K, Ctrl-U    cuts what is behind the cursor, the line\n"
    "Ctrl-W            cuts the word before the cursor\n"
    "Ctrl-L            clears the screen\n"
    "Ctrl-R            looks for an earlier input\n"
    "up, down          earlier inputs, with /set history\n";

// The first word, and what follows it.
std::pair<std::string, std::string> cut_word(const std::string& text) {
  size_t space = text.find(' ');
  if (space == std::string::npos) return {text, ""};
  size_t next = text.find_first_not_of(' ', space);
  return {text.substr(0, space), next == std::string::npos ? "" : text.substr(next)};
}

template <class T>
T number(const std::string& text) {
  T value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    throw Error("/set parameter",
                fmt::format("\"{}\" is no {}", printable(text),
                            std::is_integral_v<T> ? "whole number that fits" : "number"));
  }
  return value;
}

template <class T>
T number_from(const std::string& text, T least, T most) {
  T value = number<T>(text);
  if (value < least || value > most)
    throw Error("/set parameter", fmt::format("{} is out of range", value),
                fmt::format("use {} to {}", least, most));
  return value;
}

// \n, \t and \\ as in JSON: stop strings often hold line ends.
std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : 0;
    if (next == 'n' || next == 't' || next == '\\') {
      out += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string list_stops(const ChatSettings& s) {
  std::string out;
  for (const std::string& stop : s.stop) {
    if (!out.empty()) out += ' ';
    out += '"';
    for (char c : stop) out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
    out += '"';
  }
  return out.empty() ? "none" : out;
}

struct Parameter {
  const char* name;
  const char* meaning;
  void (*set)(ChatSettings&, const std::string&);
  std::string (*get)(const ChatSettings&);
};

// A number that SamplingParams::validate looks after.
template <auto Member>
Parameter sampling(const char* name, const char* meaning) {
  return {name, meaning,
          [](ChatSettings& s, const std::string& v) {
            s.sampling.*Member = number<std::remove_reference_t<decltype(s.sampling.*Member)>>(v);
          },
          [](const ChatSettings& s) { return fmt::format("{}", s.sampling.*Member); }};
}

void set_speculate(ChatSettings& s, const std::string& value) {
  for (const SpeculateName& n : speculate_names()) {
    if (value != n.name) continue;
    s.speculate = n.value;
    return;
  }
  throw Error("/set parameter", fmt::format("\"{}\" drafts nothing", printable(value)),
              "use none, mtp or ngram");
}

const char* find_name(Speculate value) {
  for (const SpeculateName& n : speculate_names()) {
    if (value == n.value) return n.name;
  }
  return "";
}

const std::vector<Parameter>& parameters() {
  using P = SamplingParams;
  static const std::vector<Parameter> table = {
      sampling<&P::temperature>("temperature", "0: always the most probable token"),
      sampling<&P::top_k>("top_k", "keep the k most probable (0: off)"),
      sampling<&P::top_p>("top_p", "keep the most probable up to this share (1: off)"),
      sampling<&P::min_p>("min_p", "drop what is less probable than this times the best"),
      sampling<&P::typical_p>("typical_p",
                              "keep what surprises as usual up to this share (1: off)"),
      sampling<&P::repetition_penalty>("repeat_penalty", "divides the logits of seen tokens"),
      {"repeat_last_n", "tokens that count as seen",
       [](ChatSettings& s, const std::string& v) {
         s.sampling.penalty_window =
             number_from<int64_t>(v, 0, std::numeric_limits<int32_t>::max());
       },
       [](const ChatSettings& s) { return fmt::format("{}", s.sampling.penalty_window); }},
      sampling<&P::presence_penalty>("presence_penalty", "subtracted from seen tokens"),
      sampling<&P::frequency_penalty>("frequency_penalty", "subtracted per occurrence"),
      sampling<&P::seed>("seed", "of the random numbers of each answer"),
      {"speculate", "who drafts tokens for the model to check: none, mtp or ngram", set_speculate,
       [](const ChatSettings& s) { return std::string(find_name(s.speculate)); }},
      {"think_budget", "tokens of a thought, then it is ended (no number: unbounded)",
       [](ChatSettings& s, const std::string& v) {
         s.think.most.reset();
         if (!v.empty())
           s.think.most = number_from<int64_t>(v, 0, std::numeric_limits<int32_t>::max());
       },
       [](const ChatSettings& s) {
         return s.think.most ? fmt::format("{}", *s.think.most) : std::string("none");
       }},
      {"think_min", "tokens of a thought before which it goes on instead of ending",
       [](ChatSettings& s, const std::string& v) {
         s.think.least = number_from<int64_t>(v, 0, std::numeric_limits<int32_t>::max());
       },
       [](const ChatSettings& s) { return fmt::format("{}", s.think.least); }},
      {"rephrase", "other ways in which the model says a question before it answers (0: none)",
       [](ChatSettings& s, const std::string& v) {
         s.rephrase = number_from<int64_t>(v, 0, kMostAngles);
       },
       [](const ChatSettings& s) { return fmt::format("{}", s.rephrase); }},
      {"num_predict", "tokens of an answer at most (0: until it ends; base models 200)",
       [](ChatSettings& s, const std::string& v) {
         s.num_predict = number_from<int64_t>(v, 0, std::numeric_limits<int32_t>::max());
       },
       [](const ChatSettings& s) { return fmt::format("{}", s.num_predict); }},
      {"num_ctx", "tokens of the conversation that the model sees",
       [](ChatSettings& s, const std::string& v) {
         s.num_ctx = number_from<int64_t>(v, 2, s.longest);
       },
       [](const ChatSettings& s) { return fmt::format("{}", s.num_ctx); }},
      {"stop", "one more text that ends an answer, \\n a line end (no text: forget them all)",
       [](ChatSettings& s, const std::string& v) {
         if (v.empty()) {
           s.stop.clear();
         } else {
           s.stop.push_back(unescape(v));
         }
       },
       list_stops}};
  return table;
}

std::string list_parameters(const ChatSettings& s) {
  std::string out;
  for (const Parameter& p : parameters())
    out += fmt::format("{:<18} {:<8} {}\n", p.name, p.get(s), p.meaning);
  return out;
}

// json, schema FILE, grammar FILE.
GrammarFlags parse_format(const std::string& text) {
  auto [kind, file] = cut_word(text);
  GrammarFlags f;
  f.json = kind == "json" && file.empty();
  if (kind == "schema") f.schema = file;
  if (kind == "grammar") f.grammar = file;
  if (!f.any())
    throw Error("/set format", fmt::format("knows no \"{}\"", printable(text)),
                "json, schema FILE or grammar FILE");
  make_grammar(f);  // what is wrong with it is said now
  return f;
}

std::string set(ChatState& state, const std::string& rest) {
  auto [what, value] = cut_word(rest);
  ChatSettings& s = state.settings;
  if (what == "parameter") {
    auto [name, number] = cut_word(value);
    if (name.empty()) return list_parameters(s);
    ChatSettings changed = s;
    set_parameter(changed, name, number);
    require_thoughts(changed, state.talk);
    s = std::move(changed);
  } else if (what == "system") {
    state.talk.set_system(value);
  } else if (what == "think" || what == "nothink") {
    if (!state.talk.can_switch_thinking()) {
      throw Error("/set " + what,
                  fmt::format("template {} has no such choice", state.talk.template_name()),
                  "--hide-thinking does not show the reasoning of a model that always reasons");
    }
    s.thinking = what == "think";
  } else if (what == "verbose" || what == "quiet") {
    s.verbose = what == "verbose";
  } else if (what == "hidethinking" || what == "showthinking") {
    s.hide_thinking = what == "hidethinking";
  } else if (what == "wordwrap" || what == "nowordwrap") {
    s.wordwrap = what == "wordwrap";
  } else if (what == "format" || what == "noformat") {
    s.format = what == "format" ? parse_format(value) : GrammarFlags();
  } else if (what == "history" || what == "nohistory") {
    s.history = what == "history";
  } else {
    throw Error("/set", fmt::format("knows no \"{}\"", printable(what)),
                "parameter, system, think, nothink, hidethinking, showthinking, format, noformat, "
                "wordwrap, nowordwrap, "
                "verbose, quiet, history or nohistory");
  }
  return "";
}

std::string show(const ChatState& state, const std::string& what) {
  if (what == "parameters") return list_parameters(state.settings);
  if (what == "info") return state.info;
  if (what == "thinking") return state.thought.empty() ? "no reasoning\n" : state.thought + "\n";
  if (what == "system") {
    std::string system = state.talk.system();
    return system.empty() ? "no system prompt\n" : system + "\n";
  }
  if (what == "template") {
    return fmt::format("{}\n{}\n", state.talk.template_name(),
                       state.talk.example(state.settings.thinking));
  }
  throw Error("/show", fmt::format("knows no \"{}\"", printable(what)),
              "parameters, system, template, info or thinking");
}

}  // namespace

void require_thoughts(const ChatSettings& s, const Conversation& talk) {
  if (talk.is_base() && (s.think.any() || s.rephrase > 0))
    throw Error(s.rephrase > 0 ? "rephrase" : "think_budget, think_min",
                "the model has no chat template: it continues texts, without thoughts or questions",
                "leave it out, or name a template");
  if (!talk.tokenizer() && (s.think.least > 0 || s.rephrase > 0))
    throw Error(s.rephrase > 0 ? "rephrase" : "think_min", "a server cannot be asked for this",
                "leave it out, or name the model's folder");
  if (!talk.tokenizer() && s.sampling.top_logprobs >= 0)
    throw Error("--logprobs", "is not shown of a server's answers", "leave it out");
  if (talk.tokenizer()) think_budget(*talk.tokenizer(), s.think);
}

void set_parameter(ChatSettings& settings, const std::string& name, const std::string& value) {
  for (const Parameter& p : parameters()) {
    if (name != p.name) continue;
    ChatSettings changed = settings;
    p.set(changed, value);
    changed.sampling.validate();
    changed.given.insert(name);
    settings = std::move(changed);
    return;
  }
  throw Error("/set parameter", fmt::format("knows no \"{}\"", printable(name)),
              "/set parameter alone lists them");
}

std::string run_command(ChatState& state, const std::string& line) {
  auto [command, rest] = cut_word(line);
  if (command == "/set") return set(state, rest);
  if (command == "/show") return show(state, rest);
  if (command == "/?" || command == "/help") return rest == "shortcuts" ? kShortcuts : kHelp;
  if (command == "/load" || command == "/save") {
    if (rest.empty()) throw Error(command, "needs the name of a file");
    bool load = command == "/load";
    load ? state.talk.load(rest) : state.talk.save(rest);
    return fmt::format("{} {} messages\n", load ? "loaded" : "saved", state.talk.messages().size());
  }
  if (command == "/clear") {
    state.talk.clear();
  } else if (command == "/bye" || command == "/exit") {
    state.leave = true;
  } else {
    throw Error(printable(command), "is no command", "/? lists them");
  }
  return "";
}

}  // namespace wels
