#include "apps/sft_data.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/json_lines.h"
#include "text/bpe_trainer.h"

namespace wels {
namespace {

constexpr int64_t kVocabularyExamples = 4000;
constexpr size_t kVocabularyBytes = 64'000'000;

void require_one_kind(const SftDataFlags& f) {
  if (f.files.empty() && f.task.empty())
    throw Error("sft", "there is nothing to learn from",
                "give .jsonl files, or generated examples: --task parity:20");
  if (!f.files.empty() && !f.task.empty())
    throw Error("--task", "goes without data files", "give one of them");
}

std::vector<std::string> file_texts(const SftDataFlags& f) {
  std::vector<std::string> out;
  size_t bytes = 0;
  auto add = [&](const std::string& text) {
    bytes += text.size();
    out.push_back(text);
  };
  read_json_lines(list_json_lines(f.files), [&](std::string_view line, const std::string& where) {
    ChatRecord r = parse_chat_record(line, where);
    if (!r.text.empty()) add(r.text);
    for (const ChatMessage& m : r.messages) {
      if (m.content) add(*m.content);
      for (const ToolCall& call : m.tool_calls) add(call.arguments);
    }
    return bytes < kVocabularyBytes;
  });
  return out;
}

}  // namespace

void SftDataFlags::add(CLI::App* sub) {
  sub->add_option(
      "--task", task,
      "instead of files: generated tasks, NAME:LEVEL or NAME:FROM-TO, *SHARE, separated "
      "by commas");
  sub->add_option("--p-cot", p_cot, "tasks: share of the answers with their chain of thought")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--p-stop", p_stop,
                  "tasks: chance that a chain that searches is given up at a dead end")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub->add_option("--overlong", overlong, "files: examples longer than --seq are cut or skipped")
      ->check(CLI::IsMember({"cut", "skip"}))
      ->capture_default_str();
  sub->add_option("--held-out", held_out, "files: share of the questions that validates, by hash")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str();
}

SftData open_sft_data(const SftDataFlags& f, const Tokenizer& tokenizer,
                      std::optional<ChatTemplate> chat_template, int64_t longest, uint64_t seed) {
  require_one_kind(f);
  SftData out;
  if (!f.task.empty()) {
    out.mixture = std::make_unique<TaskMixture>(f.task);
    auto source = [&](TaskSplit split) {
      return std::make_unique<TaskExamples>(*out.mixture, tokenizer, chat_template, f.p_cot,
                                            f.p_stop, seed, split);
    };
    out.train = source(TaskSplit::kTrain);
    out.held_out = source(TaskSplit::kHeldOut);
    out.about = fmt::format("{}, chains in {:g} of the answers", f.task, f.p_cot);
    return out;
  }
  double t0 = monotonic_seconds();
  ChatData data = read_chat_data(list_json_lines(f.files), tokenizer,
                                 {.chat_template = chat_template,
                                  .longest = longest,
                                  .cut = f.overlong == "cut",
                                  .held_out = f.held_out});
  out.about = data.stats.summary();
  log_info("{}; {} held out; read in {}", out.about, data.held_out.size(),
           human_duration(monotonic_seconds() - t0));
  if (f.held_out > 0 && data.held_out.size() == 0)
    log_warn("no question is held out: there is no validation (--held-out {:g} of {})", f.held_out,
             data.stats.records);
  out.train = std::make_unique<StoredExamples>(std::move(data.train));
  out.held_out = std::make_unique<StoredExamples>(std::move(data.held_out));
  return out;
}

std::string learn_tokenizer(const SftDataFlags& f, int64_t vocab, uint64_t seed) {
  require_one_kind(f);
  std::vector<std::string> texts =
      f.task.empty() ? file_texts(f) : task_texts(TaskMixture(f.task), seed, kVocabularyExamples);
  BpeTrainerOptions options = deepseek_style_options(static_cast<int32_t>(vocab));
  options.steps = deepseek_llm_steps();  // single digits, and known to GGUF by name
  std::vector<std::string_view> views(texts.begin(), texts.end());
  VocabSource source = train_bpe(views, options);
  log_info("learned {} tokens from {} texts", source.tokens.size() + options.last.size(),
           texts.size());
  return write_tokenizer_json(source);
}

}  // namespace wels
