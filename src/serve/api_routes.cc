// The routes of DeepSeek's and OpenAI's API.
#include <fmt/format.h>

#include <charconv>
#include <sstream>

#include "base/version.h"
#include "serve/api_call.h"
#include "serve/api_error.h"
#include "serve/json_text.h"
#include "text/unicode.h"

namespace wels {

const std::vector<Api::Route>& Api::routes() {
  static const std::vector<Route> table = {
      {"GET", "/", Auth::kOpen, &Api::page, "The page", ""},
      {"GET", "/index.html", Auth::kOpen, &Api::page, "The page", ""},
      {"GET", "/ui/config.json", Auth::kOpen, &Api::page_config, "What the page shows", ""},
      {"POST", "/chat/completions", Auth::kKey, &Api::chat_completions, "Answer a conversation",
       "model:string! messages:array! stream:boolean stream_options:object max_tokens:integer "
       "max_completion_tokens:integer temperature:number top_p:number top_k:integer min_p:number "
       "typical_p:number grammar:string presence_penalty:number frequency_penalty:number "
       "repetition_penalty:number stop:array "
       "seed:integer n:integer logprobs:boolean top_logprobs:integer logit_bias:object tools:array "
       "tool_choice:string response_format:object thinking:object thinking_budget:integer "
       "reasoning_effort:string "
       "inside:boolean user_id:string"},
      {"GET", "/ui/inside/", Auth::kKey, &Api::inside, "The experts of an answer's tokens", ""},
      {"GET", "/ui/runs", Auth::kKey, &Api::runs, "The runs of --runs", ""},
      {"GET", "/ui/runs/", Auth::kKey, &Api::runs, "One run: metrics, events, samples, experts",
       ""},
      {"POST", "/completions", Auth::kKey, &Api::completions,
       "Continue texts, or fill in the middle",
       "model:string! prompt:string! suffix:string echo:boolean stream:boolean "
       "stream_options:object max_tokens:integer temperature:number top_p:number top_k:integer "
       "min_p:number typical_p:number grammar:string presence_penalty:number "
       "frequency_penalty:number repetition_penalty:number "
       "stop:array seed:integer n:integer logprobs:integer logit_bias:object user_id:string"},
      {"GET", "/models", Auth::kKey, &Api::models, "The models' names", ""},
      {"GET", "/models/", Auth::kKey, &Api::models, "One model", ""},
      {"GET", "/user/balance", Auth::kKey, &Api::balance, "What the account has left", ""},
      {"POST", "/tokenize", Auth::kKey, &Api::tokenize, "Token ids of a text or conversation",
       "prompt:string messages:array model:string tools:array"},
      {"POST", "/embeddings", Auth::kKey, &Api::embeddings, "Mean hidden states of texts",
       "model:string! input:string! encoding_format:string user_id:string"},
      {"POST", "/responses", Auth::kKey, &Api::responses, "Answer a conversation, as items",
       "model:string! input:string! instructions:string stream:boolean max_output_tokens:integer "
       "temperature:number top_p:number tools:array tool_choice:string text:object "
       "reasoning:object user_id:string"},
      {"POST", "/anthropic/v1/messages", Auth::kKey, &Api::messages,
       "Answer a conversation, in Anthropic's form",
       "model:string! messages:array! max_tokens:integer! system:string stream:boolean "
       "stop_sequences:array temperature:number top_p:number thinking:object tools:array "
       "tool_choice:object metadata:object output_config:object",
       true},
      {"POST", "/anthropic/v1/messages/count_tokens", Auth::kKey, &Api::count_tokens,
       "Tokens of a conversation", "model:string! messages:array! system:string tools:array", true},
      {"GET", "/openapi.json", Auth::kOpen, &Api::openapi, "This description", ""},
      {"GET", "/health", Auth::kOpen, &Api::health, "Whether the server is up", ""},
      {"GET", "/metrics", Auth::kKeyOrLoopback, &Api::metrics, "Counters for Prometheus", ""},
  };
  return table;
}

void Api::chat_completions(Call& call) {
  ChatRequest r = parse_chat_request(call.request.body, call.beta);
  GenerationJob job = model_for(call, r.model, r.options.stream).chat_job(r);
  ResponseInfo about = info(call, r.model);
  if (r.inside) job.trace_id = about.id;
  std::unique_ptr<EventWriter> writer;
  if (r.options.stream) writer = make_chat_writer(about, r.options.include_usage);
  bool logprobs = r.options.top_logprobs >= 0;
  generate(call, std::move(job), r.options, std::move(writer),
           [about, logprobs](const std::vector<Answer>& answers, const Generation& g) {
             return chat_response(about, answers, g.usage(), logprobs);
           });
}

namespace {

std::vector<Echo> echoes(const Tokenizer& t, const Generation& g, bool logprobs) {
  std::vector<Echo> out;
  for (int i = 0; i < static_cast<int>(g.choices()); ++i) {
    const std::vector<int32_t>& prompt = g.prompt_of(i);
    Echo e;
    e.text = utf8_lossy(t.decode(prompt, true));
    const auto& known = g.result(i / g.job().n * g.job().n).prompt_logp;
    for (size_t k = 0; logprobs && k < prompt.size(); ++k) {
      TokenLogprob token{prompt[k], std::string(t.token_bytes(prompt[k])), 0, {}};
      if (k > 0 && k <= known.size()) {
        token.logp = known[k - 1].plain_logp;
        for (auto [id, logp] : known[k - 1].top)
          token.top.push_back({std::string(t.token_bytes(id)), logp});
      }
      token.shown = !t.is_special(prompt[k]);
      e.tokens.push_back(std::move(token));
    }
    out.push_back(std::move(e));
  }
  return out;
}

}  // namespace

void Api::completions(Call& call) {
  CompletionRequest r = parse_completion_request(call.request.body);
  const ServedModel& model = model_for(call, r.model, r.options.stream);
  GenerationJob job = model.completion_job(r);
  ResponseInfo about = info(call, r.model);
  std::unique_ptr<EventWriter> writer;
  if (r.options.stream) {
    std::vector<std::string> texts;
    for (size_t i = 0; r.echo && i < job.prompts.size() * static_cast<size_t>(job.n); ++i)
      texts.push_back(
          utf8_lossy(model.tokenizer().decode(job.prompts[i / static_cast<size_t>(job.n)], true)));
    writer = make_completion_writer(about, r.options.include_usage, std::move(texts));
  }
  bool logprobs = r.options.top_logprobs >= 0, echo = r.echo;
  generate(call, std::move(job), r.options, std::move(writer),
           [about, logprobs, echo, tokenizer = model.tokenizer()](
               const std::vector<Answer>& answers, const Generation& g) {
             std::vector<Echo> shown;
             if (echo) shown = echoes(tokenizer, g, logprobs);
             return completion_response(about, answers, shown, g.usage(), logprobs);
           });
}

namespace {

std::string percent_decoded(std::string_view path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) {
    unsigned byte = 0;
    auto digits = path.substr(std::min(i + 1, path.size()), 2);
    bool escape =
        path[i] == '%' && digits.size() == 2 &&
        std::from_chars(digits.data(), digits.data() + 2, byte, 16).ptr == digits.data() + 2;
    out += escape ? static_cast<char>(byte) : path[i];
    if (escape) i += 2;
  }
  return out;
}

}  // namespace

