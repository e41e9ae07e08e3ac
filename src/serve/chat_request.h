// POST /chat/completions and /completions: the JSON of a request → what is to be generated.
#pragma once
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "serve/json_body.h"
#include "text/chat.h"

namespace wels {

// What all ways of asking have in common. Absent values are chosen by the route.
struct GenerationOptions {
  std::optional<int64_t> max_tokens;
  double temperature = 1, top_p = 1, presence_penalty = 0, frequency_penalty = 0;
  double min_p = 0, typical_p = 1, repetition_penalty = 1;  // as other servers take them
  int64_t top_k = 0;
  std::vector<std::string> stop;
  std::optional<uint64_t> seed;
  int64_t n = 1;
  bool stream = false, include_usage = false;
  int top_logprobs = -1;  // -1: no log-probabilities
  std::unordered_map<int32_t, float> logit_bias;
  std::string grammar;  // GBNF that the answer must match; empty: none
  std::string user_id;
};

struct ToolChoice {
  enum Kind { kNone, kAuto, kRequired, kNamed } kind = kAuto;
  std::string name;  // kNamed
};

struct ResponseFormat {
  enum Kind { kText, kJsonObject, kJsonSchema } kind = kText;
  std::string schema;  // kJsonSchema
};

enum class ReasoningEffort { kLow, kHigh, kMax };

struct ChatRequest {
  std::string model;
  GenerationOptions options;
  std::vector<ChatMessage> messages;  // a last one with `prefix`: continue it
  std::vector<ChatTool> tools;
  bool strict_tools = false;  // calls are held to the tools' schemas
  ToolChoice tool_choice;
  ResponseFormat format;
  std::optional<bool> thinking;            // nullopt: as the model's name says
  std::optional<int64_t> thinking_budget;  // tokens of reasoning at most
  std::optional<ReasoningEffort> effort;   // where there is no budget
  bool inside = false;                     // GET /ui/inside/ID will ask (inside.h)
};

struct CompletionRequest {
  std::string model;
  GenerationOptions options;
  std::vector<std::variant<std::string, std::vector<int32_t>>> prompts;
  std::optional<std::string> suffix;
  bool echo = false;
};

struct EmbeddingRequest {
  std::string model, user_id;
  std::vector<std::variant<std::string, std::vector<int32_t>>> inputs;
  bool base64 = false;
};

// Throw ApiError. beta: `prefix` messages are understood.
ChatRequest parse_chat_request(std::string_view body, bool beta);
CompletionRequest parse_completion_request(std::string_view body);
EmbeddingRequest parse_embedding_request(std::string_view body);

// Parts that other APIs share.
void check_range(const char* name, double value, double least, double most);
std::string message_text(const JsonFields& f, const char* key);  // a string, or parts of type text
// Adds a function to the request's tools. "strict": all functions are then, and their schemas keep
// DeepSeek's rules: every object lists all its properties as required and has no others.
void add_function(const JsonFields& function, ChatRequest& r);
// "low", "high", "max" and OpenAI's other names. at: where it stands.
ReasoningEffort parse_effort(const JsonFields& f, const JsonPath& at, const std::string& name);
// json_object: the word must be in a message, as DeepSeek asks.
void check_json_is_mentioned(const ChatRequest& r);
void check_name(const std::string& name);  // of a function
ToolChoice::Kind parse_choice(const JsonFields& f, const JsonPath& at, const std::string& name);
void check_tool_choice(const ChatRequest& r);  // whether there is the tool that it asks for
std::vector<std::string> parse_stop(const JsonFields& f, const char* key);  // one, or some
void parse_heat(const JsonFields& f, GenerationOptions& o);                 // temperature, top_p
std::string parse_user_id(const JsonFields& f);
GenerationOptions parse_options(const JsonFields& f);

}  // namespace wels
