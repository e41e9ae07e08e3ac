#include "apps/answer_view.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "text/markers.h"
#include "text/unicode.h"

namespace wels {
namespace {

constexpr std::string_view kSpaces = " \t\r\n";
constexpr int kTab = 8;
constexpr const char* kDim = "\033[2m";
constexpr const char* kUndim = "\033[0m";

}  // namespace

std::string for_terminal(std::string_view text) {
  constexpr uint32_t kPictures = 0x2400, kDeletePicture = 0x2421, kReplacement = 0xFFFD;
  std::string out;
  auto* p = reinterpret_cast<const uint8_t*>(text.data());
  for (auto* end = p + text.size(); p < end;) {
    Char c = read_char(p, end);
    if (c.code < ' ' && c.code != '\n' && c.code != '\t') {
      if (c.code != '\r') append_utf8(out, kPictures + c.code);
    } else if (c.code == 0x7F) {
      append_utf8(out, kDeletePicture);
    } else if (c.code >= 0x80 && c.code < 0xA0) {
      append_utf8(out, kReplacement);
    } else {
      out.append(reinterpret_cast<const char*>(p), c.size);
    }
    p += c.size;
  }
  return out;
}

std::string logprob_line(const Tokenizer& tokenizer, const SampledToken& token) {
  auto entry = [&](int32_t id, double logp) {
    nlohmann::json text = utf8_lossy(tokenizer.token_bytes(id));
    return fmt::format("{} {:.4f}", text.dump(), logp);
  };
  std::string out = entry(token.id, token.plain_logp);
  for (size_t i = 0; i < token.top.size(); ++i)
    out += (i == 0 ? "   of " : ", ") + entry(token.top[i].first, token.top[i].second);
  return out;
}

void AnswerView::begin_thinking() {
  state_ = State::kThinking;
  begun_s_ = monotonic_seconds();
  if (how_ == ShowThinking::kDimmed) show_(kDim);
  if (how_ == ShowThinking::kFolded) show_(std::string(kDim) + "thinking ... " + kUndim);
}

void AnswerView::think(std::string_view text) {
  thought_ += text;
  bool shows = how_ == ShowThinking::kPlain || how_ == ShowThinking::kDimmed;
  if (shows && !text.empty()) show_(text);
}

void AnswerView::end_thinking() {
  if (how_ == ShowThinking::kDimmed) show_(kUndim);
  if (how_ == ShowThinking::kFolded)
    show_(fmt::format("\r\033[K{}thought for {}{}\n{}", kDim,
                      human_duration(monotonic_seconds() - begun_s_),
                      unfold_.empty() ? "" : fmt::format(" ({})", unfold_), kUndim));
}

ShowThinking show_thinking(bool hide) {
  bool terminal = ::isatty(STDOUT_FILENO) != 0;
  if (hide) return terminal ? ShowThinking::kFolded : ShowThinking::kHidden;
  return terminal ? ShowThinking::kDimmed : ShowThinking::kPlain;
}

void AnswerView::push(std::string_view text) {
  bool terminal = how_ == ShowThinking::kDimmed || how_ == ShowThinking::kFolded;
  held_ += terminal ? for_terminal(text) : text;
  if (state_ == State::kBegin) {
    size_t at = std::min(held_.find_first_not_of(kSpaces), held_.size());
    std::string_view word = std::string_view(held_).substr(at, kThinkBegin.size());
    if (word != kThinkBegin && kThinkBegin.starts_with(word)) return;  // may become the tag
    if (word == kThinkBegin) {
      begin_thinking();
    } else {
      state_ = State::kAnswer;
    }
  }
  if (state_ == State::kThinking) {
    size_t end = held_.find(kThinkEnd);
    if (end == std::string::npos) {
      size_t keep = std::min(held_.size(), kThinkEnd.size() - 1);
      while (!kThinkEnd.starts_with(std::string_view(held_).substr(held_.size() - keep))) --keep;
      think(std::string_view(held_).substr(0, held_.size() - keep));
      held_.erase(0, held_.size() - keep);
      return;
    }
    think(std::string_view(held_).substr(0, end + kThinkEnd.size()));
    end_thinking();
    held_.erase(0, end + kThinkEnd.size());
    state_ = State::kAnswer;
    skip_space_ = how_ == ShowThinking::kHidden || how_ == ShowThinking::kFolded;
  }
  if (skip_space_) held_.erase(0, std::min(held_.find_first_not_of(kSpaces), held_.size()));
  if (held_.empty()) return;
  skip_space_ = false;
  show_(held_);
  held_.clear();
}

void AnswerView::finish() {
  if (state_ == State::kThinking) {
    think(held_);
    end_thinking();
  } else if (!held_.empty()) {
    show_(held_);
  }
  held_.clear();
}

void WordWrap::place() {
  if (word_.empty()) return;
  if (column_ > 0 && column_ + width_ > columns_) {
    word_.insert(0, "\n");
    column_ = 0;
  }
  show_(word_);
  column_ += width_;
  word_.clear();
  width_ = 0;
}

void WordWrap::push(std::string_view text) {
  if (columns_ <= 0) return show_(text);
  auto* p = reinterpret_cast<const uint8_t*>(text.data());
  for (auto* end = p + text.size(); p < end;) {
    Char c = read_char(p, end);
    std::string_view bytes(reinterpret_cast<const char*>(p), c.size);
    p += c.size;
    int width = char_columns(c.code);
    escape_ = c.code == '\033' || (escape_ && c.code >= ' ' && c.code < 0x7F);
    if (escape_) {  // colours take no room; a letter ends them
      uint32_t letter = c.code | 0x20;
      escape_ = letter < 'a' || letter > 'z';
      word_ += bytes;
    } else if (c.code == '\n' || c.code == '\r') {
      place();
      show_(bytes);
      column_ = 0;
    } else if (c.code == ' ' || c.code == '\t') {
      place();
      if (column_ < columns_) show_(bytes);
      column_ = c.code == ' ' ? column_ + 1 : column_ / kTab * kTab + kTab;
    } else {
      if (width == 2) place();  // Chinese may break anywhere
      word_ += bytes;
      width_ += width;
      if (width == 2) place();
    }
  }
}

void WordWrap::finish() { place(); }

int output_columns() {
  winsize size{};
  bool terminal = ::isatty(STDOUT_FILENO) != 0;
  return terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace wels