void Api::models(Call& call) {
  bool beta = false;
  std::string path = local_path(call.request.path, beta);
  auto entry = [](const std::string& name) {
    return "{\"id\":" + json_string(name) + ",\"object\":\"model\",\"owned_by\":\"deepseek\"}";
  };
  std::string list;
  for (const std::string& name : models_.names()) {
    if (percent_decoded(path) == "/models/" + name) return answer_json(call, entry(name));
    list += (list.empty() ? "" : ",") + entry(name);
  }
  if (path != "/models") return answer(call, empty_response(404));
  answer_json(call, "{\"object\":\"list\",\"data\":[" + list + "]}");
}

void Api::balance(Call& call) {
  Balance b;
  std::string currency = accounts_ ? accounts_->prices().currency : "USD";
  if (call.caller) b = accounts_->balance(*call.caller);
  answer_json(call, fmt::format(R"({{"is_available":{},"balance_infos":[{{"currency":"{}",)"
                                R"("total_balance":"{}","granted_balance":"{}",)"
                                R"("topped_up_balance":"{}"}}]}})",
                                !call.caller || b.total() > 0, currency, amount_text(b.total()),
                                amount_text(b.granted), amount_text(b.paid)));
}

// {"prompt": text} or the fields of a chat request → {"count", "max_model_len", "tokens"}.
void Api::tokenize(Call& call) {
  Json json = parse_body(call.request.body);
  JsonFields f(call.request.body, json);
  std::vector<int32_t> tokens;
  if (f.any("messages")) {
    if (!f.any("model")) json["model"] = models_.first_name();
    ChatRequest r = parse_chat_request(json.dump(), call.beta);
    tokens = model_for(call, r.model, false).chat_prompt(r).tokens;
  } else {
    std::string text = f.required("prompt", f.text("prompt"));
    model_for(call, f.text("model").value_or(models_.first_name()), false)
        .tokenizer()
        .encode(text, AddedTokens::kAsText, tokens);
  }
  std::string list;
  for (int32_t t : tokens) list += (list.empty() ? "" : ",") + std::to_string(t);
  answer_json(call, fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[{}]}})", tokens.size(),
                                call.pin->model->context(), list));
}

