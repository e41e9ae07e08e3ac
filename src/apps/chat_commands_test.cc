#include "apps/chat_commands.h"

#include <gmock/gmock.h>

#include <cstring>

#include "apps/server_chat.h"
#include "base/error.h"
#include "base/file.h"
#include "base/test_folder.h"
#include "text/bpe_trainer.h"

namespace wels {
namespace {

using testing::HasSubstr;

ChatState state_with(std::optional<ChatTemplate> chat_template) {
  static const std::vector<std::string_view> text{"the cat sat on the mat"};
  static const Tokenizer tokenizer(train_bpe(text, deepseek_style_options(280)));
  return {{}, Conversation(tokenizer, chat_template), "the model\n"};
}

TEST(ChatCommands, SetEveryParameterAndShowIt) {
  ChatState s = state_with(ChatTemplate::kDeepSeekV31);
  for (const char* line :
       {"temperature 0.25", "top_k 7", "top_p 0.5", "min_p 0.125", "typical_p 0.75",
        "speculate ngram", "repeat_penalty 1.5", "repeat_last_n 33", "presence_penalty -0.75",
        "frequency_penalty 0.625", "think_budget 12", "think_min 3", "rephrase 2",
        "seed 18446744073709551615", "num_predict 99", "num_ctx 1234"}) {
    run_command(s, std::string("/set parameter ") + line);
    std::string name(line, strchr(line, ' ')), value(strchr(line, ' ') + 1);
    EXPECT_THAT(run_command(s, "/show parameters"), testing::ContainsRegex(name + " +" + value));
  }
  EXPECT_EQ(s.settings.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(s.settings.sampling.seed, ~uint64_t{0});
  run_command(s, "/set parameter think_budget");
  EXPECT_FALSE(s.settings.think.most.has_value());
  run_command(s, "/set parameter stop \\nUser: x");
  run_command(s, "/set parameter stop \\\\");
  EXPECT_EQ(s.settings.stop, (std::vector<std::string>{"\nUser: x", "\\"}));
  EXPECT_THAT(run_command(s, "/set parameter"), HasSubstr("\"\\nUser: x\""));
  run_command(s, "/set parameter stop");
  EXPECT_TRUE(s.settings.stop.empty());
}

TEST(ChatCommands, RefuseBoundsOfThoughtsWhereThereAreNone) {
  ChatState base = state_with({});
  for (const char* line : {"think_budget 4", "think_min 4", "rephrase 2"}) {
    EXPECT_THROW(run_command(base, std::string("/set parameter ") + line), Error) << line;
  }
  EXPECT_FALSE(base.settings.think.any());
  ChatState s = state_with(ChatTemplate::kDeepSeekV31);
  EXPECT_THROW(run_command(s, "/set parameter rephrase 9"), Error);
  EXPECT_THROW(run_command(s, "/set parameter think_budget -1"), Error);
}

TEST(ChatCommands, RefuseBadValuesAndChangeNothing) {
  ChatState s = state_with(ChatTemplate::kDeepSeekV31);
  std::string before = run_command(s, "/show parameters");
  for (const char* bad :
       {"temperature", "temperature warm", "temperature 1x", "temperature -1", "temperature nan",
        "top_k 1.5", "top_k 99999999999", "top_p 0", "min_p 1", "repeat_penalty 0", "seed -1",
        "num_predict -1", "num_ctx 1", "num_ctx 5000", "presence_penalty inf", "mirostat 1",
        "speculate maybe", "typical_p 0"}) {
    EXPECT_THROW(run_command(s, std::string("/set parameter ") + bad), Error) << bad;
  }
  for (const char* bad : {"/", "/set", "/set color", "/set format", "/set format xml",
                          "/set format schema", "/set format json x", "/show", "/show licence",
                          "/load", "/save", "/unknown", "/Bye", "/load /no/such/file"}) {
    EXPECT_THROW(run_command(s, bad), Error) << bad;
  }
  EXPECT_EQ(run_command(s, "/show parameters"), before);
  EXPECT_FALSE(s.leave);
}

TEST(ChatCommands, SwitchWhatTheTemplateHas) {
  ChatState s = state_with(ChatTemplate::kDeepSeekV31);
  run_command(s, "/set think");
  EXPECT_TRUE(s.settings.thinking);
  EXPECT_THAT(run_command(s, "/show template"),
              HasSubstr("deepseek-v3.1\n<｜begin▁of▁sentence｜>{system}<｜User｜>{question}"
                        "<｜Assistant｜><think>{answer}"));
  run_command(s, "/set nothink");
  EXPECT_FALSE(s.settings.thinking);
  for (auto other : {ChatTemplate::kDeepSeekV3, ChatTemplate::kDeepSeekR1}) {
    s = state_with(other);
    EXPECT_THROW(run_command(s, "/set think"), Error);
  }
  s = state_with(std::nullopt);
  EXPECT_THROW(run_command(s, "/set nothink"), Error);
  EXPECT_EQ(run_command(s, "/show template"), "none\n{system}\n{question}{answer}\n");
}

TEST(ChatCommands, TheRestDoesWhatItSays) {
  ChatState s = state_with(ChatTemplate::kDeepSeekV3);
  EXPECT_EQ(run_command(s, "/show system"), "no system prompt\n");
  run_command(s, "/set system  Be brief.\nAnd kind.");
  EXPECT_EQ(run_command(s, "/show system"), "Be brief.\nAnd kind.\n");
  s.talk.say("user", "x");
  TestFolder folder;
  std::string path = folder / "talk.json";
  EXPECT_EQ(run_command(s, "/save " + path), "saved 2 messages\n");
  run_command(s, "/clear");
  EXPECT_EQ(s.talk.messages().size(), 1u);
  run_command(s, "/set system");
  EXPECT_EQ(s.talk.messages().size(), 0u);
  EXPECT_EQ(run_command(s, "/load " + path), "loaded 2 messages\n");
  EXPECT_EQ(s.talk.system(), "Be brief.\nAnd kind.");
  EXPECT_EQ(run_command(s, "/show info"), "the model\n");
  run_command(s, "/set verbose");
  run_command(s, "/set nohistory");
  EXPECT_TRUE(s.settings.verbose);
  EXPECT_FALSE(s.settings.history);
  run_command(s, "/set quiet");
  run_command(s, "/set history");
  EXPECT_FALSE(s.settings.verbose);
  EXPECT_TRUE(s.settings.history);
  run_command(s, "/set hidethinking");
  EXPECT_TRUE(s.settings.hide_thinking);
  run_command(s, "/set showthinking");
  EXPECT_FALSE(s.settings.hide_thinking);
  EXPECT_EQ(run_command(s, "/show thinking"), "no reasoning\n");
  s.thought = "<think>why</think>";
  EXPECT_EQ(run_command(s, "/show thinking"), "<think>why</think>\n");
  run_command(s, "/set nowordwrap");
  EXPECT_FALSE(s.settings.wordwrap);
  run_command(s, "/set wordwrap");
  EXPECT_TRUE(s.settings.wordwrap);
  run_command(s, "/set format json");
  EXPECT_TRUE(s.settings.format.json);
  write_file_atomic(path, "{\"type\": \"string\"}");
  run_command(s, "/set format schema " + path);
  EXPECT_EQ(s.settings.format.schema, path);
  EXPECT_FALSE(s.settings.format.json);
  write_file_atomic(path, "no grammar");
  EXPECT_THROW(run_command(s, "/set format grammar " + path), Error);
  EXPECT_EQ(s.settings.format.schema, path);
  run_command(s, "/set noformat");
  EXPECT_FALSE(s.settings.format.any());
  EXPECT_THAT(run_command(s, "/? shortcuts"), HasSubstr("Ctrl-R"));
  std::string help = run_command(s, "/?");
  for (const char* command : {"/set parameter", "/set system", "/show", "/load", "/save", "/clear"})
    EXPECT_THAT(help, HasSubstr(command));
  run_command(s, "/bye");
  EXPECT_TRUE(s.leave);
}

TEST(ChatCommands, AServerGetsWhatWasSaidEvenWhereItIsUsual) {
  ChatState s = state_with(ChatTemplate::kDeepSeekV31);
  ServerFlags flags;
  flags.url = "http://127.0.0.1:1";
  EXPECT_THAT(ServerChat(flags, s).request(), testing::Not(HasSubstr("temperature")));
  set_parameter(s.settings, "temperature", "0.6");
  set_parameter(s.settings, "seed", "0");
  std::string asked = ServerChat(flags, s).request();
  EXPECT_THAT(asked, HasSubstr(R"("temperature":0.6)"));
  EXPECT_THAT(asked, HasSubstr(R"("seed":0)"));
  EXPECT_THAT(asked, testing::Not(HasSubstr("top_p")));
}

TEST(ChatCommands, AServerGetsTheSchemaInTheOrderOfItsFile) {
  TestFolder folder;
  std::string path = folder.file(
      "schema.json", R"({"properties": {"why": {}, "answer": {}}, "additionalProperties": 0})");
  ChatState s = state_with(ChatTemplate::kDeepSeekV31);
  s.settings.format.schema = path;
  ServerFlags flags;
  flags.url = "http://127.0.0.1:1";
  ServerChat chat(flags, s);
  EXPECT_THAT(chat.request(),
              HasSubstr(R"({"properties":{"why":{},"answer":{}},"additionalProperties":0})"));
  s.settings.format.schema = R"({"type": "null"})";
  EXPECT_THAT(ServerChat(flags, s).request(), HasSubstr(R"("schema":{"type":"null"})"));
  write_file_atomic(path, "{");
  EXPECT_THROW(chat.request(), Error);
}

}  // namespace
}  // namespace wels
