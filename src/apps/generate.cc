// wels generate: continues a prompt.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <iterator>

#include "apps/answer_grammar.h"
#include "apps/cache_flags.h"
#include "apps/commands.h"
#include "apps/expert_flags.h"
#include "apps/loaded_model.h"
#include "apps/sampling_flags.h"
#include "apps/stream_printer.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/signal.h"
#include "engine/engine.h"

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
  std::vector<std::string> stop;
  bool quiet = false, ignore_eos = false;
};

int generate(GenerateFlags f) {
  f.device.apply();
  f.sampling.validate();
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  if (!m.tokenizer)
    throw Error(m.folder, "has no tokenizer.json",
                "copy the model's tokenizer.json into the folder");
  if (f.prompt == "-") f.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  GenerateRequest r;
  r.prompt = m.tokenizer->encode(f.prompt);
  // An empty prompt begins a document: after the end of another, as in training.
  if (r.prompt.empty()) {
    std::optional<int32_t> begin = m.tokenizer->bos() ? m.tokenizer->bos() : m.tokenizer->eos();
    if (!begin)
      throw Error("prompt", "is empty and the tokenizer has no token to begin with",
                  "give a prompt");
    r.prompt = {*begin};
  }
  r.max_new_tokens = f.max_tokens;
  r.min_new_tokens = f.min_tokens;
  r.sampling = f.sampling;
  r.speculate = f.speculate;
  r.drafts = f.drafts;
  if (!f.ignore_eos && m.tokenizer->eos()) r.stop_ids.push_back(*m.tokenizer->eos());
  if (auto held =
          AnswerGrammar::make(f.grammar, *m.tokenizer, m.model->config().vocab_size, r.stop_ids))
    r.mask = [held](std::span<const int32_t> answer) { return held->mask(answer); };
  int64_t context = static_cast<int64_t>(r.prompt.size()) + f.max_tokens + 1;
  CacheOptions cache = f.cache.options(m.dtype);
  require_memory_for(m, context, *cache.dtype, f.experts.apply(m));
  StopSignal stop;
  StreamPrinter printer(*m.tokenizer, f.stop);
  if (!f.quiet) fmt::print("{}", f.prompt);
  std::fflush(stdout);
  r.on_token = [&](const SampledToken& t) { return printer.push(t.id) && !stop.requested(); };
  Engine engine(*m.dev, *m.model, m.dtype, context, cache);
  GenerateTiming t;
  engine.run({std::move(r)}, &t);
  printer.finish();
  fmt::print("\n");
  if (!f.quiet) {
    fmt::print(stderr, "{} prompt tokens in {}, {} new tokens, {}\n", t.prompt_tokens,
               human_duration(t.prefill_s), t.new_tokens,
               human_rate(static_cast<double>(std::max<int64_t>(t.new_tokens - 1, 0)) /
                              std::max(t.decode_s, 1e-9),
                          "tok"));
    if (t.drafted > 0) fmt::print(stderr, "{} of {} drafts accepted\n", t.accepted, t.drafted);
    if (f.experts.gigabytes > 0) fmt::print(stderr, "{}\n", f.experts.summary(m));
  }
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
  f->cache.add(sub);
  f->experts.add(sub);
  sub->add_flag("--ignore-eos", f->ignore_eos, "go on after the end of the text");
  sub->add_flag("-q,--quiet", f->quiet, "the new text only");
  add_sampling_flags(sub, f->sampling);
  f->grammar.add(sub);
  add_speculate_flag(sub, f->speculate);
  sub->add_option("--drafts", f->drafts, "tokens drafted for a step (0: as many as pay)")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return generate(*f); }; });
}

}  // namespace wels
