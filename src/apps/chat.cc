// wels chat: a conversation in the terminal or through a pipe. Text becomes tokens in text/chat,
// the KV cache finds earlier turns again (engine/engine.h), commands are in chat_commands.h.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "apps/answer_view.h"
#include "apps/chat_commands.h"
#include "apps/cache_flags.h"
#include "apps/commands.h"
#include "apps/converse.h"
#include "apps/expert_flags.h"
#include "apps/loaded_model.h"
#include "apps/rephrase.h"
#include "apps/sampling_flags.h"
#include "apps/server_chat.h"
#include "apps/think_flags.h"
#include "text/markers.h"
#include "text/stream_printer.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signal.h"
#include "engine/engine.h"
#include "text/unicode.h"

namespace wels {
namespace {

struct ChatFlags {
  DeviceFlags device;
  CacheFlags cache;
  ExpertFlags experts;
  std::string model, question, dtype = "auto", chat_template = "auto", system;
  ChatSettings settings;
  ServerFlags remote;
};

// A model in conversation. The engine is made anew where num_ctx has changed.
struct Chat {
  LoadedModel model;
  ChatState state;
  CacheOptions cache;
  double expert_share = 1;
  int64_t context = 0;
  std::optional<Engine> engine;
};

std::string describe(const LoadedModel& m, const Conversation& talk) {
  const ModelConfig& c = m.model->config();
  ParameterCount n = count_parameters(c);
  return fmt::format(
      "folder        {}\narchitecture  {}\nparameters    {}, {} active\ncontext       {}\n"
      "device        {}, {}\ntemplate      {}\n",
      m.folder, architecture_name(c.architecture), human_count(static_cast<double>(n.total)),
      human_count(static_cast<double>(n.active)), c.max_position_embeddings, m.dev->name(),
      name(m.dtype), talk.template_name());
}

void print_counts(const GenerateTiming& t) {
  auto rate = [](int64_t tokens, double seconds) {
    return human_rate(static_cast<double>(std::max<int64_t>(tokens, 0)) / std::max(seconds, 1e-9),
                      "tok");
  };
  fmt::print(stderr, "prompt {} tokens, {} of them cached, {}, {}; answer {} tokens, {}, {}\n",
             t.prompt_tokens, t.cached_tokens, human_duration(t.prefill_s),
             rate(t.prompt_tokens - t.cached_tokens, t.prefill_s), t.new_tokens,
             human_duration(t.decode_s), rate(t.new_tokens - 1, t.decode_s));
  if (t.drafted > 0) fmt::print(stderr, "{} of {} drafts accepted\n", t.accepted, t.drafted);
}

GenerateRequest make_request(Chat& c, std::vector<int32_t> prompt) {
  const ChatSettings& s = c.state.settings;
  const Tokenizer& tokenizer = *c.model.tokenizer;
  GenerateRequest r;
  r.prompt = std::move(prompt);
  bool base = c.state.talk.is_base();
  r.max_new_tokens = s.num_predict > 0 ? s.num_predict : base ? 200 : s.num_ctx;
  r.sampling = s.sampling;
  r.speculate = s.speculate;
  r.stop_ids = end_tokens(c.model);
  // A model that asks itself the next question has answered this one.
  if (auto user = tokenizer.find(kUserMark); user && !base) r.stop_ids.push_back(*user);
  return r;
}

// What the model is asked in place of the question: with its own versions of it, which are shown.
std::string with_versions(Chat& c, const std::string& question, const InterruptSignal& interrupt) {
  const ChatSettings& s = c.state.settings;
  Rephrasing how{.count = s.rephrase,
                 .context = s.num_ctx,
                 .like = make_request(c, {}),
                 .tokenizer = &*c.model.tokenizer,
                 .vocab_size = c.model.model->config().vocab_size};
  how.like.cancelled = [&] { return interrupt.requested(); };
  std::vector<std::string> versions = rephrase(*c.engine, c.state.talk, question, how);
  // Shown as the thought that they are.
  WordWrap lines(s.wordwrap ? output_columns() : 0, StreamPrinter::to_stdout);
  AnswerView view(
      show_thinking(s.hide_thinking), [&](std::string_view t) { lines.push(t); }, c.state.unfold());
  std::string shown(kThinkBegin);
  for (const std::string& v : versions) shown += v + "\n";
  if (!versions.empty()) view.push(shown + std::string(kThinkEnd) + "\n");
  view.finish();
  lines.finish();
  return joint_question(question, versions);
}

// The question's answer, shown as it comes, both kept in the conversation. False: Ctrl-C.
bool answer(Chat& c, const std::string& question) {
  const ChatSettings& s = c.state.settings;
  Conversation& talk = c.state.talk;
  if (!c.engine || c.context != s.num_ctx) {
    c.engine.reset();
    require_memory_for(c.model, s.num_ctx, *c.cache.dtype, c.expert_share, true);
    c.engine.emplace(*c.model.dev, *c.model.model, c.model.dtype, s.num_ctx, c.cache);
    c.context = s.num_ctx;
  }
  InterruptSignal interrupt;
  talk.say("user", s.rephrase > 0 ? with_versions(c, question, interrupt) : question);
  try {
    WordWrap lines(s.wordwrap ? output_columns() : 0, StreamPrinter::to_stdout);
    AnswerView view(
        show_thinking(s.hide_thinking), [&](std::string_view t) { lines.push(t); },
        c.state.unfold());
    Conversation::Prompt prompt =
        talk.prompt(s.thinking, s.num_ctx - answer_room(s.num_ctx, s.num_predict));
    if (prompt.forgotten > 0)
      log_info("the oldest {} messages no longer fit into num_ctx {} and are left out",
               prompt.forgotten, s.num_ctx);
    GenerateRequest request = make_request(c, std::move(prompt.tokens));
    int32_t end = request.stop_ids.empty() ? -1 : request.stop_ids[0];
    if (auto grammar = make_grammar(s.format)) {
      request.mask = hold_to_grammar(std::move(grammar), *c.model.tokenizer,
                                     c.model.model->config().vocab_size, request.stop_ids,
                                     prompt.begun.find(kThinkBegin) != std::string::npos);
    }
    AnswerMaskFn held = request.mask;
    ThinkBudget think = think_budget(*c.model.tokenizer, s.think);
    bound_thought(request, think, ends_in_thought(request.prompt, think),
                  c.model.model->config().vocab_size);
    StreamPrinter printer(*c.model.tokenizer, s.stop,
                          [&](std::string_view text) { view.push(text); });
    view.push(prompt.begun);
    request.cancelled = [&] { return interrupt.requested(); };
    std::vector<std::string> logprobs;
    request.on_token = [&](const SampledToken& t) {
      if (s.sampling.top_logprobs >= 0) logprobs.push_back(logprob_line(*c.model.tokenizer, t));
      return printer.push(t.id);
    };
    GenerateTiming timing;
    GenerateResult result = c.engine->run({std::move(request)}, &timing)[0];
    printer.finish();
    bool cut = view.thinking();
    view.finish();
    lines.finish();
    fmt::print("\n");
    std::fflush(stdout);
    c.state.thought = view.thought();
    for (const std::string& line : logprobs) fmt::print(stderr, "{}\n", line);
    std::string note = cut_note(held, result, end, "raise -n or /set parameter num_predict");
    if (!note.empty()) log_warn("{}", note);
    if (s.verbose) print_counts(timing);
    if (interrupt.requested() && timing.new_tokens == 0) {
      talk.take_back();  // nothing was said
      return false;
    }
    if (s.rephrase > 0) {  // what was said is the question itself
      talk.take_back();
      talk.say("user", question);
    }
    // Reasoning that was cut short is closed, so that templates can drop it from the next prompt.
    talk.say("assistant", prompt.begun + printer.text() + (cut ? std::string(kThinkEnd) : ""));
  } catch (const Error&) {
    talk.take_back();
    throw;
  }
  return !interrupt.requested();
}

// With --url the only positional argument is the question.
int chat_with_server(ChatFlags f) {
  if (!f.question.empty())
    throw Error("chat", "a model's folder and --url do not go together", "leave one of them out");
  f.settings.longest = f.settings.num_ctx = 1 << 30;  // the server knows
  require_thoughts(f.settings, Conversation());
  require_utf8(f.system, "--system");
  ServerChat c(f.remote, {f.settings, Conversation(), ""});
  c.state().talk.set_system(f.system);
  auto say = [&c](const std::string& text) { return c.answer(text); };
  std::string question = f.model;
  if (question.empty()) return converse(c.state(), f.remote.url, say);
  if (question == "-") question.assign(std::istreambuf_iterator<char>(std::cin), {});
  require_utf8(question, "question");
  return c.answer(question) ? 0 : 130;
}

int chat(ChatFlags f) {
  if (!f.remote.url.empty()) return chat_with_server(std::move(f));
  if (f.model.empty())
    throw Error("chat", "needs a model", "name its folder or file, or give --url");
  f.device.apply();
  f.settings.sampling.validate();
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  require_tokenizer(m);
  f.settings.longest = m.model->config().max_position_embeddings;
  check_logit_bias(f.settings.sampling, m.model->config().vocab_size);
  make_grammar(f.settings.format);
  if (f.settings.num_ctx > f.settings.longest) {
    if (f.settings.num_ctx != ChatSettings().num_ctx)  // asked for
      log_warn("--context {}: the model's longest, {}, is taken", f.settings.num_ctx,
               f.settings.longest);
    f.settings.num_ctx = f.settings.longest;
  }
  Conversation talk(*m.tokenizer, choose_template(f.chat_template, m));
  require_utf8(f.system, "--system");
  talk.set_system(f.system);
  if (f.settings.thinking && !talk.can_switch_thinking())
    throw Error("--think", "template " + talk.template_name() + " has no such choice");
  if (f.settings.think.any() && talk.can_switch_thinking() && !f.settings.thinking)
    throw Error(f.settings.think.most ? "--think-budget" : "--think-min",
                "is of thoughts, which are off in template " + talk.template_name(), "add --think");
  require_thoughts(f.settings, talk);
  if (talk.is_base()) {
    log_info("{} has no chat template: it continues what you write{}", m.folder,
             m.tokenizer->find(kUserMark) ? " (--template deepseek-v3.1 asks in turns)" : "");
  }
  std::string info = describe(m, talk);
  CacheOptions cache = f.cache.options(m.dtype);
  double share = f.experts.apply(m);
  Chat c{std::move(m), {f.settings, std::move(talk), std::move(info)}, cache, share, 0, {}};
  auto say = [&c](const std::string& text) { return answer(c, text); };
  if (f.question.empty()) return converse(c.state, c.model.folder, say);
  if (f.question == "-") f.question.assign(std::istreambuf_iterator<char>(std::cin), {});
  require_utf8(f.question, "question");
  return answer(c, f.question) ? 0 : 130;
}

}  // namespace

void add_chat(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("chat", "talk to a model");
  auto f = std::make_shared<ChatFlags>();
  sub->add_option("model", f->model, "model folder, run folder or GGUF file; none with --url");
  sub->add_option("question", f->question,
                  "answer this and leave (-: all of standard input); else standard input is a "
                  "conversation, a line each");
  sub->add_option("-n,--max-tokens", f->settings.num_predict,
                  "tokens of an answer at most (0: until it ends; base models 200)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--context", f->settings.num_ctx, "tokens of the KV cache")
      ->check(CLI::Range(2, 1 << 30))
      ->capture_default_str();
  sub->add_option("--template", f->chat_template, template_flag_help())->capture_default_str();
  sub->add_option("--system", f->system, "system prompt");
  sub->add_option("--stop", f->settings.stop, "stop before this text (may be repeated)");
  sub->add_flag("--think", f->settings.thinking, "reason first, where the template has the choice");
  add_think_flags(sub, f->settings.think);
  add_rephrase_flag(sub, f->settings.rephrase, "then answered together with it");
  sub->add_flag("--hide-thinking", f->settings.hide_thinking,
                "show the answer only; on a terminal also how long the reasoning took");
  sub->add_option("--dtype", f->dtype, "auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  f->cache.add(sub);
  f->experts.add(sub);
  sub->add_flag("--verbose", f->settings.verbose, "print counts and tokens/s");
  sub->add_option("--url", f->remote.url,
                  "talk to a server instead: wels serve, or any with OpenAI's API");
  sub->add_option("--model-name", f->remote.model,
                  "the model's name there (else deepseek-chat, with --think deepseek-reasoner)");
  sub->add_option("--key-env", f->remote.key_env, "environment variable with the server's key")
      ->capture_default_str();
  add_sampling_flags(sub, f->settings.sampling);
  f->settings.format.add(sub);
  add_speculate_flag(sub, f->settings.speculate);
  f->device.add(sub);
  sub->callback([f, sub, &run] {
    for (auto [flag, name] : {std::pair{"--temperature", "temperature"},
                              {"--top-k", "top_k"},
                              {"--top-p", "top_p"},
                              {"--min-p", "min_p"},
                              {"--typical-p", "typical_p"},
                              {"--repetition-penalty", "repeat_penalty"},
                              {"--presence-penalty", "presence_penalty"},
                              {"--frequency-penalty", "frequency_penalty"},
                              {"--seed", "seed"}})
      if (sub->count(flag) > 0) f->settings.given.insert(name);
    run = [f] { return chat(*f); };
  });
}

}  // namespace wels
