#include "text/chat_training.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "text/bpe_trainer.h"
#include "text/test_files.h"

namespace wels {
namespace {

ChatMessage say(const char* role, const char* content) {
  ChatMessage m;
  m.role = role;
  m.content = content;
  return m;
}

// Bytes and DeepSeek's markers, nothing merged.
Tokenizer byte_tokenizer() {
  BpeTrainerOptions o = deepseek_style_options(275);
  std::vector<std::string_view> documents = {"text"};
  return Tokenizer(train_bpe(documents, o));
}

std::string learned_text(const TrainingTokens& t, const Tokenizer& tokenizer) {
  std::string out;
  for (size_t i = 0; i < t.ids.size(); ++i) {
    bool begins = t.learned[i] != 0 && (i == 0 || t.learned[i - 1] == 0);
    if (begins) out += "[";
    if (t.learned[i] != 0) out += tokenizer.token_bytes(t.ids[i]);
    if (t.learned[i] != 0 && (i + 1 == t.ids.size() || t.learned[i + 1] == 0)) out += "]";
  }
  return out;
}

std::vector<int32_t> prompt_ids(ChatTemplate t, std::vector<ChatMessage> before, bool thinking,
                                const Tokenizer& tokenizer) {
  ChatOptions o;
  o.thinking = thinking;
  return chat_to_tokens(render_chat(t, before, o), tokenizer);
}

TEST(ChatTraining, AnAnswerStandsBehindItsGenerationPromptInEveryTemplate) {
  Tokenizer tokenizer = byte_tokenizer();
  std::vector<ChatMessage> before = {say("system", "Be kind."), say("user", "1 + 1?"),
                                     say("assistant", "<think>one more</think>2"),
                                     say("user", "And 2 + 2?")};
  for (const auto& [name, t] : chat_template_names()) {
    for (const char* content : {"4", "<think>two more</think>4"}) {
      bool thinks = std::string(content).size() > 1;
      std::vector<ChatMessage> messages = before;
      messages.push_back(say("assistant", content));
      TrainingTokens tokens = training_tokens(t, messages, tokenizer);
      std::vector<int32_t> prompt = prompt_ids(t, before, thinks, tokenizer);
      ASSERT_LT(prompt.size(), tokens.ids.size()) << name;
      EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), tokens.ids.begin())) << name;
      EXPECT_EQ(tokens.learned[prompt.size() - 1], 0) << name;
      for (size_t i = prompt.size(); i < tokens.ids.size(); ++i) EXPECT_EQ(tokens.learned[i], 1);
      EXPECT_EQ(tokens.ids.back(), *tokenizer.eos()) << name;
      PromptAndAnswer parts = prompt_and_answer(t, messages, tokenizer);
      EXPECT_EQ(parts.prompt, prompt) << name;
      parts.prompt.insert(parts.prompt.end(), parts.answer.begin(), parts.answer.end());
      EXPECT_EQ(parts.prompt, tokens.ids) << name;
    }
  }
}

TEST(ChatTraining, WhatIsGeneratedIsWhatIsShownAfterwards) {
  // A turn without a thought, as an answer and as history: the same tokens, in templates whose
  // history has all that was said.
  Tokenizer tokenizer = byte_tokenizer();
  std::vector<ChatMessage> talk = {say("user", "Hi"), say("assistant", "Hello")};
  for (ChatTemplate t :
       {ChatTemplate::kDeepSeekV3, ChatTemplate::kDeepSeekV3_0324, ChatTemplate::kDeepSeekV31}) {
    TrainingTokens tokens = training_tokens(t, talk, tokenizer);
    ChatOptions o;
    o.add_generation_prompt = false;
    EXPECT_EQ(tokens.ids, chat_to_tokens(render_chat(t, talk, o), tokenizer));
  }
}

TEST(ChatTraining, WritesThoughtsAsTheirTemplateBeginsThem) {
  Tokenizer tokenizer = byte_tokenizer();
  auto learned = [&](ChatTemplate t, const char* content) {
    return learned_text(
        training_tokens(t, {say("user", "Q"), say("assistant", content)}, tokenizer), tokenizer);
  };
  std::string end = "<｜end▁of▁sentence｜>]";
  for (const char* thought : {"<think>why</think>A", "why</think>A"}) {
    EXPECT_EQ(learned(ChatTemplate::kDeepSeekV31, thought), "[why</think>A" + end);
    EXPECT_EQ(learned(ChatTemplate::kDeepSeekR1, thought), "[why</think>A" + end);
    EXPECT_EQ(learned(ChatTemplate::kDeepSeekV3, thought), "[<think>why</think>A" + end);
  }
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekR1, "<think>\nwhy\n</think>\n\nA"),
            "[why\n</think>\n\nA" + end);
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekR1, "A"), "[\n</think>\n\nA" + end);
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekV31, "A"), "[A" + end);
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekV31, "<think></think>A"), "[</think>A" + end);
}

TEST(ChatTraining, LearnsEarlierTurnsWhereTheyStandBehindTheirPrompt) {
  Tokenizer tokenizer = byte_tokenizer();
  std::vector<ChatMessage> talk = {say("user", "a"), say("assistant", "<think>t</think>b"),
                                   say("user", "c"), say("assistant", "<think>u</think>d"),
                                   say("user", "left out")};
  auto learned = [&](ChatTemplate t) {
    return learned_text(training_tokens(t, talk, tokenizer), tokenizer);
  };
  std::string end = "<｜end▁of▁sentence｜>]";
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekV31), "[b" + end + "[u</think>d" + end);
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekV3_0324), "[b" + end + "[<think>u</think>d" + end);
  // R1 always begins a thought and shows none afterwards: the first turn was asked for otherwise.
  EXPECT_EQ(learned(ChatTemplate::kDeepSeekR1), "[u</think>d" + end);
}

