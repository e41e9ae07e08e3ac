#include "apps/answer_view.h"

#include <gmock/gmock.h>

#include "text/bpe_trainer.h"

namespace wels {
namespace {

// What is shown of the text, pushed in pieces of every size: it must not depend on them.
std::string shown(ShowThinking how, const std::string& text) {
  std::string whole;
  for (size_t size = text.size(); size > 0; --size) {
    std::string out;
    AnswerView view(how, [&](std::string_view piece) { out += piece; });
    for (size_t at = 0; at < text.size(); at += size) view.push(text.substr(at, size));
    view.finish();
    if (size == text.size()) whole = out;
    EXPECT_EQ(out, whole) << "pieces of " << size;
  }
  return whole;
}

TEST(AnswerView, ShowsReasoningPlainDimmedOrNot) {
  std::string text = "<think>\nwhy < </thin</think>\n\nso <think>";
  EXPECT_EQ(shown(ShowThinking::kPlain, text), text);
  EXPECT_EQ(shown(ShowThinking::kDimmed, text),
            "\033[2m<think>\nwhy < </thin</think>\033[0m\n\nso <think>");
  EXPECT_EQ(shown(ShowThinking::kHidden, text), "so <think>");
}

TEST(AnswerView, ATerminalGetsNoCommandsFromAModel) {
  std::string text = "<think>a\033[2J</think>\tb\r\n\033]0;title\007\x7f";
  EXPECT_EQ(shown(ShowThinking::kDimmed, text),
            "\033[2m<think>a␛[2J</think>\033[0m\tb\n␛]0;title␇␡");
  std::string out;
  AnswerView view(ShowThinking::kFolded, [&](std::string_view piece) { out += piece; });
  view.push("é\u009b2J 中");
  view.finish();
  EXPECT_EQ(out, "é\uFFFD2J 中");
  EXPECT_EQ(shown(ShowThinking::kPlain, text), text);  // a file gets what was said
}

TEST(AnswerView, FoldsReasoningIntoALineAndKeepsIt) {
  std::string out;
  AnswerView view(
      ShowThinking::kFolded, [&](std::string_view piece) { out += piece; }, "/show thinking");
  view.push("<think>why");
  EXPECT_EQ(out, "\033[2mthinking ... \033[0m");
  view.push(" not</think>\n\nso");
  view.finish();
  EXPECT_EQ(view.thought(), "<think>why not</think>");
  EXPECT_THAT(out, testing::ContainsRegex("\r.*thought for .*s \\(/show thinking\\)\n.*so$"));
  out.clear();
  AnswerView once(ShowThinking::kFolded, [&](std::string_view piece) { out += piece; });
  once.push("<think>why</think>so");
  EXPECT_THAT(out, testing::ContainsRegex("thought for [^(]*s\n.*so$"));
}

TEST(WordWrap, BreaksBetweenWordsWhateverThePieces) {
  auto wrapped = [](int columns, const std::string& text) {
    std::string out;
    WordWrap wrap(columns, [&](std::string_view piece) { out += piece; });
    for (char c : text) wrap.push(std::string(1, c));
    wrap.finish();
    return out;
  };
  EXPECT_EQ(wrapped(0, "a line that is long"), "a line that is long");
  EXPECT_EQ(wrapped(10, "a line that is long"), "a line \nthat is \nlong");
  EXPECT_EQ(wrapped(6, "a line\nthat"), "a line\nthat");
  EXPECT_EQ(wrapped(4, "longer words"), "longer\nwords");
  EXPECT_EQ(wrapped(6, "one \033[2mtwo\033[0m"), "one \n\033[2mtwo\033[0m");
  EXPECT_EQ(wrapped(12, "a\tb\tc"), "a\tb\t\nc");           // columns 0, 8 and 16
  EXPECT_EQ(wrapped(4, "ab \033\ncdef"), "ab \033\ncdef");  // an escape that is none
  std::string out;
  WordWrap wrap(5, [&](std::string_view piece) { out += piece; });
  wrap.push("中文 字中");
  wrap.finish();
  EXPECT_EQ(out, "中文 \n字中");
  out.clear();
  wrap.push("\n\033中\U0010FFFFd ef");
  wrap.finish();
  EXPECT_EQ(out, "\n\033中\U0010FFFFd \nef");
}

TEST(AnswerView, TokensAreListedWithWhatElseWasProbable) {
  static const std::vector<std::string_view> text{"the cat sat on the mat"};
  Tokenizer t(train_bpe(text, deepseek_style_options(280)));
  std::vector<int32_t> ids = t.encode("a\n");
  ASSERT_EQ(ids.size(), 2u);
  SampledToken token{.id = ids[0]};
  token.plain_logp = -0.5;
  EXPECT_EQ(logprob_line(t, token), "\"a\" -0.5000");
  token.top = {{ids[1], -0.25}, {ids[0], -0.5}};
  EXPECT_EQ(logprob_line(t, token), "\"a\" -0.5000   of \"\\n\" -0.2500, \"a\" -0.5000");
}

TEST(AnswerView, LeavesAnswersWithoutReasoningAlone) {
  for (auto how : {ShowThinking::kPlain, ShowThinking::kDimmed, ShowThinking::kHidden}) {
    for (const char* text : {" \n<thin ice", "</think>", "a <think>b</think>", "  ", "<think"})
      EXPECT_EQ(shown(how, text), text);
  }
}

TEST(AnswerView, ReasoningThatIsCutShortEnds) {
  EXPECT_EQ(shown(ShowThinking::kDimmed, "<think>why</th"), "\033[2m<think>why</th\033[0m");
  EXPECT_EQ(shown(ShowThinking::kHidden, "<think>why</th"), "");
  AnswerView view(ShowThinking::kHidden, [](std::string_view) {});
  view.push("<think>x");
  EXPECT_TRUE(view.thinking());
  view.push("</think>");
  EXPECT_FALSE(view.thinking());
}

}  // namespace
}  // namespace wels
