#include "serve/served_model.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "formats/json.h"
#include "serve/api_error.h"
#include "text/answer_parser.h"
#include "text/markers.h"

namespace wels {
namespace {

constexpr int64_t kChatTokens = 4096, kReasonerTokens = 32768, kCompletionTokens = 16;

uint64_t random_seed() {
  uint64_t seed = 0;
  CHECK(::getrandom(&seed, sizeof seed, 0) == ssize_t{sizeof seed});
  return seed;
}

std::shared_ptr<const Grammar> make_grammar(
    const char* field, const std::string& text,
    Grammar (*parse)(std::string_view) = Grammar::from_json_schema) {
  try {
    return std::make_shared<Grammar>(parse(text));
  } catch (const Error& e) {
    throw invalid_request(fmt::format("Invalid {}: {}", field, e.what()));
  }
}

void require_stop(const std::vector<int32_t>& stop_ids) {
  if (stop_ids.empty())
    throw invalid_request(
        "The model has no token that ends an answer, so none can be held to a format");
}

// For GenerationJob::make_mask. The first is made here, where an error can refuse the request.
std::function<TokenMask()> masks_of(std::shared_ptr<const AnswerPlan> held) {
  try {
    AnswerMask first(held);
  } catch (const Error& e) {
    throw invalid_request(fmt::format("Invalid {}", e.what()));
  }
  return [held]() -> TokenMask {
    auto mask = std::make_shared<AnswerMask>(held);
    return [mask](std::span<const int32_t> answer) { return mask->mask(answer); };
  };
}

// Function names, one of them.
std::shared_ptr<const Grammar> names_grammar(const std::vector<ChatTool>& tools) {
  std::string text = "root ::= ";
  for (const ChatTool& t : tools) text += (text.back() == '"' ? " | \"" : "\"") + t.name + "\"";
  return std::make_shared<Grammar>(Grammar::from_gbnf(text));
}

}  // namespace

ServedModel::ServedModel(Device& dev, Model& model, DType dtype, Tokenizer tokenizer,
                         std::optional<ChatTemplate> chat_template, std::string name,
                         int64_t context, ApiStyle style)
    : dev_(dev),
      model_(model),
      dtype_(dtype),
      tokenizer_(std::move(tokenizer)),
      template_(chat_template),
      name_(std::move(name)),
      context_(context),
      style_(style) {
  if (tokenizer_.eos()) stop_ids_.push_back(*tokenizer_.eos());
  for (int64_t id : model.config().eos_token_ids) stop_ids_.push_back(static_cast<int32_t>(id));
  chat_stop_ids_ = stop_ids_;
  // A model that asks itself the next question has answered this one.
  if (auto user = tokenizer_.find(kUserMark); user && template_) chat_stop_ids_.push_back(*user);
  for (std::string_view m : AnswerParser::markers()) {
    if (auto id = tokenizer_.find(m)) shown_.push_back(*id);
  }
}

bool ServedModel::wants_thinking(const ChatRequest& r) const {
  bool by_name = style_ == ApiStyle::kV3 ? r.model == kReasonerName : r.model != kChatName;
  return r.thinking.value_or(by_name);
}

std::vector<int32_t> ServedModel::document(const std::string& text) const {
  std::vector<int32_t> out = tokenizer_.encode_document(text);
  if (out.empty()) throw invalid_request("Empty prompt");
  return out;
}

std::vector<int32_t> ServedModel::tokens_of(
    const std::variant<std::string, std::vector<int32_t>>& v) const {
  if (const std::string* text = std::get_if<std::string>(&v)) return document(*text);
  check_tokens(std::get<std::vector<int32_t>>(v));
  return std::get<std::vector<int32_t>>(v);
}

void ServedModel::check_tokens(const std::vector<int32_t>& ids) const {
  if (ids.empty()) throw invalid_request("Empty prompt");
  for (int32_t id : ids) {
    if (id >= tokenizer_.vocab_size())
      throw invalid_request(fmt::format("Invalid prompt: token {} is outside the vocabulary of {}",
                                        id, tokenizer_.vocab_size()));
  }
}

ServedModel::Prompt ServedModel::chat_prompt(const ChatRequest& r) const {
  Prompt p;
  ChatOptions o;
  o.thinking = wants_thinking(r);
  o.continue_final_message = r.messages.back().prefix;
  if (r.tool_choice.kind != ToolChoice::kNone) o.tools = r.tools;
  ChatText text;
  try {
    text = template_ ? render_chat(*template_, r.messages, o) : render_plain_text(r.messages);
  } catch (const Error& e) {
    throw invalid_request(e.what());
  }
  if (!template_ && tokenizer_.document_begin()) p.tokens.push_back(*tokenizer_.document_begin());
  std::vector<int32_t> tokens = chat_to_tokens(text, tokenizer_);
  p.tokens.insert(p.tokens.end(), tokens.begin(), tokens.end());
  p.thinking = !begun_answer(text).empty();
  return p;
}

void ServedModel::set_options(const GenerationOptions& o, GenerationJob& job,
                              int64_t usual_tokens) const {
  int64_t longest = 0;
  for (const auto& p : job.prompts) longest = std::max(longest, static_cast<int64_t>(p.size()));
  int64_t wanted = o.max_tokens.value_or(0);
  if (o.max_tokens) check_range("max_tokens", static_cast<double>(wanted), 0, 1 << 30);
  if (longest + std::max<int64_t>(wanted, 1) > context_) {
    throw invalid_request(fmt::format(
        "This model's maximum context length is {} tokens. However, you requested {} tokens ({} in "
        "the messages, {} in the completion). Please reduce the length of the messages or "
        "completion.",
        context_, longest + wanted, longest, wanted));
  }
  job.max_tokens = o.max_tokens ? wanted : std::min(usual_tokens, context_ - longest);
  job.n = static_cast<int>(o.n);
  job.stop = o.stop;
  SamplingParams& s = job.sampling;
  s.temperature = o.temperature;
  s.top_p = std::max(o.top_p, 1e-9);  // 0: the most probable token
  s.top_k = static_cast<int>(o.top_k);
  s.min_p = o.min_p;
  s.typical_p = std::max(o.typical_p, 1e-9);
  s.presence_penalty = o.presence_penalty;
  s.frequency_penalty = o.frequency_penalty;
  s.repetition_penalty = o.repetition_penalty;
  s.logit_bias = o.logit_bias;
  s.seed = o.seed ? *o.seed : random_seed();
  if (o.seed) job.reuse = Reuse::kExact;  // the same bits, whatever the cache has
  s.top_logprobs = o.top_logprobs;
}

GenerationJob ServedModel::chat_job(const ChatRequest& r) const {
  bool thinking = wants_thinking(r);
  bool forced =
      r.tool_choice.kind == ToolChoice::kRequired || r.tool_choice.kind == ToolChoice::kNamed;
  if (thinking && forced)
    throw invalid_request("Thinking mode does not support tool_choice 'required' or a named tool");
  bool v3_reasoner = style_ == ApiStyle::kV3 && r.model == kReasonerName;
  if (v3_reasoner && r.options.top_logprobs >= 0)
    throw invalid_request(std::string(kReasonerName) + " does not support the parameter logprobs");
  GenerationJob job;
  Prompt p = chat_prompt(r);
  job.thinking = p.thinking;
  job.prompts.push_back(std::move(p.tokens));
  job.tools = !r.tools.empty() && r.tool_choice.kind != ToolChoice::kNone;
  set_options(r.options, job, thinking ? kReasonerTokens : kChatTokens);
  if (job.max_tokens < 1) throw invalid_request("Invalid max_tokens value, it must be at least 1");
  SamplingParams& s = job.sampling;
  bool later = style_ == ApiStyle::k2026;
  if (v3_reasoner || (later && thinking)) {  // takes no such parameters; DeepSeek's advice for R1
    s.temperature = 0.6;
    s.top_p = v3_reasoner ? 0.95 : std::max(s.top_p, 0.95);
  }
  if (v3_reasoner || later) s.presence_penalty = s.frequency_penalty = 0;
  job.cache_unit = later ? 128 : 64;
  job.stop_ids = chat_stop_ids_;
  if (std::shared_ptr<const AnswerPlan> held = plan(r, job.thinking))
    job.make_mask = masks_of(held);
  return job;
}

GenerationJob ServedModel::completion_job(const CompletionRequest& r) const {
  GenerationJob job;
  job.chat = false;
  if (r.suffix) {
    const std::string* before = std::get_if<std::string>(&r.prompts[0]);
    if (!before) throw invalid_request("Invalid suffix: the prompt must be a text then");
    job.prompts.push_back(fim_to_tokens(*before, *r.suffix, tokenizer_));
  } else {
    for (const auto& prompt : r.prompts) job.prompts.push_back(tokens_of(prompt));
  }
  set_options(r.options, job, kCompletionTokens);
  job.stop_ids = stop_ids_;
  if (!r.options.grammar.empty()) {
    auto held = std::make_shared<AnswerPlan>(AnswerPlan{tokenizer_, model_.config().vocab_size});
    held->parts = {{{}, make_grammar("grammar", r.options.grammar, Grammar::from_gbnf)}};
    held->stop_ids = stop_ids_;
    require_stop(held->stop_ids);
    held->tree = token_tree();
    job.make_mask = masks_of(held);
  }
  if (r.echo && r.options.top_logprobs >= 0) {
    job.prompt_logprobs = r.options.top_logprobs;
    // Harnesses that score texts count on the one token they asked for.
    job.keep_stop_token = true;
  }
  return job;
}

GenerationJob ServedModel::embedding_job(const EmbeddingRequest& r) const {
  GenerationJob job;
  job.chat = false;
  job.mean_hidden = true;
  for (const auto& input : r.inputs) job.prompts.push_back(tokens_of(input));
  GenerationOptions nothing;
  nothing.max_tokens = 0;
  set_options(nothing, job, 0);
  return job;
}

std::shared_ptr<const TokenTree> ServedModel::token_tree() const {
  std::call_once(tree_once_, [&] {
    std::vector<std::string> tokens(static_cast<size_t>(model_.config().vocab_size));
    for (int32_t t = 0; t < tokenizer_.vocab_size(); ++t)
      tokens[static_cast<size_t>(t)] = tokenizer_.token_bytes(t);
    for (const AddedToken& t : tokenizer_.added_tokens()) tokens[static_cast<size_t>(t.id)].clear();
    for (int32_t t : chat_stop_ids_) tokens[static_cast<size_t>(t)].clear();
    tree_ = std::make_shared<const TokenTree>(tokens);
  });
  return tree_;
}

// One call in the template's form; the name is one of several, or given.
std::vector<AnswerPart> ServedModel::forced_calls(const ChatRequest& r) const {
  CallForm form = call_form(template_);
  AnswerPart name{tokenizer_.encode(form.before_name), names_grammar(r.tools)};
  std::vector<ChatTool> tools = r.tools;
  if (r.tool_choice.kind == ToolChoice::kNamed) {
    std::erase_if(tools, [&](const ChatTool& t) { return t.name != r.tool_choice.name; });
    name.grammar = names_grammar(tools);
  }
  for (const ChatTool& t : tools) {
    AnswerPart arguments{tokenizer_.encode(form.before_arguments),
                         t.parameters == "{}"
                             ? std::make_shared<const Grammar>(Grammar::json_object())
                             : make_grammar("function parameters", t.parameters)};
    name.branches.push_back({t.name, {arguments, {tokenizer_.encode(form.after), nullptr}}});
  }
  return {name};
}

std::shared_ptr<AnswerPlan> ServedModel::plan(const ChatRequest& r, bool thinking) const {
  auto p = std::make_shared<AnswerPlan>(AnswerPlan{tokenizer_, model_.config().vocab_size});
  p->thinking = thinking;
  p->thinking_budget = r.thinking_budget;
  if (!p->thinking_budget && r.effort == ReasoningEffort::kLow) p->thinking_budget = context_ / 8;
  if (!p->thinking_budget && r.effort == ReasoningEffort::kHigh) p->thinking_budget = context_ / 2;
  p->thinking_end = tokenizer_.encode(kThinkEnd);
  p->stop_ids = chat_stop_ids_;
  if (r.tool_choice.kind == ToolChoice::kRequired || r.tool_choice.kind == ToolChoice::kNamed) {
    p->parts = forced_calls(r);
  } else if (r.strict_tools && r.tool_choice.kind == ToolChoice::kAuto) {
    if (tokenizer_.encode(kCallsBegin).size() != 1)
      throw invalid_request(
          fmt::format("Strict functions need a model with a token {}: drop strict, or set "
                      "tool_choice to required",
                      kCallsBegin));
    p->parts = forced_calls(r);
    p->parts_from = p->parts[0].tokens.at(0);
  } else if (r.format.kind == ResponseFormat::kJsonObject) {
    p->parts = {{{}, std::make_shared<const Grammar>(Grammar::json_object())}};
  } else if (r.format.kind == ResponseFormat::kJsonSchema) {
    p->parts = {{{}, make_grammar("response_format", r.format.schema)}};
  } else if (!r.options.grammar.empty()) {
    p->parts = {{{}, make_grammar("grammar", r.options.grammar, Grammar::from_gbnf)}};
  }
  bool limited = thinking && p->thinking_budget;
  if (p->parts.empty() && !limited) return nullptr;
  require_stop(p->stop_ids);
  if (!p->parts.empty()) p->tree = token_tree();
  return p;
}

}  // namespace wels
