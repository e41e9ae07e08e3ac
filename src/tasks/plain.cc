#include "tasks/plain.h"

#include <algorithm>
#include <array>
#include <optional>

#include "text/unicode.h"

namespace wels {
namespace {

constexpr std::string_view kWhite = " \t\n\r\f\v";

// The inside of the last \boxed{...} that is closed.
std::optional<std::string_view> last_boxed(std::string_view text) {
  constexpr std::string_view kBoxed = "\\boxed";
  std::optional<std::string_view> last;
  size_t last_begin = 0;
  std::vector<size_t> open;  // where the braces that are open begin; 0: not a box
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') open.push_back(text.substr(0, i).ends_with(kBoxed) ? i + 1 : 0);
    if (text[i] != '}' || open.empty()) continue;
    size_t begin = open.back();
    open.pop_back();
    if (begin <= last_begin) continue;
    last = text.substr(begin, i - begin);
    last_begin = begin;
  }
  return last;
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  size_t begin = text.find_first_not_of(kWhite);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kWhite) - begin + 1);
}

std::string narrowed(std::string_view text) {
  std::string out;
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const uint8_t* end = p + text.size();
  while (p < end) {
    Char c = read_char(p, end);
    if (c.code >= 0xFF01 && c.code <= 0xFF5E) {
      out += static_cast<char>(c.code - 0xFF01 + '!');
    } else if (c.code == 0x2212) {
      out += '-';
    } else if (c.code == 0x3000 || c.code == 0xA0 || c.code == 0x2009 || c.code == 0x202F) {
      out += ' ';
    } else {
      out.append(reinterpret_cast<const char*>(p), c.size);
    }
    p += c.size;
  }
  return std::string(trimmed(out));
}

std::string normalised(std::string_view text) {
  std::string out, narrow = narrowed(text);
  for (std::string_view word : split_words(narrow)) {
    if (!out.empty()) out += ' ';
    out += lower_ascii(word);
  }
  if (out.size() > 1 && out.back() == '.') out.pop_back();
  if (constexpr std::string_view kStop = "。"; out.size() > kStop.size() && out.ends_with(kStop))
    out.resize(out.size() - kStop.size());
  if (out.size() > 1 && out.front() == out.back() && (out.front() == '"' || out.front() == '\''))
    out = out.substr(1, out.size() - 2);
  return out;
}

std::string_view marked_answer(std::string_view answer) {
  if (std::optional<std::string_view> boxed = last_boxed(answer)) return *boxed;
  constexpr std::string_view kHashes = "####", kBegin = "<answer>", kEnd = "</answer>";
  if (size_t at = answer.rfind(kHashes); at != std::string_view::npos) {
    std::string_view behind = trimmed(answer.substr(at + kHashes.size()));
    return behind.substr(0, behind.find('\n'));
  }
  if (size_t end = answer.rfind(kEnd); end != std::string_view::npos) {
    size_t begin = answer.substr(0, end).rfind(kBegin);
    if (begin != std::string_view::npos) {
      begin += kBegin.size();
      return answer.substr(begin, end - begin);
    }
  }
  return answer;
}

std::string_view within_marks(std::string_view text) {
  struct Pair {
    std::string_view open, close;
  };
  static constexpr std::array<Pair, 12> kPairs = {{{"**", "**"},
                                                   {"__", "__"},
                                                   {"*", "*"},
                                                   {"`", "`"},
                                                   {"$", "$"},
                                                   {"\\(", "\\)"},
                                                   {"\\[", "\\]"},
                                                   {"\\text{", "}"},
                                                   {"\\textbf{", "}"},
                                                   {"\\textit{", "}"},
                                                   {"\\mathrm{", "}"},
                                                   {"\\mathbf{", "}"}}};
  text = trimmed(text);
  auto inside = [&](const Pair& p) -> std::string_view {
    std::string_view t = text;
    if (t.ends_with('.')) t.remove_suffix(1);
    if (t.size() <= p.open.size() + p.close.size()) return {};
    if (!t.starts_with(p.open) || !t.ends_with(p.close)) return {};
    t = t.substr(p.open.size(), t.size() - p.open.size() - p.close.size());
    return t.find(p.close) == std::string_view::npos ? trimmed(t) : std::string_view();
  };
  for (const Pair& p : kPairs) {
    if (std::string_view t = inside(p); !t.empty()) return t;
  }
  return {};
}

std::string_view unwrapped(std::string_view text) {
  text = trimmed(text);
  for (std::string_view t; !(t = within_marks(text)).empty();) text = t;
  return text;
}

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> words;
  size_t at = 0;
  while ((at = text.find_first_not_of(kWhite, at)) != std::string_view::npos) {
    size_t end = std::min(text.find_first_of(kWhite, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

}  // namespace wels
