#include "apps/answer_view.h"

#include <gtest/gtest.h>

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
