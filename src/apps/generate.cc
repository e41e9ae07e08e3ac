// wels generate: continues a prompt.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "apps/answer_grammar.h"
#include "apps/answer_view.h"
#include "apps/cache_flags.h"
#include "apps/commands.h"
#include "apps/expert_flags.h"
#include "apps/loaded_model.h"
#include "apps/rephrase.h"
#include "apps/sampling_flags.h"
#include "apps/think_flags.h"
#include "text/stop_strings.h"
#include "text/stream_printer.h"
#include "text/unicode.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signal.h"
#include "engine/engine.h"
#include "rl/voting.h"

namespace wels {
namespace {

struct GenerateFlags {
  DeviceFlags device;
  CacheFlags cache;
  ExpertFlags experts;
  std::string model, prompt, dtype = "auto";
  int64_t max_tokens = 200, min_tokens = 0, drafts = 0;
  Speculate speculate = Speculate::kNone;
  SamplingParams sampling;
  GrammarFlags grammar;
  ThinkBounds think;
  int64_t rephrase = 0, samples = 1;
  bool vote = false;
  std::vector<std::string> stop;
  bool quiet = false, ignore_eos = false, truncate_prompt = false;
};

void print_counts(const GenerateFlags& f, const LoadedModel& m, const GenerateTiming& t) {
  fmt::print(stderr, "{} prompt tokens in {}, {} new tokens, {}\n", t.prompt_tokens,
             human_duration(t.prefill_s), t.new_tokens,
             human_rate(static_cast<double>(std::max<int64_t>(t.new_tokens - 1, 0)) /
                            std::max(t.decode_s, 1e-9),
                        "tok"));
  if (t.drafted > 0) fmt::print(stderr, "{} of {} drafts accepted\n", t.accepted, t.drafted);
  if (f.experts.gigabytes > 0) fmt::print(stderr, "{}\n", f.experts.summary(m));
}

// The flag that makes the prompt a question, whose answers are compared; empty: none.
std::string question_flag(const GenerateFlags& f) {
  return f.rephrase > 0 ? "--rephrase" : f.samples > 1 || f.vote ? "--samples" : "";
}

// All but the prompt.
GenerateRequest make_request(const GenerateFlags& f, const LoadedModel& m) {
  GenerateRequest r;
  r.max_new_tokens = f.max_tokens;
  r.min_new_tokens = f.min_tokens;
  r.sampling = f.sampling;
  r.speculate = f.speculate;
  r.drafts = f.drafts;
  if (!f.ignore_eos) r.stop_ids = end_tokens(m);
  int64_t vocab = m.model->config().vocab_size;
  check_logit_bias(f.sampling, vocab);
  if (f.speculate == Speculate::kMtp && m.model->config().num_nextn_predict_layers == 0)
    throw Error("--speculate", m.folder + " has no MTP module", "use ngram or none");
  if (f.grammar.any() && f.ignore_eos)
    throw Error("--ignore-eos", "an answer that is held to a format has to end", "leave it out");
  auto grammar = make_grammar(f.grammar);
  std::string asks = question_flag(f);
  if (grammar && (f.think.any() || !asks.empty()))
    throw Error(asks.empty() ? "--think-budget, --think-min" : asks,
                "a grammar holds the whole answer, which then has no thought",
                "leave one of them out");
  if (grammar) r.mask = hold_to_grammar(std::move(grammar), *m.tokenizer, vocab, r.stop_ids, false);
  return r;
}

// --- the prompt as a question, answered several times, also in the model's other words ---

// An answer ends before the first of the stop strings, as it does at the end of a text.
Rollout as_rollout(const Tokenizer& tokenizer, const GenerateResult& r, bool begun,
                   const std::vector<std::string>& stop) {
  Rollout out;
  out.tokens = r.tokens;
  out.logp = r.logp;
  StopStrings until(stop);
  std::string text = until.push(tokenizer.decode(r.tokens)) + until.finish();
  out.ended = r.finish == GenerateResult::Finish::kStop || until.stopped();
  out.parts = parse_completion(text, begun);
  return out;
}

void refuse_of_questions(const GenerateFlags& f) {
  std::string asks = question_flag(f);
  if (f.sampling.top_logprobs >= 0)
    throw Error("--logprobs", "are of one answer, not of those of " + asks,
                "leave one of them out");
  if (f.truncate_prompt)
    throw Error("--truncate-prompt", "is of a text, not of the question of " + asks,
                "leave one of them out");
}

int answer_question(const GenerateFlags& f, LoadedModel& m) {
  refuse_of_questions(f);
  Conversation talk(*m.tokenizer, choose_template("auto", m));
  if (talk.is_base())
    throw Error(question_flag(f), "the model has no chat template: it answers no questions",
                "use a model that was trained on chats or tasks");
  if (f.samples > 1 && f.sampling.temperature <= 0)
    throw Error("--samples", "at temperature 0 all answers are the same", "raise --temperature");
  StopSignal stop;
  GenerateRequest like = make_request(f, m);
  like.cancelled = [&] { return stop.requested(); };
  int64_t vocab = m.model->config().vocab_size, longest = m.model->config().max_position_embeddings;
  int64_t context = std::min(longest, int64_t{4096} + std::min(f.max_tokens, longest));
  int64_t room = context - std::min(f.max_tokens, context / 2);
  CacheOptions cache = f.cache.options(m.dtype);
  require_memory_for(m, context, *cache.dtype, f.experts.apply(m));
  Engine engine(*m.dev, *m.model, m.dtype, context, cache);
  std::vector<std::string> asked = {f.prompt};
  if (f.rephrase > 0) {
    Rephrasing how{.count = f.rephrase,
                   .context = context,
                   .like = like,
                   .tokenizer = &*m.tokenizer,
                   .vocab_size = vocab};
    for (std::string& version : rephrase(engine, talk, f.prompt, how))
      asked.push_back(std::move(version));
  }
  ThinkBudget think = think_budget(*m.tokenizer, f.think);
  std::vector<GenerateRequest> requests;
  std::vector<bool> begun;
  for (const std::string& question : asked) {
    talk.say("user", question);
    Conversation::Prompt prompt = talk.prompt(talk.can_switch_thinking(), room);
    talk.take_back();
    GenerateRequest r = like;
    r.prompt = std::move(prompt.tokens);
    begun.push_back(prompt.begun.find(kThinkBegin) != std::string::npos);
    for (int64_t i = 0; i < f.samples; ++i) {
      requests.push_back(r);
      bound_thought(requests.back(), think, begun.back(), vocab);
      requests.back().on_token = [text = StreamDecoder(*m.tokenizer, false),
                                  until = StopStrings(f.stop)](const SampledToken& t) mutable {
        until.push(text.push(t.id));
        return !until.stopped();
      };
      ++r.sampling.seed;
    }
  }
  auto samples = static_cast<size_t>(f.samples);
  std::vector<Rollout> answers;
  for (const GenerateResult& r : engine.run(std::move(requests)))
    answers.push_back(as_rollout(*m.tokenizer, r, begun[answers.size() / samples], f.stop));
  if (stop.requested()) return 130;
  bool vote = f.vote || f.rephrase > 0;
  for (size_t i = 0; i < answers.size() && !(f.quiet && vote); ++i) {
    if (i % samples == 0 && !f.quiet) fmt::print("{}\n", asked[i / samples]);
    fmt::print("{}{}\n", f.quiet ? "" : "  ", answers[i].parts.answer);
  }
  if (!vote) return 0;
  const Rollout& chosen = answers[majority_answer(answers)];
  std::string said = final_answer(chosen.parts.answer);
  auto same = std::count_if(answers.begin(), answers.end(), [&](const Rollout& r) {
    return r.ended && final_answer(r.parts.answer) == said;
  });
  fmt::print("{}\n", chosen.parts.answer);
  std::fflush(stdout);
  if (!f.quiet) fmt::print(stderr, "{} of {} answers\n", same, answers.size());
  if (same == 0) log_warn("no answer came to its end; raise -n");
  return 0;
}

int generate(GenerateFlags f) {
  f.device.apply();
  f.sampling.validate();
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  require_tokenizer(m);
  if (f.prompt == "-") f.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  require_utf8(f.prompt, "prompt");
  if (!question_flag(f).empty()) return answer_question(f, m);
  GenerateRequest r = make_request(f, m);
  r.prompt = m.tokenizer->encode_document(f.prompt, AddedTokens::kRecognise);
  if (r.prompt.empty())
    throw Error("prompt", "is empty and the tokenizer has no token to begin with", "give a prompt");
  ThinkBudget think = think_budget(*m.tokenizer, f.think);
  bound_thought(r, think, ends_in_thought(r.prompt, think), m.model->config().vocab_size);
  if (f.truncate_prompt) r.overflow = Overflow::kTruncateLeft;
  // A token more than is asked for, but never more than the model can have.
  int64_t longest = m.model->config().max_position_embeddings;
  int64_t context = std::min(
      longest, static_cast<int64_t>(r.prompt.size()) + std::min(f.max_tokens, longest) + 1);
  CacheOptions cache = f.cache.options(m.dtype);
  require_memory_for(m, context, *cache.dtype, f.experts.apply(m), !f.quiet);
  StopSignal stop;
  bool terminal = ::isatty(STDOUT_FILENO) != 0;
  StreamPrinter printer(*m.tokenizer, f.stop, [terminal](std::string_view text) {
    StreamPrinter::to_stdout(terminal ? for_terminal(text) : text);
  });
  std::vector<std::string> logprobs;
  AnswerMaskFn held = r.mask;
  r.on_token = [&](const SampledToken& t) {
    if (f.sampling.top_logprobs >= 0) logprobs.push_back(logprob_line(*m.tokenizer, t));
    return printer.push(t.id) && !stop.requested();
  };
  r.cancelled = [&] { return stop.requested(); };
  GenerateResult result;
  r.on_finish = [&](GenerateResult done) { result = std::move(done); };
  int32_t end = r.stop_ids.empty() ? -1 : r.stop_ids[0];
  Engine engine(*m.dev, *m.model, m.dtype, context, cache);
  engine.submit(std::move(r));  // refuses what can't be before anything is printed
  if (!f.quiet) fmt::print("{}", f.prompt);
  std::fflush(stdout);
  while (engine.step()) {
  }
  if (result.error) throw *result.error;
  printer.finish();
  fmt::print("\n");
  std::fflush(stdout);
  for (const std::string& line : logprobs) fmt::print(stderr, "{}\n", line);
  std::string note = cut_note(held, result, end, "raise -n");
  if (!note.empty()) log_warn("{}", note);
  if (!f.quiet) print_counts(f, m, engine.timing());
  return stop.requested() ? 130 : 0;
}

}  // namespace

void add_generate(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("generate", "continue a text");
  auto f = std::make_shared<GenerateFlags>();
  f->sampling.temperature = 0.8;
  sub->add_option("model", f->model, "model folder, run folder or GGUF file")->required();
  sub->add_option("prompt,--prompt", f->prompt, "the text to continue (-: standard input)");
  sub->add_option("-n,--max-tokens", f->max_tokens, "new tokens at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--min-tokens", f->min_tokens, "no end of the text before")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--stop", f->stop, "stop before this text (may be repeated)");
  sub->add_option("--dtype", f->dtype, "auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--truncate-prompt", f->truncate_prompt,
                "of a prompt that does not fit into the model's context together with its answer, "
                "leave out the beginning");
  f->cache.add(sub);
  f->experts.add(sub);
  sub->add_flag("--ignore-eos", f->ignore_eos, "go on after the end of the text");
  sub->add_flag("-q,--quiet", f->quiet, "the new text only");
  add_sampling_flags(sub, f->sampling);
  f->grammar.add(sub);
  add_think_flags(sub, f->think);
  add_rephrase_flag(sub, f->rephrase,
                    "all answered; the majority's answer is printed (the prompt is then a question "
                    "in the model's chat template)");
  CLI::Option* samples =
      sub->add_option("--samples", f->samples,
                      "answers drawn, each with another seed (the prompt is then a question in the "
                      "model's chat template)")
          ->check(CLI::Range(1, 1024))
          ->capture_default_str();
  sub->add_flag("--vote", f->vote, "print the answer that most of the --samples have")
      ->needs(samples);
  add_speculate_flag(sub, f->speculate);
  sub->add_option("--drafts", f->drafts, "tokens drafted for a step (0: as many as pay)")
      ->needs("--speculate")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return generate(*f); }; });
}

}  // namespace wels
