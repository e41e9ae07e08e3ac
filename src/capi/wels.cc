#include "capi/wels.h"

#include <algorithm>
#include <cstring>
#include <exception>

#include "apps/conversation.h"
#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/log.h"
#include "base/version.h"
#include "engine/engine.h"
#include "text/chat.h"
#include "text/stream_printer.h"
#include "text/unicode.h"

struct wels_model {
  wels::LoadedModel loaded;
  std::optional<wels::ChatTemplate> chat_template;
  std::vector<int32_t> stop_ids;
  int64_t context;
  wels::Engine engine;
};

namespace wels {
namespace {

void say(const char* what, char* error, size_t bytes) {
  if (!error || bytes == 0) return;
  size_t n = std::min(std::strlen(what), bytes - 1);
  std::memcpy(error, what, n);
  error[n] = 0;
}

// fn's result; what it throws becomes `error` and `otherwise`.
template <class Result, class Fn>
Result guarded(char* error, size_t bytes, Result otherwise, Fn&& fn) {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    say("memory: none left; use a smaller model or context", error, bytes);
  } catch (const std::exception& e) {
    say(e.what(), error, bytes);
  }
  return otherwise;
}

std::string text_of(const char* text, const char* name) {
  if (!text) throw Error(name, "is NULL", "give a text");
  std::string out(text);
  if (utf8_lossy(out) != out) throw Error(name, "is no UTF-8", "convert it");
  return out;
}

wels_model& opened(wels_model* model) {
  if (!model) throw Error("model", "is NULL", "open one with wels_open");
  return *model;
}

// begun: of the answer, by the template.
wels_result generate(wels_model& m, std::vector<int32_t> prompt, const std::string& begun,
                     const wels_options* given, wels_on_text on_text, void* user) {
  if (!on_text) throw Error("on_text", "is NULL", "give a function that takes the text");
  wels_options o = given ? *given : wels_default_options();
  if (o.max_tokens < 0) throw Error("max_tokens", "is negative", "0 means until the end");
  auto room = m.context - static_cast<int64_t>(prompt.size());
  if (room < 1)
    throw Error("prompt",
                "has " + std::to_string(prompt.size()) + " tokens, the context is " +
                    std::to_string(m.context),
                "shorten it, or open the model with more");
  bool stopped = false;
  auto show = [&](std::string_view text) {
    if (!stopped && !text.empty()) stopped = on_text(text.data(), text.size(), user) != 0;
  };
  StreamPrinter printer(*m.loaded.tokenizer, {}, show);
  GenerateRequest r;
  r.prompt = std::move(prompt);
  r.max_new_tokens = o.max_tokens > 0 ? std::min(o.max_tokens, room) : room;
  r.sampling.temperature = o.temperature;
  r.sampling.top_p = o.top_p;
  r.sampling.min_p = o.min_p;
  r.sampling.top_k = static_cast<int>(std::clamp<int64_t>(o.top_k, INT32_MIN, INT32_MAX));
  r.sampling.seed = o.seed;
  r.sampling.validate();
  r.stop_ids = m.stop_ids;
  r.on_token = [&](const SampledToken& t) {
    printer.push(t.id);
    return !stopped;
  };
  show(begun);
  if (stopped) return WELS_STOPPED;
  std::vector<GenerateResult> results = m.engine.run({std::move(r)});
  printer.finish();
  if (stopped) return WELS_STOPPED;
  return results[0].finish == GenerateResult::Finish::kStop ? WELS_DONE : WELS_LENGTH;
}

}  // namespace
}  // namespace wels

using wels::Error;

const char* wels_version(void) {
  static const std::string version(wels::version());
  return version.c_str();
}

wels_options wels_default_options(void) {
  wels_options o = {};
  o.max_tokens = 256;
  o.top_p = 1;
  return o;
}

wels_model* wels_open(const char* path, int64_t context, char* error, size_t error_bytes) {
  return wels::guarded<wels_model*>(error, error_bytes, nullptr, [&] {
    wels::set_log_level(wels::LogLevel::kOff);
    wels::LoadedModel m = wels::open_model(wels::text_of(path, "path"), "auto", "auto");
    wels::require_tokenizer(m);
    int64_t longest = m.model->config().max_position_embeddings;
    if (context < 0) throw Error("context", "is negative", "0 means 4096, or the model's");
    context = std::min(context > 0 ? context : 4096, longest);
    wels::require_memory_for(m, context, m.dtype);
    std::vector<int32_t> stop_ids = wels::end_tokens(m);
    auto chat_template = wels::choose_template("auto", m);
    wels::Device& dev = *m.dev;
    wels::Model& model = *m.model;
    wels::DType dtype = m.dtype;
    return new wels_model{std::move(m), chat_template, std::move(stop_ids), context,
                          wels::Engine(dev, model, dtype, context)};
  });
}

void wels_close(wels_model* model) { delete model; }

int64_t wels_count_tokens(wels_model* model, const char* text) {
  return wels::guarded<int64_t>(nullptr, 0, -1, [&] {
    auto tokens = wels::opened(model).loaded.tokenizer->encode(wels::text_of(text, "text"));
    return static_cast<int64_t>(tokens.size());
  });
}

wels_result wels_complete(wels_model* model, const char* prompt, const wels_options* options,
                          wels_on_text on_text, void* user, char* error, size_t error_bytes) {
  return wels::guarded(error, error_bytes, WELS_ERROR, [&] {
    const wels::Tokenizer& t = *wels::opened(model).loaded.tokenizer;
    std::vector<int32_t> tokens =
        t.encode_document(wels::text_of(prompt, "prompt"), wels::AddedTokens::kRecognise);
    if (tokens.empty()) throw Error("prompt", "is empty", "give a text to continue");
    return wels::generate(*model, std::move(tokens), "", options, on_text, user);
  });
}

wels_result wels_chat(wels_model* model, const char* messages, const wels_options* options,
                      wels_on_text on_text, void* user, char* error, size_t error_bytes) {
  return wels::guarded(error, error_bytes, WELS_ERROR, [&] {
    wels_model& m = wels::opened(model);
    wels::Conversation talk(*m.loaded.tokenizer, m.chat_template);
    talk.set_messages(wels::parse_chat_messages(wels::text_of(messages, "messages"), "messages"));
    wels_options o = options ? *options : wels_default_options();
    int64_t room = wels::answer_room(m.context, o.max_tokens);
    auto prompt = talk.prompt(o.thinking, m.context - room);
    return wels::generate(m, std::move(prompt.tokens), prompt.begun, &o, on_text, user);
  });
}
