#include "apps/collect_command.h"

#include <fmt/format.h>

#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/signal.h"
#include "text/chat.h"

namespace wels {

void CollectFlags::add(CLI::App* sub) {
  sub->add_option("--task", task, "tasks, such as parity:20,addition:4-6")->required();
  sub->add_option("--questions", settings.questions, "asked")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--tries", settings.tries, "answers to each")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  sub->add_option("--keep", settings.keep, "right ones kept of each, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--block", settings.block, "questions asked at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--temperature", temperature, "of the answers")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  sub->add_option("--max-tokens", max_tokens, "of an answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--no-think", no_think, "prompts do not begin a thought");
  sub->add_flag("--readable", settings.readable.required,
                "one thought and one answer, no repetition, one language");
  sub->add_flag("--thought", settings.readable.thought, "only answers with a thought");
  sub->add_option("--language", settings.readable.language, "en or zh")
      ->check(CLI::IsMember({"en", "zh"}))
      ->capture_default_str();
  sub->add_option("--least-language", settings.readable.least_language,
                  "share of the thought's words that are in it")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--seed", settings.seed, "of questions and answers")->capture_default_str();
}

CollectReport collect_job(const CollectFlags& f, const std::string& model, const std::string& about,
                          const std::string& out) {
  f.device.apply();
  LoadedModel m = open_model(model, f.device.device, "auto");
  require_tokenizer(m);
  RolloutSettings rollout;
  rollout.dtype = m.dtype;
  rollout.max_tokens = f.max_tokens;
  rollout.thinking = !f.no_think;
  rollout.chat_template = find_chat_template(m.folder).value_or(ChatTemplate::kDeepSeekV31);
  RolloutSampler sampler(*m.dev, *m.model, *m.tokenizer, rollout);
  EngineAnswers source(sampler, about, f.temperature, f.settings.seed);
  TaskMixture tasks(f.task);
  StopSignal stop;
  StatusLine line(20);
  CollectReport r = collect_answers(
      out, tasks, source, f.settings, [&] { return stop.requested(); },
      [&](const CollectReport& so_far) {
        line.update(fmt::format("{} of {} questions", so_far.summary(), f.settings.questions));
      });
  line.finish(r.summary());
  if (!r.stopped && r.kept == 0)
    throw Error(out, "no answer was right and readable: " + r.summary(),
                "ask easier questions, more often (tries), or leave more room (max_tokens)");
  return r;
}

}  // namespace wels
