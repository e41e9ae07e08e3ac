#include "tasks/answer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tasks/number.h"
#include "tasks/plain.h"

namespace wels {
namespace {

TEST(ParseCompletion, ReadsAThoughtThatThePromptBegan) {
  Completion c = parse_completion("0110\n</think>\n0 ", true);
  EXPECT_EQ(c.thought, "0110");
  EXPECT_EQ(c.answer, "0");
  EXPECT_TRUE(c.well_formed);
}

TEST(ParseCompletion, ReadsAnEmptyThought) {
  Completion c = parse_completion("</think>1", true);
  EXPECT_EQ(c.thought, "");
  EXPECT_EQ(c.answer, "1");
  EXPECT_TRUE(c.well_formed);
  EXPECT_TRUE(parse_completion("<think></think>1", false).well_formed);
}

TEST(ParseCompletion, ReadsAThoughtThatTheCompletionBegins) {
  Completion c = parse_completion("\n<think>a</think>b", false);
  EXPECT_EQ(c.thought, "a");
  EXPECT_EQ(c.answer, "b");
  EXPECT_TRUE(c.well_formed);
}

TEST(ParseCompletion, TakesAllForTheAnswerWhereThereIsNoThought) {
  Completion c = parse_completion(" just 5 ", false);
  EXPECT_EQ(c.thought, "");
  EXPECT_EQ(c.answer, "just 5");
  EXPECT_FALSE(c.well_formed);
}

TEST(ParseCompletion, HasNoAnswerWhereTheThoughtDoesNotEnd) {
  for (bool begun : {false, true}) {
    Completion c = parse_completion("<think>on and on", begun);
    EXPECT_EQ(c.thought, "on and on");
    EXPECT_EQ(c.answer, "");
    EXPECT_FALSE(c.well_formed);
  }
  EXPECT_EQ(parse_completion("on and on 7", true).answer, "");
}

TEST(ParseCompletion, IsNotWellFormedWithTwoThoughtsOrNoAnswer) {
  Completion two = parse_completion("a</think>b</think>c", true);
  EXPECT_EQ(two.answer, "c");
  EXPECT_FALSE(two.well_formed);
  EXPECT_FALSE(parse_completion("<think>a</think>b<think>c", false).well_formed);
  EXPECT_FALSE(parse_completion("<think>a</think>b", true).well_formed);
  EXPECT_FALSE(parse_completion("a</think>  ", true).well_formed);
  EXPECT_FALSE(parse_completion("a</think>b", false).well_formed);
  EXPECT_FALSE(parse_completion("", true).well_formed);
}

TEST(FinalAnswer, PrefersTheLastClosedBox) {
  EXPECT_EQ(final_answer("\\boxed{1} then \\boxed{\\frac{1}{2}} #### 3"), "\\frac{1}{2}");
  EXPECT_EQ(final_answer("\\boxed{1} then \\boxed{2"), "1");
  EXPECT_EQ(final_answer("\\boxed{ x }"), "x");
  EXPECT_EQ(final_answer("\\boxed{open"), "\\boxed{open");
  EXPECT_EQ(final_answer("} \\boxed{1} {"), "1");
  EXPECT_EQ(final_answer("\\boxed{\\boxed{2} + \\text{m}}"), "2");
}

TEST(FinalAnswer, TakesTheLineBehindTheLastHashes) {
  EXPECT_EQ(final_answer("#### 1\nno\n#### 42\nbye"), "42");
  EXPECT_EQ(final_answer("####\n42"), "42");
  EXPECT_EQ(final_answer("####"), "");
}

TEST(FinalAnswer, TakesTheInsideOfTheLastAnswerTag) {
  EXPECT_EQ(final_answer("<answer>1</answer><answer> 2 </answer> so"), "2");
  EXPECT_EQ(final_answer("</answer> x"), "</answer> x");
  EXPECT_EQ(final_answer("  plain \n"), "plain");
}

TEST(FinalAnswer, LeavesAsideMarksAroundTheWhole) {
  for (const char* text : {"**x**", "`x`", "*x*.", "$x$", "\\(x\\)", "\\boxed{\\textbf{x}}", "__x__",
                           "<answer>**x.**</answer>", "**\\text{ x }**"})
    EXPECT_EQ(normalised(final_answer(text)), "x") << text;
  EXPECT_EQ(within_marks("**`x`**."), "`x`");
  EXPECT_EQ(within_marks("x"), "");
  for (const char* text : {"**x** and **y**", "$5", "2*3", "*", "**", "****", "`", "\\text{a}+{b}"})
    EXPECT_EQ(final_answer(text), text);
}

TEST(LanguageConsistency, IsTheShareOfWordsInTheLanguage) {
  EXPECT_EQ(language_consistency("we add the numbers", "en"), 1);
  EXPECT_EQ(language_consistency("we add the 数字", "en"), 3.0 / 5);
  EXPECT_EQ(language_consistency("我们 add 数字", "zh"), 4.0 / 5);
  EXPECT_EQ(language_consistency("привет мир", "en"), 0);
  EXPECT_EQ(language_consistency("naïve café", "en"), 1);
}

TEST(LanguageConsistency, LeavesNumbersSignsVariablesAndLatexAside) {
  EXPECT_EQ(language_consistency("", "zh"), std::nullopt);
  EXPECT_EQ(language_consistency("3+4=7, 12!", "zh"), std::nullopt);
  EXPECT_EQ(language_consistency("设 x = 3, 则 \\frac{x}{2}", "zh"), 1);
  EXPECT_EQ(language_consistency("\xff\xfe 好", "zh"), 1);
}

TEST(LanguageConsistency, RefusesALanguageItDoesNotKnow) {
  EXPECT_THROW(language_consistency("a", "fr"), Error);
}

TEST(ReflectiveWords, CountsWholeWordsOfBothLanguages) {
  EXPECT_EQ(reflective_words("Wait, let me check. However, a checkbox and awaiting are none."), 3);
  EXPECT_EQ(reflective_words("等等，再检查一下"), 3);
  EXPECT_EQ(reflective_words("12+7=19 (19 8) +27 back yes check 12+7+8=19+8"), 2);
  EXPECT_EQ(reflective_words(""), 0);
}

Number number(const char* text) {
  std::optional<Number> n = parse_number(text);
  EXPECT_TRUE(n.has_value()) << text;
  return n.value_or(Number{true, "999", "7"});
}

TEST(ParseNumber, ReadsTheWaysPeopleWriteTheSameNumber) {
  for (const char* text :
       {"1234.5", "1,234.50", "+1234.5", "$1,234.5", "2469/2", "1234 1/2", "1234.5%", "$1234.5$",
        "\\frac{2469}{2}", " 1234.5. ", "1 234.5", "1{,}234.5", "1\\,234.5", "1.2345e3", "12345e-1",
        "1.2345E+3", "1.2345 \\times 10^{3}", "1.2345 × 10^3", "12345*10^-1", "1\u202f234.5",
        "１２３４．５", "\\$1,234.5", "01234.5"})
    EXPECT_EQ(number(text), number("1234.5")) << text;
  for (const char* text : {"-3", "−3", "-$3", "$-3", "-3.0", "-6/2", "-\\dfrac{6}{2}"})
    EXPECT_EQ(number(text), number("-3")) << text;
  for (const char* text : {"1000", "10^3", "10^{3}", "$10^3$", "1 \\times 10^3"})
    EXPECT_EQ(number(text), number("1e3")) << text;
  EXPECT_EQ(number("-10^{-2}"), number("-0.01"));
  EXPECT_EQ(number("-0"), number("0.00"));
  EXPECT_EQ(number(".5"), number("1/2"));
  EXPECT_FALSE(number("3") == number("-3"));
  EXPECT_FALSE(number("0.33") == number("1/3"));
}

TEST(ParseNumber, KeepsEveryDigit) {
  std::string long_one(399, '7');
  EXPECT_EQ(number((long_one + "1").c_str()), number((long_one + "1.0").substr(0, 400).c_str()));
  EXPECT_FALSE(number((long_one + "1").c_str()) == number((long_one + "2").c_str()));
  EXPECT_FALSE(parse_number(std::string(401, '7')).has_value());
}

TEST(ParseNumber, RefusesWhatIsNoNumber) {
  for (const char* text : {"", "-", "abc", "1 2", "1,23", "1/0", "3 apples", "--3", "1..2", "$",
                           "\\frac{1}{0}", "\\frac{1}{", "1/", "0x10", "1,2345", "nan", "inf",
                           "1 23", "1 2345", "0 123", "1e", "1e99999", "1e-99999"})
    EXPECT_FALSE(parse_number(text).has_value()) << text;
}

TEST(LastNumber, IsTheLastOneInTheText) {
  EXPECT_EQ(*last_number("She has 3 apples and 1,200 pears."), number("1200"));
  EXPECT_EQ(*last_number("7-3"), number("3"));
  EXPECT_EQ(*last_number("x = -3"), number("-3"));
  EXPECT_EQ(*last_number("(2)-3"), number("3"));
  EXPECT_EQ(*last_number("costs $2.50!"), number("2.5"));
  EXPECT_EQ(*last_number("so 3/4 of it"), number("3/4"));
  EXPECT_EQ(*last_number("5 then " + std::string(500, '9')), number("5"));
  EXPECT_EQ(*last_number("2 000 apples"), number("2000"));
  EXPECT_EQ(*last_number("sorted: 1 2 3 100"), number("100"));
  EXPECT_EQ(*last_number("17 120 300 4 500"), number("500"));
  EXPECT_EQ(*last_number("it is 10^3."), number("1000"));
  for (const char* fragment : {"it is 10^n", "\\sqrt{2}", "7²", "3\\sqrt2", "2\\pi", "2π", "x^2",
                               "\\log{8}", "it is 4, no, 2^5"})
    EXPECT_FALSE(last_number(fragment).has_value()) << fragment;
  for (const char* fifth : {"5 cm^2", "5 cm²", "5^\\circ", "5\\text{ cm}", "x^2 is 5", "x_1 = 5"})
    EXPECT_EQ(*last_number(fifth), number("5")) << fifth;
  for (const char* text :
       {"\\frac{-3}{4}", "-\\frac34", "\\dfrac{3}{-4}", "-\\frac 3{4}", "-\\tfrac{3}4"})
    EXPECT_EQ(number(text), number("-3/4")) << text;
  EXPECT_EQ(number("1\\frac{1}{2}"), number("1.5"));
  EXPECT_EQ(number("-\\frac{-1}{2}"), number("0.5"));
  EXPECT_EQ(*last_number("1 250/500"), number("1.5"));
  EXPECT_EQ(*last_number("2023 500"), number("500"));
  EXPECT_EQ(*last_number("that is 3e"), number("3"));
  EXPECT_EQ(*last_number("于是得到 12 个"), number("12"));
  EXPECT_FALSE(last_number("none at all - \\ $ .").has_value());
}

TEST(Normalised, LeavesAsideWhatDoesNotMatter) {
  EXPECT_EQ(normalised("  The  \"Cat\"\tsat. "), "the \"cat\" sat");
  EXPECT_EQ(normalised("\"Paris\""), "paris");
  EXPECT_EQ(normalised("Ａ。"), "a");
  EXPECT_EQ(normalised("."), ".");
  EXPECT_EQ(normalised(""), "");
}

}  // namespace
}  // namespace wels
