// The routes of other APIs: Anthropic's messages, OpenAI's responses and embeddings.
#include <fmt/format.h>
#include <openssl/evp.h>

#include <cmath>

#include "serve/anthropic.h"
#include "serve/api_call.h"
#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/responses.h"

namespace wels {
namespace {

// Scaled to length 1. float: [0.1, ...]; else the bytes of little-endian f32 in base64.
std::string embedding_json(const std::vector<float>& mean, bool base64) {
  double square = 0;
  for (float v : mean) square += static_cast<double>(v) * static_cast<double>(v);
  float scale = static_cast<float>(1 / std::sqrt(std::max(square, 1e-30)));
  std::vector<float> unit;
  for (float v : mean) unit.push_back(v * scale);
  if (!base64) return fmt::format("[{}]", fmt::join(unit, ","));
  size_t bytes = unit.size() * sizeof(float);
  std::string text((bytes + 2) / 3 * 4 + 1, '\0');
  int n =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(unit.data()), static_cast<int>(bytes));
  text.resize(static_cast<size_t>(n));
  return "\"" + text + "\"";
}

}  // namespace

void Api::messages(Call& call) {
  ChatRequest r = parse_messages_request(call.request.body, false);
  std::vector<std::string> names = models_.names();
  if (std::find(names.begin(), names.end(), r.model) == names.end()) r.model = names[0];
  GenerationJob job = model_for(call, r.model, r.options.stream).chat_job(r);
  ResponseInfo about = info(call, r.model);
  std::unique_ptr<EventWriter> writer;
  if (r.options.stream)
    writer = make_messages_writer(about, static_cast<int64_t>(job.prompts[0].size()));
  generate(call, std::move(job), r.options, std::move(writer),
           [about](const std::vector<Answer>& answers, const Generation& g) {
             return messages_response(about, answers[0], g.usage());
           });
}

void Api::count_tokens(Call& call) {
  ChatRequest r = parse_messages_request(call.request.body, true);
  std::vector<std::string> names = models_.names();
  if (std::find(names.begin(), names.end(), r.model) == names.end()) r.model = names[0];
  const ServedModel& model = model_for(call, r.model, false);
  answer_json(call, fmt::format("{{\"input_tokens\":{}}}", model.chat_prompt(r).tokens.size()));
}

void Api::responses(Call& call) {
  ChatRequest r = parse_responses_request(call.request.body);
  GenerationJob job = model_for(call, r.model, r.options.stream).chat_job(r);
  ResponseInfo about = info(call, r.model);
  std::unique_ptr<EventWriter> writer;
  if (r.options.stream) writer = make_responses_writer(about, r);
  GenerationOptions options = r.options;
  generate(call, std::move(job), options, std::move(writer),
           [about, r = std::move(r)](const std::vector<Answer>& answers, const Generation& g) {
             return responses_response(about, r, answers[0], g.usage());
           });
}

void Api::embeddings(Call& call) {
  EmbeddingRequest r = parse_embedding_request(call.request.body);
  GenerationJob job = model_for(call, r.model, false).embedding_job(r);
  std::string model = r.model;
  bool base64 = r.base64;
  GenerationOptions options;
  options.user_id = r.user_id;
  generate(call, std::move(job), options, nullptr,
           [model, base64](const std::vector<Answer>& answers, const Generation& g) {
             std::string data;
             for (size_t i = 0; i < answers.size(); ++i) {
               data += fmt::format(
                   R"({}{{"object":"embedding","index":{},"embedding":{}}})", i > 0 ? "," : "", i,
                   embedding_json(g.result(static_cast<int>(i)).mean_hidden, base64));
             }
             int64_t tokens = g.usage().prompt;
             return fmt::format(R"({{"object":"list","data":[{}],"model":{},)"
                                R"("usage":{{"prompt_tokens":{},"total_tokens":{}}}}})",
                                data, json_string(model), tokens, tokens);
           });
}

}  // namespace wels
