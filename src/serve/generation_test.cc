#include "serve/generation.h"

#include <gmock/gmock.h>

#include "serve/answer_mask.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

using Kind = Delta::Kind;

struct GenerationTest : testing::Test {
  GenerationTest() : tokenizer(tiny_tokenizer()) {
    for (const char* m : {"<think>", "</think>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
                          "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"})
      shown.push_back(*tokenizer.find(m));
  }
  // The answer's text as tokens, decoded: "kind:text" with neighbours joined.
  std::string decode(const std::string& text, const GenerationJob& job) {
    ChoiceDecoder d(tokenizer, shown, job, 0);
    std::vector<Delta> out;
    for (int32_t id : tokenizer.encode(text)) {
      SampledToken t;
      t.id = id;
      if (!d.push(t, out)) break;
    }
    d.finish(out);
    std::string all;
    Kind last = Delta::kFinish;
    for (const Delta& x : out) {
      if (x.kind != last || x.kind == Delta::kToolName)
        all += std::string(all.empty() ? "" : "|") + "rcna"[x.kind] + ":";
      all += x.text;
      last = x.kind;
    }
    reasoning_tokens = d.reasoning_tokens();
    return all;
  }
  Tokenizer tokenizer;
  std::vector<int32_t> shown;
  int64_t reasoning_tokens = 0;
};

TEST_F(GenerationTest, PartsOfAnAnswerAreToldApart) {
  EXPECT_EQ(decode("the dog</think>the cat", {.thinking = true}), "r:the dog|c:the cat");
  EXPECT_EQ(reasoning_tokens, static_cast<int64_t>(tokenizer.encode("the dog").size()) + 1);
  EXPECT_EQ(
      decode(
          "hm</"
          "think>ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
          "<｜tool▁calls▁end｜>never",
          {.thinking = true, .tools = true}),
      "r:hm|c:ok|n:f|a:{}");
}

TEST_F(GenerationTest, StopStringsEndTheAnswerNotTheReasoning) {
  GenerationJob job{.stop = {"END"}, .thinking = true};
  EXPECT_EQ(decode("an END</think>the END cat", job), "r:an END|c:the ");
}

TEST_F(GenerationTest, PlainTextKeepsItsTags) {
  EXPECT_EQ(decode("a<b>\xe6\x97\xa5", {.chat = false}), "c:a<b>\xe6\x97\xa5");
}

TEST_F(GenerationTest, DeltasThatWaitAreJoinedAndTheEndComesLast) {
  GenerationJob job{.prompts = {{1}},
                    .max_tokens = 9,
                    .end_by = std::chrono::steady_clock::now() + std::chrono::hours(1)};
  job.start_by = job.end_by;
  auto g = std::make_shared<Generation>(tokenizer, shown, job);
  bool ended = false;
  g->on_ended([&] { ended = true; });
  std::vector<GenerateRequest> requests = g->requests();
  ASSERT_EQ(requests.size(), 1u);
  for (int32_t id : tokenizer.encode("the lazy dog")) {
    SampledToken t;
    t.id = id;
    EXPECT_TRUE(requests[0].on_token(t));
  }
  std::vector<Delta> out;
  EXPECT_FALSE(g->take(out));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].text, "the lazy dog");
  GenerateResult r;
  r.finish = GenerateResult::Finish::kStop;
  r.tokens.resize(3);
  r.cached_tokens = 70;
  requests[0].on_finish(r);
  EXPECT_TRUE(ended);
  EXPECT_FALSE(g->take(out));  // not before it is settled
  EXPECT_TRUE(out.empty());
  g->complete();
  EXPECT_TRUE(g->take(out));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].kind, Delta::kFinish);
  EXPECT_EQ(g->usage().cached, 64);
  EXPECT_EQ(g->usage().completion, 3);
}

// Follows a mask with tokens of `text`; the number of the first that is forbidden, -1: none.
int forbidden(AnswerMask& mask, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> said;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::span<const uint64_t> m = mask.mask(said);
    size_t t = static_cast<size_t>(tokens[i]);
    if (!m.empty() && !(m[t >> 6] >> (t & 63) & 1)) return static_cast<int>(i);
    said.push_back(tokens[i]);
  }
  return -1;
}

