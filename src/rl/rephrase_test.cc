// The texts by hand; evaluation against answers drawn one by one.
#include "rl/rephrase.h"

#include <gmock/gmock.h>

#include "rl/rl_base_test.h"
#include "rl/voting.h"

namespace wels {
namespace {

using testing::HasSubstr;

TEST(Rephrase, EveryAngleAsksOtherwiseAndHoldsTheQuestion) {
  std::set<std::string> seen;
  for (int64_t i = 0; i < kMostAngles; ++i) {
    std::string request = rephrase_request("2 + 3?", i);
    EXPECT_TRUE(request.ends_with("\n\n2 + 3?"));
    seen.insert(request);
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(kMostAngles));
}

TEST(Rephrase, AVersionIsWhatFollowsTheThoughtInOneLine) {
  EXPECT_EQ(rephrased_question("hm</think> \"What is\n2 + 3?\"\n"), "What is 2 + 3?");
  EXPECT_EQ(rephrased_question("</think> \n"), "");
}

TEST(Rephrase, TheJointQuestionNumbersItsVersions) {
  EXPECT_EQ(joint_question("q?", {"a?", "", "b?"}),
            "q?\n\nThe same question in other words:\n1. a?\n2. b?\n");
  EXPECT_EQ(joint_question("q?", {""}), "q?");
}

TEST(Rephrase, AVocabularyWithoutTheRequestsBytesIsRefusedByTheFlagsName) {
  Tokenizer characters = Tokenizer::from_json(test_tokenizer_json(), "tokenizer.json");
  try {
    require_rephrasable(characters);
    FAIL() << "it has no capital letters";
  } catch (const Error& e) {
    EXPECT_EQ(e.where(), "--rephrase");
    EXPECT_THAT(e.fact(), HasSubstr("has no token"));
  }
}

// A model that knows every byte, as the requests need.
TEST(Rephrase, CostsWhatTheModelSaysAskedOneByOne) {
  std::vector<std::string_view> text = {"the quick brown fox jumps over the lazy dog and the cat"};
  Tokenizer tokenizer(train_bpe(text, deepseek_style_options(300)));
  auto dev = make_device("cpu");
  ModelConfig config = test_config(tokenizer.vocab_size());
  config.max_position_embeddings = 1024;
  config.initializer_range = 0.3;
  Model model(config);
  model.init(DType::kF32, 3, false);
  RolloutSettings settings{.dtype = DType::kF32, .max_tokens = 16};
  RolloutSettings brief = settings;
  brief.thinking = false;
  brief.max_tokens = 20;
  RolloutSampler sampler(*dev, model, tokenizer, settings), other(*dev, model, tokenizer, brief);
  TaskMixture tasks{kTestTask};
  EvaluationSettings s{.items = 6, .seed = 2};
  RephraseEvaluation e = evaluate_rephrased(sampler, other, tasks, s, 2);
  auto answer = [&](RolloutSampler& by, const std::string& question) {
    std::vector<std::vector<int32_t>> prompt = {by.prompt(question)};
    return by.sample({.prompts = prompt, .samples = 1, .temperature = 0, .seed = {}})[0];
  };
  double vote = 0, joint = 0, vote_tokens = 0, joint_tokens = 0;
  for (const TaskMixture::Item& item : evaluation_items(tasks, s)) {
    const std::string& question = item.example.question;
    std::vector<std::string> versions;
    double tokens = 0;
    for (int64_t i = 0; i < 2; ++i) {
      Rollout said = answer(other, rephrase_request(question, i));
      tokens += static_cast<double>(said.tokens.size());
      std::string version = rephrased_question(said.parts.answer);
      if (!version.empty()) versions.push_back(version);
    }
    std::vector<Rollout> answers = {answer(sampler, question)};
    for (const std::string& v : versions) answers.push_back(answer(sampler, v));
    Rollout once = answer(sampler, joint_question(question, versions));
    auto right = [&](const Rollout& r) {
      return r.ended && item.task->score(item.example, r.parts.answer) >= 1 ? 1.0 / 6 : 0.0;
    };
    vote += right(answers[majority_answer(answers)]);
    joint += right(once);
    joint_tokens += (tokens + static_cast<double>(once.tokens.size())) / 6;
    for (const Rollout& r : answers) tokens += static_cast<double>(r.tokens.size());
    vote_tokens += tokens / 6;
  }
  EXPECT_NEAR(e.vote, vote, 1e-12);
  EXPECT_NEAR(e.joint, joint, 1e-12);
  EXPECT_NEAR(e.vote_tokens, vote_tokens, 1e-9);
  EXPECT_NEAR(e.joint_tokens, joint_tokens, 1e-9);
  EXPECT_EQ(e.items, 6);
}

using RephraseTest = RlTest;

TEST_F(RephraseTest, BoundsOfThoughtsAreInTheTokenizersIds) {
  ThinkBudget b = think_budget(tokenizer, {.most = 5, .least = 2, .again = "a"});
  EXPECT_EQ(b.begin_id, *tokenizer.find("<think>"));
  EXPECT_EQ(b.end_id, *tokenizer.find("</think>"));
  EXPECT_EQ(b.again, tokenizer.encode("a", AddedTokens::kAsText));
  EXPECT_TRUE(ends_in_thought(std::vector<int32_t>{1, b.end_id, b.begin_id, 2}, b));
  EXPECT_FALSE(ends_in_thought(std::vector<int32_t>{b.begin_id, 2, b.end_id}, b));
  EXPECT_FALSE(ends_in_thought(std::vector<int32_t>{1, 2}, b));
  EXPECT_THROW(think_budget(tokenizer, {.least = 2, .again = ""}), Error);
  std::vector<std::string_view> text = {"abc"};
  Tokenizer plain(train_characters(text, {}));
  EXPECT_THROW(think_budget(plain, {.most = 5}), Error);
  EXPECT_FALSE(no_thought(plain).any());
  EXPECT_EQ(no_thought(tokenizer).most, 0);
}

}  // namespace
}  // namespace wels
