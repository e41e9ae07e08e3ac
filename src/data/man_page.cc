#include "data/man_page.h"

#include <map>
#include <vector>

namespace wels {
namespace {

const std::map<std::string_view, std::string_view> kNames = {
    {"aq", "'"}, {"cq", "’"}, {"oq", "‘"}, {"lq", "“"}, {"rq", "”"}, {"dq", "\""}, {"em", "—"},
    {"en", "–"}, {"hy", "-"}, {"bu", "•"}, {"co", "©"}, {"rg", "®"}, {"tm", "™"},  {"rs", "\\"},
    {"ha", "^"}, {"ti", "~"}, {"ga", "`"}, {"at", "@"}, {"sh", "#"}, {"Do", "$"},  {"ba", "|"},
    {"or", "|"}, {"lB", "["}, {"rB", "]"}, {"lC", "{"}, {"rC", "}"}, {"la", "<"},  {"ra", ">"},
    {"<=", "≤"}, {">=", "≥"}, {"!=", "≠"}, {"->", "→"}, {"<-", "←"}, {"mu", "×"},  {"+-", "±"},
    {"mi", "-"}, {"pl", "+"}, {"eq", "="}, {"sl", "/"}, {"de", "°"}, {"ss", "ß"},  {"Lq", "“"},
    {"Rq", "”"}};

// The name of an escape at s[i]: one character, (xx or [xxx]; moves i behind it.
std::string_view escape_name(std::string_view s, size_t& i) {
  if (i >= s.size()) return {};
  size_t begin = i, size = 1;
  if (s[i] == '(') {
    begin = i + 1;
    size = std::min<size_t>(2, s.size() - begin);
    i = begin + size;
  } else if (s[i] == '[') {
    begin = i + 1;
    size_t close = s.find(']', begin);
    size = (close == s.npos ? s.size() : close) - begin;
    i = std::min(s.size(), begin + size + 1);
  } else {
    ++i;
  }
  return s.substr(begin, size);
}

// \h'...', \w'...' and the like: an argument between two equal characters.
void skip_quoted(std::string_view s, size_t& i) {
  if (i >= s.size()) return;
  size_t close = s.find(s[i], i + 1);
  i = close == s.npos ? s.size() : close + 1;
}

// Text without escapes. What follows \" is a comment.
std::string plain(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    if (s[i] != '\\') {
      out += s[i++];
      continue;
    }
    if (++i >= s.size()) break;
    char c = s[i++];
    switch (c) {
      case '"':
      case '#':
        return out;
      case '-':
        out += '-';
        break;
      case 'e':
      case 'E':
        out += '\\';
        break;
      case '\'':
      case '`':
      case '.':
      case '\\':
        out += c;
        break;
      case ' ':
      case '~':
      case '0':
      case 't':
        out += ' ';
        break;
      case 'f':
      case '*':
      case 'n':
      case 'F':
      case 'k':
      case 'g':
      case 'm':
      case 'M': {
        if (c == 'n' && i < s.size() && (s[i] == '+' || s[i] == '-')) ++i;
        std::string_view name = escape_name(s, i);
        if (c == '*') {
          auto it = kNames.find(name);
          if (it != kNames.end()) out += it->second;
        }
        break;
      }
      case 's':
        if (i < s.size() && (s[i] == '+' || s[i] == '-')) ++i;
        while (i < s.size() && s[i] >= '0' && s[i] <= '9') ++i;
        break;
      case '(':
      case '[': {
        --i;
        auto it = kNames.find(escape_name(s, i));
        if (it != kNames.end()) out += it->second;
        break;
      }
      case 'h':
      case 'v':
      case 'w':
      case 'o':
      case 'D':
      case 'l':
      case 'L':
      case 'b':
      case 'x':
      case 'Z':
        skip_quoted(s, i);
        break;
      case '&':
      case '/':
      case ',':
      case '|':
      case '^':
      case '%':
      case ':':
      case 'c':
      case '{':
      case '}':
      case ')':
        break;
      default:
        out += c;
    }
  }
  return out;
}

// The arguments of a request line: separated by blanks, quotes hold blanks together.
std::vector<std::string> arguments(std::string_view line) {
  std::vector<std::string> out;
  for (size_t i = 0; i < line.size();) {
    while (i < line.size() && (line[i] == ' ' || line[i] == '\t')) ++i;
    if (i >= line.size()) break;
    std::string word;
    if (line[i] == '"') {
      for (++i; i < line.size(); ++i) {
        if (line[i] == '"' && !(i + 1 < line.size() && line[i + 1] == '"')) break;
        if (line[i] == '"') ++i;
        word += line[i];
      }
      ++i;
    } else {
      while (i < line.size() && line[i] != ' ' && line[i] != '\t') {
        if (line[i] == '\\' && i + 1 < line.size())
          word += line[i++];  // an escaped blank belongs to the word
        word += line[i++];
      }
    }
    if (word.starts_with("\\\"")) break;
    out.push_back(plain(word));
  }
  return out;
}

std::string join(const std::vector<std::string>& words, size_t first, std::string_view between) {
  std::string out;
  for (size_t i = first; i < words.size(); ++i) {
    if (i > first) out += between;
    out += words[i];
  }
  return out;
}

class Page {
 public:
  std::string text;
  void break_paragraph() {
    end_line();
    if (!text.empty() && !text.ends_with("\n\n")) text += '\n';
  }
  void end_line() {
    while (text.ends_with(' ')) text.pop_back();
    if (!text.empty() && !text.ends_with('\n')) text += '\n';
  }
  void add(std::string_view words) {
    if (!verbatim) {
      size_t first = words.find_first_not_of(" \t");
      words = first == words.npos ? std::string_view() : words.substr(first);
    }
    if (words.empty()) return;
    text += words;
    text += verbatim ? '\n' : ' ';
  }
  bool verbatim = false;
};

// mdoc macros that put something around their arguments.
const std::map<std::string_view, std::pair<std::string_view, std::string_view>> kAround = {
    {"Fl", {"-", ""}},   {"Dq", {"“", "”"}}, {"Sq", {"‘", "’"}}, {"Qq", {"\"", "\""}},
    {"Pq", {"(", ")"}},  {"Bq", {"[", "]"}}, {"Op", {"[", "]"}}, {"Aq", {"<", ">"}},
    {"Brq", {"{", "}"}}, {"Ql", {"‘", "’"}}};

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  for (std::string_view n : names) {
    if (n == name) return true;
  }
  return false;
}