TEST(ChatTraining, LearnsToolCallsAndWhatFollowsThem) {
  Tokenizer tokenizer = byte_tokenizer();
  ChatMessage call = say("assistant", "");
  call.content.reset();
  call.tool_calls.push_back({"function", "f", "{\"a\": 1}"});
  std::vector<ChatMessage> talk = {say("user", "q"), call, say("tool", "7"),
                                   say("assistant", "It is 7.")};
  std::string end = "<｜end▁of▁sentence｜>]";
  std::string asked =
      "[<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜>" +
      end;
  EXPECT_EQ(learned_text(training_tokens(ChatTemplate::kDeepSeekV31, talk, tokenizer), tokenizer),
            asked + "[It is 7." + end);
  EXPECT_EQ(learned_text(training_tokens(ChatTemplate::kDeepSeekV31, {talk[0], call}, tokenizer),
                         tokenizer),
            asked);
  // Every template ends a call that it asks for, also those that leave a single one open later.
  for (const auto& [name, t] : chat_template_names()) {
    TrainingTokens tokens = training_tokens(t, {talk[0], call}, tokenizer);
    EXPECT_THAT(learned_text(tokens, tokenizer), testing::EndsWith("<｜tool▁calls▁end｜>" + end))
        << name;
    TrainingTokens after = training_tokens(t, talk, tokenizer);
    std::vector<int32_t> prompt = prompt_ids(t, {talk[0], call, talk[2]}, false, tokenizer);
    EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), after.ids.begin())) << name;
  }
}

TEST(ChatTraining, APromptsTokensAreTheWholes) {
  SKIP_WITHOUT("deepseek_v3");
  // With merges: cuts lie at markers, so nothing is joined across them.
  Tokenizer tokenizer = Tokenizer::load(fixture("deepseek_v3"));
  std::vector<ChatMessage> talk = {say("system", "Rules:\n1. Be brief.\n"), say("user", "Hello\n"),
                                   say("assistant", "\nHi there, 12345!\n"), say("user", "\n\nBye"),
                                   say("assistant", "<think>\nHm.\n</think>\n\nBye.")};
  for (ChatTemplate t : {ChatTemplate::kDeepSeekV3, ChatTemplate::kDeepSeekV3_0324}) {
    TrainingTokens tokens = training_tokens(t, talk, tokenizer);
    std::vector<int32_t> prompt = prompt_ids(t, {talk.begin(), talk.end() - 1}, true, tokenizer);
    ASSERT_LT(prompt.size(), tokens.ids.size());
    EXPECT_TRUE(std::equal(prompt.begin(), prompt.end(), tokens.ids.begin()));
  }
}

TEST(ChatTraining, BaseModelsLearnTheLastText) {
  Tokenizer tokenizer = byte_tokenizer();
  TrainingTokens t =
      training_tokens(std::nullopt, {say("user", "2 + 2 ="), say("assistant", " 4")}, tokenizer);
  EXPECT_EQ(learned_text(t, tokenizer), "[ 4<｜end▁of▁sentence｜>]");
  EXPECT_EQ(t.ids[0], *tokenizer.eos()) << "as pretraining packs documents";
  EXPECT_EQ(tokenizer.decode(t.ids, true), "2 + 2 = 4");
  TrainingTokens all = training_tokens("<｜User｜> is text", tokenizer);
  EXPECT_EQ(learned_text(all, tokenizer), "[<｜User｜> is text<｜end▁of▁sentence｜>]");
  EXPECT_EQ(all.ids[0], *tokenizer.eos());
  EXPECT_EQ(std::count(all.ids.begin(), all.ids.end(), *tokenizer.find("<｜User｜>")), 0);
}

TEST(ChatTraining, SaysWhatIsMissing) {
  Tokenizer tokenizer = byte_tokenizer();
  auto message = [](auto&& fn) -> std::string {
    try {
      fn();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_THAT(
      message([&] { training_tokens(ChatTemplate::kDeepSeekV31, {say("user", "q")}, tokenizer); }),
      testing::HasSubstr("no message is the assistant's"));
  std::vector<std::string_view> documents = {"ab"};
  Tokenizer bare(train_characters(documents));
  std::vector<ChatMessage> talk = {say("user", "a"), say("assistant", "b")};
  EXPECT_THAT(message([&] { training_tokens(ChatTemplate::kDeepSeekV31, talk, bare); }),
              testing::HasSubstr("has no token <｜begin▁of▁sentence｜>"));
  EXPECT_THAT(message([&] { training_tokens("ab", bare); }), testing::HasSubstr("end-of-sentence"));
}

TEST(ChatTraining, DescribesTools) {
  std::string text = describe_tools(
      R"([{"type":"function","function":{"name":"f","description":"Does it.","parameters":{"type":"object","a":1}}}])",
      "x");
  EXPECT_EQ(text,
            "## Tools\nYou have access to the following tools:\n\n### f\nDescription: Does it.\n\n"
            "Parameters: {\"type\":\"object\",\"a\":1}\n");
  EXPECT_THROW(describe_tools("{}", "x"), Error);
  EXPECT_THROW(describe_tools("[{\"function\":{}}]", "x"), Error);
}

}  // namespace
}  // namespace wels
