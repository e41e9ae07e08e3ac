// wels bench serve: the server under many streams, next to the same engine without HTTP, text and
// JSON: what serving costs, how long clients wait, and whether every one gets every token.
#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "apps/bench.h"
#include "apps/cache_flags.h"
#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/progress.h"
#include "base/rng.h"
#include "serve/api.h"
#include "serve/cpu_meter.h"
#include "serve/http_server.h"
#include "serve/json_text.h"
#include "serve/load_client.h"

namespace wels {
namespace {

struct Flags {
  DeviceFlags device;
  CacheFlags cache;
  std::string model, chat_template = "auto", dtype = "auto";
  std::vector<int64_t> streams{1, 8, 32};
  int64_t requests = 4, tokens = 64, open = 1000, active = 64, prefix = 2048;
  double stream_ms = 1e3 * HttpLimits().stream_gap_s;
  bool json = false;
};

// CPU seconds that this process's threads named so have used.
double cpu_of_threads(const std::vector<std::string>& names) {
  double sum = 0;
  std::error_code ignored;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    double ns = 0;
    if (std::find(names.begin(), names.end(), name) != names.end() &&
        std::ifstream(task.path() / "schedstat") >> ns)
      sum += ns / 1e9;
  }
  return sum;
}

ApiOptions unlimited(std::atomic<int64_t>& engine_cpu_ns) {
  ApiOptions o;
  o.queue_limit = 1 << 20;
  o.engine_cpu_ns = &engine_cpu_ns;
  return o;
}

// CPU seconds by who used them.
struct Cpu {
  double io = 0, workers = 0, engine = 0;  // engine: only what its thread does for clients
  double server() const { return io + workers + engine; }
};

// The server, in this process.
class Server {
 public:
  Server(LoadedModel& m, const Flags& f, int64_t context, CacheOptions cache)
      : models_({{"bench",
                  [&m, &f, context, cache] {
                    auto host = std::make_unique<ModelHost>();
                    host->model = std::make_unique<ServedModel>(
                        *m.dev, *m.model, m.dtype, *m.tokenizer,
                        choose_template(f.chat_template, m), "bench", context);
                    host->engine =
                        std::make_unique<EngineThread>(*m.dev, *m.model, m.dtype, context, cache);
                    return host;
                  }}},
                0),
        pin_(models_.find("bench")),
        api_(models_, nullptr, unlimited(engine_cpu_ns_)),
        http_({.limits = {.stream_gap_s = f.stream_ms / 1e3}}, api_),
        thread_([this] {
          pthread_setname_np(pthread_self(), "wels-http");
          http_.run();
        }) {}
  ~Server() {
    http_.stop();
    thread_.join();
    api_.stop();
  }
  const ServedModel& model() const { return *pin_->model; }
  EngineThread& engine() { return *pin_->engine; }
  LoadTarget target() const { return {.port = http_.port()}; }
  Cpu cpu() const {
    return {cpu_of_threads({"wels-http"}), cpu_of_threads({"wels-api"}),
            static_cast<double>(engine_cpu_ns_) / 1e9};
  }

 private:
  std::atomic<int64_t> engine_cpu_ns_{0};
  ModelPool models_;
  ModelPool::Pin pin_;
  Api api_;
  HttpServer http_;
  std::thread thread_;
};

// A question like no other in its first words, so that no prompt is found in the cache.
std::string question(uint64_t number, int64_t words = 12) {
  Rng rng(number, 0);
  std::string q;
  for (int64_t i = 0; i < words; ++i) q += fmt::format("{} ", rng.below(1'000'000));
  return q + "?";
}

// Temperature 0, and an answer of `tokens` tokens where the model does not end it before.
std::string body_of(const std::string& question, int64_t tokens, bool stream = true) {
  return fmt::format(R"({{"model":"deepseek-chat","stream":{},"temperature":0,"messages":[)"
                     R"({{"role":"user","content":{}}}],"max_tokens":{}}})",
                     stream, json_string(question), tokens);
}

struct Rate {
  double tokens_per_s = 0, seconds = 0;
  int64_t tokens = 0;
};

GenerateRequest request_of(Server& server, const std::string& body, const std::string& scope) {
  GenerateRequest r;
  try {
    GenerationJob job = server.model().chat_job(parse_chat_request(body, false));
    r.prompt = job.prompts[0];
    r.max_new_tokens = job.max_tokens;
    r.sampling = job.sampling;
    r.stop_ids = job.stop_ids;
  } catch (const ApiError& e) {
    throw Error("--tokens", e.message(),
                "keep them within the model's context, which `wels info` says");
  }
  r.scope = scope;
  return r;
}

// The same requests by the engine alone: `streams` at once, each client's one after another. It
// finds no prompt that another scope computed.
Rate engine_alone(Server& server, const std::vector<std::vector<std::string>>& bodies,
                  const std::string& scope) {
  std::vector<std::vector<GenerateRequest>> requests;
  for (const std::vector<std::string>& own : bodies) {
    requests.emplace_back();
    for (const std::string& body : own) requests.back().push_back(request_of(server, body, scope));
  }
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    size_t left = 0;
    int64_t tokens = 0;
  } shared;
  shared.left = requests.size();
  std::function<void(Engine&, size_t, size_t)> next = [&](Engine& engine, size_t c, size_t i) {
    if (i == requests[c].size()) {
      std::lock_guard lock(shared.mutex);
      --shared.left;
      return shared.changed.notify_one();
    }
    GenerateRequest r = requests[c][i];
    r.on_finish = [&, c, i](GenerateResult result) {
      {
        std::lock_guard lock(shared.mutex);
        shared.tokens += static_cast<int64_t>(result.tokens.size());
      }
      next(engine, c, i + 1);
    };
    engine.submit(std::move(r));
  };
  double begin = monotonic_seconds();
  server.engine().post([&](Engine& engine) {
    for (size_t c = 0; c < requests.size(); ++c) next(engine, c, 0);
  });
  std::unique_lock lock(shared.mutex);
  shared.changed.wait(lock, [&] { return shared.left == 0; });
  double s = monotonic_seconds() - begin;
  return {static_cast<double>(shared.tokens) / s, s, shared.tokens};
}