// A request line; returns the name of the request that ends a passage to be left out (a macro's
// definition), or "".
std::string_view request(Page& page, std::string_view name, const std::vector<std::string>& args) {
  if (is_one_of(name, {"de", "ig", "de1", "am"})) return "..";
  if (name == "TS") return ".TE";
  if (name == "EQ") return ".EN";
  if (is_one_of(name, {"SH", "SS", "Sh", "Ss"})) {
    page.break_paragraph();
    page.text += join(args, 0, " ");
    if (!args.empty()) page.break_paragraph();
  } else if (is_one_of(name, {"PP", "P", "LP", "Pp", "sp", "HP", "TP", "TQ"})) {
    page.break_paragraph();
  } else if (name == "IP" || name == "It") {
    page.break_paragraph();
    if (!args.empty()) page.add(name == "IP" ? args[0] : join(args, 0, " "));
    page.end_line();
  } else if (is_one_of(name, {"br", "RS", "RE", "Bl", "El"})) {
    page.end_line();
  } else if (is_one_of(name, {"nf", "EX", "Bd"})) {
    page.end_line();
    page.verbatim = true;
  } else if (is_one_of(name, {"fi", "EE", "Ed"})) {
    page.verbatim = false;
    page.break_paragraph();
  } else if (is_one_of(name, {"B", "I", "SM", "SB", "R"})) {
    page.add(join(args, 0, " "));
  } else if (is_one_of(name, {"BR", "BI", "IB", "IR", "RB", "RI"})) {
    page.add(join(args, 0, ""));
  } else if (name == "Nd") {
    page.add("– " + join(args, 0, " "));
  } else if (kAround.contains(name)) {
    const auto& [before, after] = kAround.at(name);
    page.add(std::string(before) + join(args, 0, " ") + std::string(after));
  } else if (name == "Xr" && args.size() >= 2) {
    page.add(args[0] + "(" + args[1] + ")" + join(args, 2, ""));
  } else if (is_one_of(name, {"UR", "MT", "UE", "ME", "Nm", "Ar", "Pa", "Em", "Sy", "Li",
                              "Cm", "Ic", "Va", "Fn", "Ft", "Fa", "Dv", "Ev", "Er", "Tn",
                              "No", "Ns", "An", "Lk", "Mt", "St", "Vt", "In", "Fx", "Nx",
                              "Ox", "Ux", "Bx", "Tg", "Cd", "Dl", "D1"})) {
    page.add(join(args, 0, " "));
  }
  return "";  // everything else (titles, fonts, registers, conditions) makes no text
}

}  // namespace

std::string man_page_text(std::string_view roff) {
  Page page;
  std::string_view skip_until;
  while (!roff.empty()) {
    size_t newline = roff.find('\n');
    std::string_view line = roff.substr(0, newline);
    roff.remove_prefix(newline == roff.npos ? roff.size() : newline + 1);
    if (!skip_until.empty()) {
      if (line.starts_with(skip_until)) skip_until = {};
      continue;
    }
    if (!line.empty() && (line[0] == '.' || line[0] == '\'')) {
      size_t begin = line.find_first_not_of(" \t", 1);
      if (begin == line.npos || line[begin] == '\\') continue;
      size_t end = std::min(line.find_first_of(" \t", begin), line.size());
      skip_until = request(page, line.substr(begin, end - begin), arguments(line.substr(end)));
    } else if (line.empty()) {
      page.verbatim ? void(page.text += '\n') : page.break_paragraph();
    } else {
      page.add(plain(line));
    }
  }
  page.end_line();
  return page.text;
}

}  // namespace wels