struct AnswerMaskTest : GenerationTest {
  AnswerMaskTest() {
    std::vector<std::string> bytes(static_cast<size_t>(tokenizer.vocab_size()));
    for (int32_t t = 0; t < tokenizer.vocab_size(); ++t)
      bytes[static_cast<size_t>(t)] = tokenizer.token_bytes(t);
    for (const AddedToken& t : tokenizer.added_tokens()) bytes[static_cast<size_t>(t.id)].clear();
    plan.tree = std::make_shared<TokenTree>(bytes);
    plan.vocab_size = tokenizer.vocab_size();
    plan.stop_ids = {*tokenizer.eos()};
    plan.thinking_end = tokenizer.encode("</think>");
  }
  int first_forbidden(const std::string& text) {
    AnswerMask m(std::make_shared<const AnswerPlan>(plan));
    return forbidden(m, tokenizer.encode(text));
  }
  AnswerPlan plan{tokenizer, 0};
};

TEST_F(AnswerMaskTest, ReasoningEndsWithItsBudget) {
  plan.thinking = true;
  plan.thinking_budget = 2;
  EXPECT_EQ(first_forbidden("ab</think>anything at all"), -1);
  EXPECT_EQ(first_forbidden("a</think>anything"), -1);
  EXPECT_EQ(first_forbidden("abc"), 2);
  plan.thinking_budget = 0;
  EXPECT_EQ(first_forbidden("a"), 0);
}

TEST_F(AnswerMaskTest, TheGrammarHoldsAfterTheReasoning) {
  plan.thinking = true;
  plan.parts = {{{}, std::make_shared<Grammar>(Grammar::from_gbnf("root ::= \"yes\" | \"no\""))}};
  EXPECT_EQ(first_forbidden("maybe</think>yes<｜end▁of▁sentence｜>"), -1);
  EXPECT_EQ(first_forbidden("a</think>ye<｜end▁of▁sentence｜>"), 4);
  EXPECT_EQ(first_forbidden("a</think>x"), 2);
}

TEST_F(AnswerMaskTest, ForcedPartsFollowTheChosenBranch) {
  auto gbnf = [](const char* text) { return std::make_shared<Grammar>(Grammar::from_gbnf(text)); };
  AnswerPart name{tokenizer.encode("<｜tool▁call▁begin｜>"), gbnf("root ::= \"a\" | \"ab\"")};
  for (const char* n : {"a", "ab"}) {
    std::string rule = std::string("root ::= \"") + (std::string(n) == "a" ? "1" : "2") + "\"+";
    name.branches.push_back({n,
                             {{tokenizer.encode("<｜tool▁sep｜>"), gbnf(rule.c_str())},
                              {tokenizer.encode("<｜tool▁call▁end｜>"), nullptr}}});
  }
  plan.parts = {name};
  EXPECT_EQ(first_forbidden(
                "<｜tool▁call▁begin｜>a<｜tool▁sep｜>11<｜tool▁call▁end｜><｜end▁of▁sentence｜>"),
            -1);
  EXPECT_EQ(first_forbidden(
                "<｜tool▁call▁begin｜>ab<｜tool▁sep｜>22<｜tool▁call▁end｜><｜end▁of▁sentence｜>"),
            -1);
  EXPECT_EQ(first_forbidden("<｜tool▁call▁begin｜>ab<｜tool▁sep｜>1"), 4);
  EXPECT_EQ(first_forbidden("a"), 0);
  EXPECT_EQ(first_forbidden("<｜tool▁call▁begin｜>a<｜tool▁sep｜>1<｜tool▁call▁end｜>x"), 5);
}

TEST_F(AnswerMaskTest, TheAnswerIsFreeUntilThePartsBegin) {
  plan.parts = {{tokenizer.encode("<｜tool▁call▁begin｜>"),
                 std::make_shared<Grammar>(Grammar::from_gbnf("root ::= \"1\"+"))}};
  plan.parts_from = *tokenizer.find("<｜tool▁call▁begin｜>");
  EXPECT_EQ(first_forbidden("anything<｜tool▁sep｜>"), -1);
  EXPECT_EQ(first_forbidden("x<｜tool▁call▁begin｜>11<｜end▁of▁sentence｜>"), -1);
  EXPECT_EQ(first_forbidden("x<｜tool▁call▁begin｜>1x"), 3);
}

}  // namespace
}  // namespace wels