struct Waits {
  std::vector<double> first_s, gaps_s;
  int64_t tokens = 0, done = 0, events = 0;  // events: reads that brought text
  void add(const LoadStream& s) {
    done += s.done;
    tokens += s.completion_tokens;
    if (!s.text.empty()) first_s.push_back(s.first_s);
    events += !s.text.empty() + static_cast<int64_t>(s.gaps_s.size());
    gaps_s.insert(gaps_s.end(), s.gaps_s.begin(), s.gaps_s.end());
  }
  void write(nlohmann::ordered_json& j) {
    j["first_token_ms"] = {{"p50", 1e3 * quantile(first_s, 0.5)},
                           {"p99", 1e3 * quantile(first_s, 0.99)}};
    j["between_tokens_ms"] = {{"p50", 1e3 * quantile(gaps_s, 0.5)},
                              {"p99", 1e3 * quantile(gaps_s, 0.99)},
                              {"longest", 1e3 * quantile(gaps_s, 1)}};
  }
};

// One load, and what CPU time it took outside the model.
struct Measured {
  Waits waits;
  Cpu cpu;
  double seconds = 0, clients_cpu = 0, requests = 0;
  void write(nlohmann::ordered_json& j) {
    j["requests"] = static_cast<int64_t>(requests);
    j["complete"] = waits.done;
    j["tokens_per_s"] = static_cast<double>(waits.tokens) / seconds;
    j["cpu_ms_per_request"] = 1e3 * cpu.server() / requests;
    j["of_it"] = {{"io", 1e3 * cpu.io / requests},
                  {"workers", 1e3 * cpu.workers / requests},
                  {"engine", 1e3 * cpu.engine / requests}};
    j["clients_cpu_ms_per_request"] = 1e3 * clients_cpu / requests;
  }
};

Measured measured_load(Server& server, const std::vector<std::vector<std::string>>& bodies) {
  std::vector<LoadClient> clients;
  for (const std::vector<std::string>& own : bodies) clients.push_back({.bodies = own});
  Measured m;
  Cpu before = server.cpu();
  int64_t clients_cpu_ns = thread_cpu_ns();
  double begin = monotonic_seconds();
  std::vector<LoadStream> result = run_load(server.target(), clients);
  m.seconds = monotonic_seconds() - begin;
  m.clients_cpu = static_cast<double>(thread_cpu_ns() - clients_cpu_ns) / 1e9;
  Cpu now = server.cpu();
  m.cpu = {now.io - before.io, now.workers - before.workers, now.engine - before.engine};
  m.requests = static_cast<double>(result.size());
  for (const LoadStream& r : result) m.waits.add(r);
  return m;
}

// What each of so many clients asks; other questions for another `first`.
std::vector<std::vector<std::string>> bodies_of(const Flags& f, int64_t streams, int64_t first,
                                                bool stream) {
  std::vector<std::vector<std::string>> bodies(static_cast<size_t>(streams));
  for (int64_t c = 0; c < streams; ++c) {
    for (int64_t i = 0; i < f.requests; ++i)
      bodies[static_cast<size_t>(c)].push_back(
          body_of(question(static_cast<uint64_t>(first + streams * 1'000'000 + c * 1000 + i)),
                  f.tokens, stream));
  }
  return bodies;
}

