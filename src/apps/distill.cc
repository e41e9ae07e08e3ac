// wels distill: a student learns from a teacher. By its text (answers sampled, the right ones kept,
// then supervised fine-tuning: R1's way), by its distributions over given examples (logits), or by
// its distributions over the student's own answers (on-policy).
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/new_folder.h"
#include "apps/sft_command.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signal.h"
#include "distill/answers.h"
#include "distill/distill_stage.h"
#include "distill/endpoint.h"
#include "train/memory_plan.h"
#include "train/report.h"

namespace wels {
namespace {

struct DistillFlags {
  SftFlags sft;
  DistillSettings distill;
  CollectSettings collect;
  TeacherSettings teacher;
  EndpointSettings endpoint;
  std::string mode = "sft", model, kl = "forward", key_env = "OPENAI_API_KEY";
  double alpha = 0.5, temperature = 0.6, timeout_s = 600;
  int64_t max_tokens = 256;
  bool no_think = false, answers_only = false;
};

RolloutSettings rollout_settings(const DistillFlags& f, ChatTemplate chat_template) {
  RolloutSettings r;
  r.dtype = f.sft.stage.dtype == "f32" ? DType::kF32 : DType::kBF16;
  r.max_tokens = f.max_tokens;
  r.thinking = !f.no_think;
  r.chat_template = chat_template;
  return r;
}

ChatTemplate template_of(const std::string& folder) {
  return find_chat_template(folder).value_or(ChatTemplate::kDeepSeekV31);
}

void check_flags(const DistillFlags& f) {
  bool url = !f.endpoint.url.empty();
  if (url == !f.model.empty())
    throw Error("distill", url ? "has two teachers" : "has no teacher",
                "give --teacher MODEL, or --teacher-url URL and --teacher-model NAME");
  if (url && f.endpoint.model.empty())
    throw Error("--teacher-url", "does not say which model is to be asked",
                "give its name there: --teacher-model NAME");
  if (url && f.mode != "sft")
    throw Error("--mode", "an endpoint gives text, no distributions over all tokens",
                "use --mode sft, or a --teacher folder");
  bool tasks = !f.sft.data.task.empty();
  if (f.mode == "sft" && !tasks)
    throw Error("--mode", "sft asks the teacher questions that a program can check",
                "name them: --task SPEC");
  if (f.distill.own > 0 && !tasks)
    throw Error("--mode", "the student needs questions to answer", "name tasks: --task SPEC");
}

// --- mode sft: the teacher's text ---

bool wait_for(const StopSignal& stop, double seconds) {
  for (double end = monotonic_seconds() + seconds; monotonic_seconds() < end;) {
    if (stop.requested()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return !stop.requested();
}

// What the run's page says while the teacher answers; the student's own report replaces it.
class CollectPage {
 public:
  CollectPage(std::string out, const std::string& teacher) : out_(std::move(out)) {
    info_.name = folder_name(out_);
    info_.started = unix_seconds();
    info_.sections = {{"Recipe", {{"stage", "the teacher answers"}, {"teacher", teacher}}}};
    write();
  }
  void say(const std::string& progress) {
    if (monotonic_seconds() - written_ < kPageSeconds) return;
    info_.sections[0].rows[0].second = "the teacher answers: " + progress;
    write();
  }
  void end(const CollectReport& r) {
    info_.status = r.stopped ? "stopped" : r.kept == 0 ? "failed: no answer is right" : "finished";
    write();
  }

 private:
  static constexpr double kPageSeconds = 2;
  void write() {
    info_.updated = unix_seconds();
    write_run_info(out_, info_);
    written_ = monotonic_seconds();
  }
  std::string out_;
  RunInfo info_;
  double written_ = 0;
};

// Answers into OUT/answers; false: stopped.
bool collect(const DistillFlags& f, const std::string& folder) {
  TaskMixture tasks(f.sft.data.task);
  StopSignal stop;
  StatusLine line(20);
  std::optional<CollectPage> page;  // once the teacher is known to be there
  auto progress = [&](const CollectReport& r) {
    line.update(fmt::format("{} of {} questions", r.summary(), f.collect.questions));
    page->say(fmt::format("{} of {} questions; {} right answers kept", r.questions,
                          f.collect.questions, r.kept));
  };
  auto run = [&](AnswerSource& source) {
    page.emplace(f.sft.settings.out, f.model.empty() ? f.endpoint.model : f.model);
    CollectReport r;
    try {
      r = collect_answers(
          folder, tasks, source, f.collect, [&] { return stop.requested(); }, progress);
    } catch (const Error&) {
      if (!stop.requested()) throw;
      r.stopped = true;  // while it waited for an endpoint
    }
    line.finish(r.summary());
    page->end(r);
    if (!r.stopped && r.kept == 0)
      throw Error("--teacher", "no answer is right: there is nothing to learn",
                  "ask easier questions, more often (--tries), or leave more room (--max-tokens)");
    return !r.stopped;
  };
  if (!f.endpoint.url.empty()) {
    const char* key = std::getenv(f.key_env.c_str());
    EndpointSettings e = f.endpoint;
    e.temperature = f.temperature;
    e.max_tokens = f.max_tokens;
    EndpointAnswers source(e, http_client(key ? key : "", f.timeout_s),
                           [&](double seconds) { return wait_for(stop, seconds); });
    source.require_model();
    return run(source);
  }
  LoadedModel t = open_model(f.model, f.sft.device.device, "auto");
  require_tokenizer(t);
  RolloutSettings settings = rollout_settings(f, template_of(t.folder));
  settings.dtype = t.dtype;
  RolloutSampler sampler(*t.dev, *t.model, *t.tokenizer, settings);
  EngineAnswers source(sampler, f.model, f.temperature, f.collect.seed);
  return run(source);
}

int learn_text(DistillFlags f) {
  std::string folder = f.sft.settings.out + "/answers";
  f.collect.seed = f.sft.settings.seed;
  NewFolder made(f.sft.settings.out);
  std::unique_ptr<RunsUi> ui = f.sft.ui.start(f.sft.settings.out);
  f.sft.ui.wanted = false;  // it is there already
  StopSignal stop;          // that of the answers forgets at their end
  bool all = [&] {
    FolderLock lock(f.sft.settings.out);
    return collect(f, folder);
  }();
  fmt::print("answers {}\n", folder);
  bool ends = all && f.answers_only;
  if (!all || (stop.requested() && !ends)) {
    fmt::print("the same command goes on\n");
    return 130;
  }
  if (ends) return 0;
  f.sft.data.task.clear();
  for (std::string& file : answer_files(folder, f.collect)) f.sft.paths.push_back(std::move(file));
  f.sft.kind = "distillation: the teacher's right answers";
  return sft_command(f.sft, {});
}

// --- modes logits and on-policy: the teacher's distributions ---

// What the stage reads; on the run's device, so it ends with the stage.
struct StageParts {
  std::unique_ptr<Teacher> teacher;
  std::unique_ptr<RolloutSampler> sampler;  // only where the student writes text of its own
};

class StageWithParts : private StageParts, public DistillStage {
 public:
  StageWithParts(StageParts parts, Device& dev, SftModel& student, const SftData& data,
                 const SftSettings& s, const DistillSettings& d,
                 std::function<std::string()> sample)
      : StageParts(std::move(parts)),
        DistillStage(dev, *student.model, *teacher, *data.train, *data.held_out, s, d,
                     data.mixture.get(), sampler.get(), std::move(sample)) {}
};

std::unique_ptr<SftStage> make_stage(const DistillFlags& f, LoadedModel& loaded, Device& dev,
                                     SftModel& student, const SftData& data, const SftSettings& s,
                                     std::function<std::string()> sample) {
  require_same_vocabulary(f.model, *loaded.tokenizer, loaded.model->config().vocab_size,
                          *student.tokenizer, student.config.vocab_size);
  TeacherSettings settings = f.teacher;
  settings.dtype = s.trainer.dtype;
  StageParts parts;
  parts.teacher = std::make_unique<Teacher>(dev, *loaded.model, settings);
  DistillSettings d = f.distill;
  d.evaluation.seed = s.seed;
  if (d.own > 0) {
    if (!student.chat_template)
      throw Error("--template", "questions need a chat template", "leave out --template none");
    parts.sampler = std::make_unique<RolloutSampler>(dev, *student.model, *student.tokenizer,
                                                     rollout_settings(f, *student.chat_template));
    for (int64_t i = 0; i < s.batch; ++i)  // every prompt must fit
      parts.sampler->prompt(data.mixture->item(s.seed, i, TaskSplit::kTrain).example.question);
  }
  return std::make_unique<StageWithParts>(std::move(parts), dev, student, data, s, d,
                                          std::move(sample));
}

int learn_distributions(const DistillFlags& f) {
  f.sft.device.apply();
  LoadedModel teacher = open_model(f.model, f.sft.device.device, f.sft.stage.dtype);
  require_tokenizer(teacher);
  SftFlags sft = f.sft;
  sft.other_models = [&](const Device& dev, const SftSettings& s) {
    return teacher_bytes(dev, teacher.model->config(),
                         {.dtype = s.trainer.dtype, .stored = stored_types(*teacher.model)},
                         s.micro_batch_tokens);
  };
  sft.kind = f.distill.own > 0 ? "distillation: on the student's own text"
                               : "distillation: the teacher's distributions";
  return sft_command(sft, [&](Device& dev, SftModel& student, const SftData& data,
                              const SftSettings& s, std::function<std::string()> sample) {
    return make_stage(f, teacher, dev, student, data, s, std::move(sample));
  });
}

int distill_command(DistillFlags f, bool own_given) {
  if (f.mode == "on-policy" && !own_given) f.distill.own = 1;
  if (f.mode != "on-policy") f.distill.own = 0;
  f.distill.ce = f.alpha;
  f.distill.kl = 1 - f.alpha;
  f.distill.reverse = f.kl == "reverse";
  check_flags(f);
  SftModelFlags& student = f.sft.model;
  if (!f.model.empty()) {
    if (std::filesystem::is_directory(f.model)) f.model = resolve_checkpoint(f.model);
    // A new student speaks the teacher's tokens unless a flag says otherwise.
    if (student.is_new() && student.tokenizer.empty()) student.tokenizer = f.model;
  }
  return f.mode == "sft" ? learn_text(std::move(f)) : learn_distributions(f);
}

void add_teacher_flags(CLI::App* sub, DistillFlags& f) {
  sub->add_option("--teacher", f.model, "model folder, run folder or GGUF file");
  sub->add_option("--teacher-url", f.endpoint.url,
                  "mode sft: an OpenAI-compatible endpoint, such as http://localhost:8000/v1");
  sub->add_option("--teacher-model", f.endpoint.model, "the model's name there");
  sub->add_option("--teacher-key-env", f.key_env, "environment variable with the endpoint's key")
      ->capture_default_str();
  sub->add_option("--parallel", f.endpoint.parallel, "requests to the endpoint at a time")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  sub->add_option("--attempts", f.endpoint.attempts, "of one request, waits doubling from 1 s")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  sub->add_option("--timeout", f.timeout_s, "of one request, in seconds")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--questions", f.collect.questions, "mode sft: questions to the teacher")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--tries", f.collect.tries, "mode sft: answers to each")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  sub->add_option("--keep-answers", f.collect.keep, "mode sft: right answers kept of each, at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--answers-only", f.answers_only, "mode sft: stop when the answers are there");
  sub->add_option("--temperature", f.temperature, "mode sft: of the teacher's answers")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str();
  sub->add_option("--max-tokens", f.max_tokens, "of an answer, the teacher's or the student's own")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--no-think", f.no_think, "prompts do not begin a thought");
}

}  // namespace

void add_distill(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("distill", "a student learns from a teacher");
  auto f = std::make_shared<DistillFlags>();
  sub->add_option("--mode", f->mode,
                  "sft (its right answers), logits (its distributions over examples) or on-policy "
                  "(over the student's own answers)")
      ->check(CLI::IsMember({"sft", "logits", "on-policy"}))
      ->capture_default_str();
  add_teacher_flags(sub, *f);
  sub->add_option("--alpha", f->alpha, "logits: share of the examples' cross-entropy")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--kl", f->kl, "logits: forward (teacher || student) or reverse")
      ->check(CLI::IsMember({"forward", "reverse"}))
      ->capture_default_str();
  sub->add_option("--kl-temperature", f->teacher.temperature, "of both distributions")
      ->check(CLI::Range(0.1, 20.0))
      ->capture_default_str();
  sub->add_option("--teacher-top-k", f->teacher.top_k,
                  "tokens of the teacher's distribution; all others are one bucket")
      ->check(CLI::Range(int64_t{1}, kMostTopTokens))
      ->capture_default_str();
  CLI::Option* own =
      sub->add_option("--own", f->distill.own,
                      "on-policy: share of the steps on the student's own answers, others on the "
                      "examples (default: 1)")
          ->check(CLI::Range(0.0, 1.0));
  sub->add_option("--eval-items", f->distill.evaluation.items, "on-policy: held-out questions")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  f->sft.add(sub);
  sub->callback([f, own, &run] {
    run = [f, given = own->count() > 0] { return distill_command(*f, given); };
  });
}

}  // namespace wels
