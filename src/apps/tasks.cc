// wels tasks: what tasks there are, and examples of them, to read or as a file to train on.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "apps/commands.h"
#include "apps/tasks_command.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/signal.h"
#include "base/threads.h"
#include "tasks/answer.h"
#include "tasks/task.h"

namespace wels {
namespace {

int list_tasks() {
  std::vector<std::unique_ptr<Task>> tasks = all_tasks();
  size_t name_width = 0, levels_width = 0;
  std::vector<std::string> levels;
  for (const auto& task : tasks) {
    Task::Levels l = task->levels();
    levels.push_back(fmt::format("{}-{} {}, usually {}", l.lowest, l.highest, l.unit, l.usual));
    name_width = std::max(name_width, task->name().size());
    levels_width = std::max(levels_width, levels.back().size());
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    fmt::print("{:<{}}  {:<{}}  {}\n", tasks[i]->name(), name_width, levels[i], levels_width,
               tasks[i]->about());
  }
  fmt::print(
      "\nA mixture: NAME, NAME:LEVEL or NAME:FROM-TO, each with *SHARE, separated by commas:\n"
      "  wels tasks 'parity:20,addition:8-12*2' --count 3\n"
      "A task of your own: a .jsonl of question and answer, FILE or FILE@CHECKER with the checker\n"
      "exact, number, choice, json, code or command=COMMAND, its commas and * within quotes\n"
      "(docs/tasks.md).\n");
  return 0;
}

// What stands for an example in a file, as one line, or to be read, as a few.
std::string example_text(const TaskMixture::Item& item, const TaskFile& f, int64_t i) {
  const TaskExample& e = item.example;
  if (f.format == "text") {
    std::string text = fmt::format("--- {} {}\n{}\n", item.task->name(), item.level, e.question);
    if (!e.chain.empty()) text += fmt::format("{}{}{}\n", kThinkBegin, e.chain, kThinkEnd);
    return text + e.answer + "\n";
  }
  nlohmann::ordered_json line;
  if (f.format == "jsonl") {
    line = {{"question", e.question}, {"answer", e.answer}, {"chain", e.chain}};
    line["task"] = item.task->name();
    line["level"] = item.level;
    line["metadata"] = nlohmann::ordered_json::parse(e.metadata);
  } else {
    // A stream of its own: the examples stay the same whatever the share of chains.
    Rng rng(f.seed, hash_name("with chain") + static_cast<uint64_t>(i));
    TaskExample told = e;
    if (rng.uniform() >= f.p_cot) told.chain.clear();
    told = with_patience(std::move(told), f.p_stop, rng);
    std::string content =
        fmt::format("{}{}{}{}", kThinkBegin, told.chain, kThinkEnd, told.answer);
    nlohmann::ordered_json user = {{"role", "user"}, {"content", e.question}};
    nlohmann::ordered_json assistant = {{"role", "assistant"}, {"content", content}};
    line["messages"] = {user, assistant};
  }
  return line.dump() + "\n";
}

}  // namespace

bool write_task_examples(const TaskFile& f) {
  constexpr int64_t kBlock = 4096;
  TaskMixture mixture(f.spec);
  TaskSplit split = f.held_out ? TaskSplit::kHeldOut : TaskSplit::kTrain;
  std::optional<AtomicFile> file;
  if (!f.out.empty()) file.emplace(f.out);
  StopSignal stop;
  Progress progress("examples", static_cast<double>(f.count), "examples", !file);
  for (int64_t begin = 0; begin < f.count; begin += kBlock) {
    std::vector<std::string> texts(static_cast<size_t>(std::min(kBlock, f.count - begin)));
    parallel_for(static_cast<int64_t>(texts.size()), 64, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        int64_t number = begin + i;
        texts[static_cast<size_t>(i)] =
            example_text(mixture.item(f.seed, number, split), f, number);
      }
    });
    for (const std::string& text : texts) {
      if (file) {
        file->write(text);
      } else {
        std::fwrite(text.data(), 1, text.size(), stdout);
      }
    }
    progress.add(static_cast<int64_t>(texts.size()));
    if (stop.requested()) return false;  // what was written of the file goes with it
  }
  if (file) file->commit();
  return true;
}

void add_tasks(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("tasks", "tasks with checkable answers: list, show, write");
  auto f = std::make_shared<TaskFile>();
  sub->add_option("spec", f->spec, "tasks, as 'parity:20,addition:8-12*2'; none: list all");
  sub->add_option("--count", f->count, "how many examples")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  sub->add_option("--seed", f->seed, "another seed, other examples")->capture_default_str();
  sub->add_flag("--held-out", f->held_out,
                "of the tenth of the questions that no training set holds");
  CLI::Option* p_cot =
      sub->add_option("--p-cot", f->p_cot, "share of the messages that have the chain of thought")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
  CLI::Option* p_stop =
      sub->add_option("--p-stop", f->p_stop,
                      "messages: chance that a chain that searches is given up at a dead end")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
  sub->add_option("--format", f->format,
                  "text, jsonl (question, answer, chain) or messages (for wels sft); unset: text, "
                  "jsonl with --out")
      ->check(CLI::IsMember({"text", "jsonl", "messages"}));
  sub->add_option("-o,--out", f->out, "write to this file");
  sub->callback([f, p_cot, p_stop, &run] {
    std::string messages_only =
        p_cot->count() > 0 ? "--p-cot" : p_stop->count() > 0 ? "--p-stop" : "";
    run = [f, messages_only] {
      if (f->spec.empty()) return list_tasks();
      if (f->format.empty()) f->format = f->out.empty() ? "text" : "jsonl";
      if (!messages_only.empty() && f->format != "messages") {
        throw Error(messages_only, "only messages leave chains, or parts of them, away",
                    "add --format messages");
      }
      return write_task_examples(*f) ? 0 : 130;
    };
  });
}

}  // namespace wels