// OpenAPI 3.1, from the table of routes.
void Api::openapi(Call& call) {
  Json paths = Json::object();
  for (const Route& r : routes()) {
    std::string path = r.path;
    if (path == "/models/") path += "{model}";
    if (path == "/ui/inside/") path += "{id}";
    if (path == "/ui/runs/") path += "{id}";
    Json operation{{"summary", r.summary}};
    if (path.ends_with('}')) {
      std::string name = path.substr(path.rfind('{') + 1);
      name.pop_back();
      operation["parameters"] = Json::array(
          {{{"name", name}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
    }
    if (*r.fields) {
      Json properties = Json::object(), required = Json::array();
      std::istringstream fields(r.fields);
      for (std::string field; fields >> field;) {
        size_t colon = field.find(':');
        std::string name = field.substr(0, colon), type = field.substr(colon + 1);
        if (type.ends_with('!')) {
          required.push_back(name);
          type.pop_back();
        }
        properties[name] = {{"type", type}};
      }
      // Several fields also take other types (stop, prompt, input, tool_choice).
      for (const char* name : {"prompt", "input", "stop", "tool_choice"}) {
        if (properties.contains(name)) properties[name] = Json::object();
      }
      Json schema{{"type", "object"}, {"properties", properties}};
      if (!required.empty()) schema["required"] = required;
      operation["requestBody"] = {{"required", true},
                                  {"content", {{"application/json", {{"schema", schema}}}}}};
    }
    operation["responses"] = {{"200", {{"description", "OK"}}},
                              {"default", {{"description", "An error: {\"error\": ...}"}}}};
    if (r.auth == Auth::kOpen) operation["security"] = Json::array();
    std::string method = r.method;
    for (char& c : method) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    paths[path][method] = operation;
  }
  Json out{
      {"openapi", "3.1.0"},
      {"info", {{"title", "wels"}, {"version", version()}}},
      {"servers", Json::array({{{"url", "/"}}, {{"url", "/v1"}}})},
      {"paths", paths},
      {"security", Json::array({{{"key", Json::array()}}})},
      {"components", {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}}};
  answer_json(call, out.dump());
}

void Api::health(Call& call) { answer_json(call, R"({"status":"ok"})"); }

void Api::metrics(Call& call) {
  HttpResponse r;
  r.content_type = "text/plain; version=0.0.4; charset=utf-8";
  r.body = metrics_.text(models_.stats(), connections_ ? connections_() : 0);
  answer(call, std::move(r));
}

}  // namespace wels
