// wels serve: a model behind DeepSeek's and OpenAI's API.
#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "apps/cache_flags.h"
#include "apps/commands.h"
#include "apps/expert_flags.h"
#include "apps/loaded_model.h"
#include "apps/sampling_flags.h"
#include "base/error.h"
#include "base/log.h"
#include "base/signal.h"
#include "serve/api.h"
#include "serve/http_server.h"
#include "serve/page.h"

namespace wels {
namespace {

struct ServeFlags {
  DeviceFlags device;
  CacheFlags cache;
  ExpertFlags experts;
  std::vector<std::string> models, names, runs;
  std::string dtype = "auto", chat_template = "auto", keys;
  double idle_minutes = 15;
  int64_t context = 0, cache_tokens = 0;
  HttpServerOptions http;
  ApiOptions api;
  Prices prices;
  ApiStyle style = ApiStyle::kV3;
};

struct ModelFlags {
  std::string name, path;
};

// "out/mine" and "mine.gguf" are both "mine".
std::string name_of(const std::string& path) {
  std::filesystem::path p(path);
  if (!p.has_filename()) p = p.parent_path();
  return p.extension() == ".gguf" ? p.stem().string() : p.filename().string();
}

// One of --name for each model, in order; the others are named by their folders.
std::vector<ModelFlags> named_models(const ServeFlags& f) {
  if (f.names.size() > f.models.size())
    throw Error("--name", "there are more names than models", "give one for each, in their order");
  std::vector<ModelFlags> out;
  for (size_t i = 0; i < f.models.size(); ++i) {
    std::string name = i < f.names.size() ? f.names[i] : name_of(f.models[i]);
    for (const ModelFlags& other : out) {
      if (other.name == name)
        throw Error(f.models[i], "would be named " + name + " as " + other.path,
                    "give each a name: --name ONE --name TWO");
    }
    if (f.models.size() > 1 && (name == kChatName || name == kReasonerName || name == kFlashName))
      throw Error(f.models[i], "is named " + name + ", which is a mode of the first model",
                  "give it another --name");
    out.push_back({name, f.models[i]});
  }
  return out;
}

LoadedModel open_for_serving(const ServeFlags& f, const std::string& path) {
  LoadedModel m = open_model(path, f.device.device, f.dtype);
  require_tokenizer(m);
  if (f.api.speculate == Speculate::kMtp && m.model->config().num_nextn_predict_layers == 0)
    throw Error("--speculate", m.folder + " has no MTP module", "use ngram or none");
  choose_template(f.chat_template, m);
  return m;
}

std::unique_ptr<ModelHost> host_model(const ServeFlags& f, const ModelFlags& which) {
  auto m = std::make_shared<LoadedModel>(open_for_serving(f, which.path));
  int64_t longest = m->model->config().max_position_embeddings;
  int64_t context = f.context > 0 ? std::min(f.context, longest) : std::min<int64_t>(longest, 8192);
  if (f.context > longest)
    log_warn("--context {}: the model's longest, {}, is taken", f.context, longest);
  CacheOptions cache = f.cache.options(m->dtype);
  cache.tokens = f.cache_tokens > 0 ? f.cache_tokens : 8 * context;
  double share = f.experts.apply(*m);
  try {
    require_memory_for(*m, std::max(context, cache.tokens), *cache.dtype, share, true);
  } catch (const Error& e) {
    throw OutOfMemory(e);
  }
  auto host = std::make_unique<ModelHost>();
  host->model = std::make_unique<ServedModel>(*m->dev, *m->model, m->dtype, *m->tokenizer,
                                              choose_template(f.chat_template, *m), which.name,
                                              context, f.style);
  host->engine = std::make_unique<EngineThread>(*m->dev, *m->model, m->dtype, context, cache);
  host->owner = std::move(m);
  return host;
}

int serve(ServeFlags f) {
  if (f.http.address == "localhost") f.http.address = "127.0.0.1";
  require_ip_address(f.http.address);
  bool loopback = names_loopback(f.http.address);
  if (f.keys.empty() && !loopback) {
    throw Error("--host",
                f.http.address + " can be reached from elsewhere, and anybody could use it",
                "give --keys FILE (wels keys create makes keys)");
  }
  f.device.apply();
  std::vector<ModelFlags> models = named_models(f);
  std::vector<ModelSource> sources;
  for (const ModelFlags& m : models) {
    // What is wrong with a later model is better said now; weights are only mapped.
    if (&m != &models[0]) open_for_serving(f, m.path);
    sources.push_back({m.name, [&f, m] { return host_model(f, m); }});
  }
  std::optional<Accounts> accounts;
  if (!f.keys.empty()) accounts.emplace(f.keys, f.prices);
  ModelPool pool(std::move(sources), f.idle_minutes * 60, f.style);
  f.api.loopback = loopback && !accounts;
  Api api(pool, accounts ? &*accounts : nullptr, f.api);
  std::optional<RunRoutes> runs;
  if (!f.runs.empty()) runs.emplace(RunTable(f.runs, false));
  api.show_runs(runs ? &*runs : nullptr);
  HttpServer server(f.http, api);
  api.count_connections([&server] { return server.connections(); });
  bool tls = !f.http.tls_certificate.empty();
  bool v6 = f.http.address.find(':') != std::string::npos;
  StopSignal stop;
  log_info("serving {} as {}, context {}", models[0].path, fmt::join(pool.names(), ", "),
           pool.context());
  fmt::print("{}://{}:{}\n", tls ? "https" : "http",
             v6 ? "[" + f.http.address + "]" : f.http.address, server.port());
  std::fflush(stdout);
  server.run([&] {
    if (runs && stop.requested()) runs->end();  // whoever follows one gets its last lines
    if (runs) runs->tick();
    return stop.requested();
  });
  api.stop();
  log_info("all requests are answered");
  return 0;
}

}  // namespace

void add_serve(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("serve", "answer clients of DeepSeek's and OpenAI's API");
  auto f = std::make_shared<ServeFlags>();
  f->http.port = 8080;
  sub->add_option("models", f->models,
                  "model folders, run folders or GGUF files; the first is loaded at once, others "
                  "when they are asked for")
      ->required();
  sub->add_option("--name", f->names, "a model's own name (else its folder's), for each in order");
  sub->add_option("--runs", f->runs,
                  "run folders, or folders that hold some, for the page's view of training; with "
                  "--keys behind a key like all else");
  sub->add_option("--idle-minutes", f->idle_minutes,
                  "after which one of several models is unloaded (0: only where another needs its "
                  "memory)")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  sub->add_option("--host", f->http.address, "address to listen on")->capture_default_str();
  sub->add_option("--port", f->http.port, "0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  sub->add_option("--tls-cert", f->http.tls_certificate, "PEM file: serve https");
  sub->add_option("--tls-key", f->http.tls_key, "PEM file of its key");
  sub->add_option("--keys", f->keys, "accounts file of wels keys; only they may use it then");
  sub->add_option("--price-hit", f->prices.hit, "of a million prompt tokens found in the cache")
      ->capture_default_str();
  sub->add_option("--price-miss", f->prices.miss, "of a million prompt tokens that are computed")
      ->capture_default_str();
  sub->add_option("--price-output", f->prices.output, "of a million tokens of answers")
      ->capture_default_str();
  sub->add_option("--currency", f->prices.currency, "of prices and balances")
      ->check(CLI::IsMember({"USD", "CNY", "EUR"}))
      ->capture_default_str();
  sub->add_option("--context", f->context,
                  "tokens of a prompt with its answer (0: 8192, or the model's)")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  sub->add_option("--cache-tokens", f->cache_tokens, "tokens of the KV cache (0: 8 contexts)")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  sub->add_option("--template", f->chat_template, template_flag_help())->capture_default_str();
  sub->add_option("--queue", f->api.queue_limit,
                  "requests that wait for a first token; beyond: 503")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  sub->add_option("--queue-seconds", f->api.queue_s, "that a request waits at most")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  sub->add_option("--request-seconds", f->api.request_s, "that a request takes at most")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str();
  sub->add_option("--drain-seconds", f->http.drain_s, "after Ctrl-C, for requests under way")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  sub->add_option_function<double>(
         "--stream-ms", [f](double ms) { f->http.limits.stream_gap_s = ms / 1e3; },
         "what a stream says within it is sent together (0: every token at once)")
      ->check(CLI::Range(0.0, 1e3))
      ->default_str("10");
  sub->add_option("--cors-origin", f->api.origins,
                  "web pages that may call, besides those of this machine (*: all)");
  std::map<std::string, ApiStyle> styles{{"v3", ApiStyle::kV3}, {"2026", ApiStyle::k2026}};
  sub->add_option("--api-style", f->style,
                  "v3: as DeepSeek's API of V3 and R1; 2026: deepseek-flash, which thinks unless "
                  "told otherwise")
      ->transform(CLI::CheckedTransformer(styles))
      ->default_str("v3");
  sub->add_option("--dtype", f->dtype, "auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  add_speculate_flag(sub, f->api.speculate);
  f->cache.add(sub);
  f->experts.add(sub);
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return serve(*f); }; });
}

}  // namespace wels