nlohmann::ordered_json throughput(Server& server, const Flags& f, int64_t streams) {
  std::vector<std::vector<std::string>> bodies = bodies_of(f, streams, 0, true);
  Rate alone = engine_alone(server, bodies, "engine alone, before");
  Measured m = measured_load(server, bodies);
  // Before and after: the machine may be shared.
  Rate again = engine_alone(server, bodies, "engine alone, after");
  double best = std::max(alone.tokens_per_s, again.tokens_per_s);
  nlohmann::ordered_json j;
  j["what"] = "throughput";
  j["streams"] = streams;
  m.write(j);
  j["engine_tokens_per_s"] = best;
  j["share"] = best > 0 ? j["tokens_per_s"].get<double>() / best : 0.0;
  j["events_per_request"] = static_cast<double>(m.waits.events) / m.requests;
  m.waits.write(j);
  return j;
}

// Answers that are sent when they are whole: the request itself, without a stream's events.
nlohmann::ordered_json whole_answers(Server& server, const Flags& f, int64_t streams) {
  Measured m = measured_load(server, bodies_of(f, streams, 5'000'000'000, false));
  nlohmann::ordered_json j;
  j["what"] = "whole answers";
  j["streams"] = streams;
  m.write(j);
  return j;
}

// The time to the first token of a long prompt that is computed, and of the same prompt again.
nlohmann::ordered_json prefix(Server& server, const Flags& f) {
  std::vector<double> cold, warm;
  int64_t prompt = 0, cached = 0;
  for (uint64_t i = 0; i < 5; ++i) {
    std::string q = question(7'000'000'000 + i, f.prefix / 8);  // about 8 tokens a number
    std::vector<LoadStream> r =
        run_load(server.target(), {{.bodies = {body_of(q, 2), body_of(q + " Now?", 2)}}});
    if (!r[0].done || !r[1].done)
      throw Error("--prefix", fmt::format("a prompt of about {} tokens was refused", f.prefix),
                  "keep it within the model's context, which `wels info` says");
    cold.push_back(r[0].first_s);
    warm.push_back(r[1].first_s);
    prompt = r[1].prompt_tokens;
    cached = r[1].cached_tokens;
  }
  nlohmann::ordered_json j;
  j["what"] = "prefix";
  j["prompt_tokens"] = prompt;
  j["cached_tokens"] = cached;
  j["cold_ms"] = 1e3 * quantile(cold, 0.5);
  j["warm_ms"] = 1e3 * quantile(warm, 0.5);
  j["warm_share"] = quantile(warm, 0.5) / quantile(cold, 0.5);
  return j;
}

// `open` streams at once, of which the cache has room for `active`: a twentieth reads slowly, a
// twentieth leaves. The others' texts must be those that the questions have when asked alone.
nlohmann::ordered_json load(Server& server, const Flags& f) {
  constexpr int64_t kQuestions = 16;
  std::vector<std::string> bodies, texts;
  for (uint64_t i = 0; i < kQuestions; ++i) {
    bodies.push_back(body_of(question(9'000'000'000 + i), f.tokens));
    texts.push_back(run_load(server.target(), {{.bodies = {bodies.back()}}})[0].text);
  }
  std::vector<LoadClient> clients;
  for (int64_t c = 0; c < f.open; ++c) {
    LoadClient client{.bodies = {bodies[static_cast<size_t>(c % kQuestions)]}};
    if (c % 20 == 7) client.bytes_per_s = 2000;
    if (c % 20 == 13) client.leaves_after = 3;
    clients.push_back(client);
  }
  int64_t before = rss_bytes();
  double begin = monotonic_seconds();
  std::vector<LoadStream> result = run_load(server.target(), clients);
  double s = monotonic_seconds() - begin;
  Waits waits;
  int64_t whole = 0, left = 0, expected = 0;
  for (const LoadStream& r : result) {
    left += r.left;
    if (clients[r.client].leaves_after >= 0) continue;
    ++expected;
    whole += r.done && r.text == texts[r.client % kQuestions];
    if (clients[r.client].bytes_per_s == 0) waits.add(r);  // the slow ones make themselves wait
  }
  nlohmann::ordered_json j;
  j["what"] = "load";
  j["open"] = f.open;
  j["active"] = f.active;
  j["seconds"] = s;
  j["left"] = left;
  j["expected"] = expected;
  j["whole"] = whole;
  j["tokens_per_s"] = static_cast<double>(waits.tokens) / s;
  j["rss_growth_mib"] = static_cast<double>(peak_rss_bytes() - before) / (1 << 20);
  waits.write(j);
  return j;
}

void print(const nlohmann::ordered_json& j) {
  auto number = [&](const char* key) { return j[key].get<double>(); };
  auto of = [&](const char* key) { return j["of_it"][key].get<double>(); };
  auto waits = [&] {
    const auto &first = j["first_token_ms"], &gap = j["between_tokens_ms"];
    return fmt::format(
        "first token p50 {:.1f} p99 {:.1f} ms, between p50 {:.2f} p99 {:.2f} longest {:.1f} ms",
        first["p50"].get<double>(), first["p99"].get<double>(), gap["p50"].get<double>(),
        gap["p99"].get<double>(), gap["longest"].get<double>());
  };
  if (j["what"] == "throughput") {
    fmt::print(
        "{:>4} streams: {:8.1f} tokens/s, {:5.1f} % of the engine alone ({:.1f}); {:.3f} ms of CPU "
        "a request outside the model (I/O {:.3f}, workers {:.3f}, the engine's thread {:.3f}; its "
        "client {:.3f}); {:.1f} events a request; {} of {} complete; {}\n",
        j["streams"].get<int64_t>(), number("tokens_per_s"), 100 * number("share"),
        number("engine_tokens_per_s"), number("cpu_ms_per_request"), of("io"), of("workers"),
        of("engine"), number("clients_cpu_ms_per_request"), number("events_per_request"),
        j["complete"].get<int64_t>(), j["requests"].get<int64_t>(), waits());
  } else if (j["what"] == "whole answers") {
    fmt::print(
        "{:>4} streams, answers as a whole: {:.1f} tokens/s; {:.3f} ms of CPU a request outside "
        "the model (I/O {:.3f}, workers {:.3f}, the engine's thread {:.3f}; its client {:.3f}); "
        "{} of {} complete\n",
        j["streams"].get<int64_t>(), number("tokens_per_s"), number("cpu_ms_per_request"), of("io"),
        of("workers"), of("engine"), number("clients_cpu_ms_per_request"),
        j["complete"].get<int64_t>(), j["requests"].get<int64_t>());
  } else if (j["what"] == "prefix") {
    fmt::print(
        "prompt of {} tokens: first token {:.1f} ms; again ({} in the cache) {:.2f} ms, {:.1f} %\n",
        j["prompt_tokens"].get<int64_t>(), number("cold_ms"), j["cached_tokens"].get<int64_t>(),
        number("warm_ms"), 100 * number("warm_share"));
  } else {
    fmt::print(
        "{} open, {} active: {:.1f} s, {:.1f} tokens/s; {} left, {} of {} others have every token "
        "and no other; "
        "{:.0f} MiB more memory; {}\n",
        j["open"].get<int64_t>(), j["active"].get<int64_t>(), number("seconds"),
        number("tokens_per_s"), j["left"].get<int64_t>(), j["whole"].get<int64_t>(),
        j["expected"].get<int64_t>(), number("rss_growth_mib"), waits());
  }
}

int bench_serve(const Flags& f) {
  f.device.apply();
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  require_tokenizer(m);
  set_log_level(LogLevel::kWarn);
  int64_t longest = m.model->config().max_position_embeddings;
  CacheOptions cache = f.cache.options(m.dtype);
  auto say = [&](const nlohmann::ordered_json& j) {
    f.json ? fmt::print("{}\n", j.dump()) : print(j);
    std::fflush(stdout);
  };
  {
    int64_t context = std::min<int64_t>(longest, f.prefix + 1024);
    cache.tokens = std::max<int64_t>(8 * context, 33 * 512);
    require_memory_for(m, cache.tokens, *cache.dtype);
    Server server(m, f, context, cache);
    for (int64_t s : f.streams) {
      say(throughput(server, f, s));
      say(whole_answers(server, f, s));
    }
    if (f.prefix > 0) say(prefix(server, f));
  }
  if (f.open == 0) return 0;
  // Whole pages for the prompts of about 100 tokens and their answers.
  cache.tokens = f.active * (128 + f.tokens + KvCache::kPageRows);
  Server server(m, f, std::min(longest, cache.tokens), cache);
  say(load(server, f));
  return 0;
}

}  // namespace

void add_bench_serve(CLI::App* bench, Command& run) {
  CLI::App* sub =
      bench->add_subcommand("serve", "the server under many streams, and the engine alone");
  auto f = std::make_shared<Flags>();
  sub->add_option("model", f->model, "model folder, run folder or GGUF file")->required();
  sub->add_option("--streams", f->streams, "clients at once, one measurement each")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--requests", f->requests, "of each client, one after another")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--tokens", f->tokens, "of an answer at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--prefix", f->prefix, "tokens, about, of the prompt asked twice (0: left out)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--open", f->open, "streams of the load test (0: left out)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--active", f->active, "streams that the cache has room for in it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--stream-ms", f->stream_ms, "as of wels serve")
      ->check(CLI::Range(0.0, 1e3))
      ->capture_default_str();
  sub->add_option("--template", f->chat_template, template_flag_help())->capture_default_str();
  sub->add_option("--dtype", f->dtype, "auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--json", f->json, "one JSON object a line");
  f->cache.add(sub);
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return bench_serve(*f); }; });
}

}  // namespace wels
