#include "rl/rephrase.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "rl/voting.h"

namespace wels {
namespace {

constexpr std::string_view kAngles[kMostAngles] = {
    "Say the question below in your own words.",
    "Say the question below as simply as you can.",
    "Say the question below as what is given, then what is asked.",
    "Say the question below with every step that has to be done.",
    "Say the question below as an expert of its field would.",
    "Say the question below with what is asked first.",
    "Say the question below without any word that is not needed.",
    "Say the question below so that nothing in it can be misread."};

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n\"";
  size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) + 1 - first);
}

double tokens_of(std::span<const Rollout> rollouts) {
  double n = 0;
  for (const Rollout& r : rollouts) n += static_cast<double>(r.tokens.size());
  return n;
}

std::vector<Rollout> greedy(RolloutSampler& sampler, const std::vector<std::string>& questions) {
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& q : questions) prompts.push_back(sampler.prompt(q));
  return sampler.sample({.prompts = prompts, .samples = 1, .temperature = 0, .seed = {}});
}

// The versions of each question that can be answered; what they cost is added to `tokens`.
std::vector<std::vector<std::string>> versions_of(RolloutSampler& sampler,
                                                  RolloutSampler& rephraser,
                                                  const std::vector<TaskMixture::Item>& items,
                                                  int64_t count, double& tokens) {
  std::vector<std::string> requests;
  for (const auto& item : items) {
    for (int64_t i = 0; i < count; ++i)
      requests.push_back(rephrase_request(item.example.question, i));
  }
  std::vector<Rollout> said = greedy(rephraser, requests);
  tokens = tokens_of(said);
  std::vector<std::vector<std::string>> out(items.size());
  for (size_t i = 0; i < said.size(); ++i) {
    std::string version = rephrased_question(said[i].parts.answer);
    if (!version.empty() && sampler.has_room(version))
      out[i / static_cast<size_t>(count)].push_back(std::move(version));
  }
  return out;
}

bool is_right(const TaskMixture::Item& item, const Rollout& r) {
  return r.ended && item.task->score(item.example, r.parts.answer) >= 1;
}

}  // namespace

void require_rephrasable(const Tokenizer& tokenizer) {
  try {
    for (int64_t i = 0; i < kMostAngles; ++i) tokenizer.encode(rephrase_request("", i));
    tokenizer.encode(joint_question("", {"1"}));
  } catch (const Error& e) {
    throw Error("--rephrase", "the model cannot be asked for other words: " + e.fact(),
                "leave it out, or train with a vocabulary of bytes (256 tokens and the marks)");
  }
}

std::string rephrase_request(std::string_view question, int64_t i) {
  CHECK(i >= 0);
  return fmt::format(
      "{} Keep every number and name. Write the new question only, do not answer it.\n\n{}",
      kAngles[static_cast<size_t>(i % kMostAngles)], question);
}

std::string rephrased_question(std::string_view completion) {
  if (size_t end = completion.rfind(kThinkEnd); end != std::string_view::npos)
    completion.remove_prefix(end + kThinkEnd.size());
  std::string out(trimmed(completion));
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

std::string joint_question(std::string_view question, const std::vector<std::string>& versions) {
  std::string out(question), list;
  int64_t n = 0;
  for (const std::string& v : versions) {
    if (!v.empty()) list += fmt::format("{}. {}\n", ++n, v);
  }
  if (n > 0) out += "\n\nThe same question in other words:\n" + list;
  return out;
}

RephraseEvaluation evaluate_rephrased(RolloutSampler& sampler, RolloutSampler& rephraser,
                                      const TaskMixture& tasks, const EvaluationSettings& s,
                                      int64_t count) {
  CHECK(count >= 1 && count <= kMostAngles);
  require_rephrasable(sampler.tokenizer());
  std::vector<TaskMixture::Item> items = evaluation_items(tasks, s);
  RephraseEvaluation e;
  e.items = static_cast<int64_t>(items.size());
  e.count = count;
  double rephrasing = 0;
  auto versions = versions_of(sampler, rephraser, items, count, rephrasing);
  std::vector<std::string> asked, joint;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string& question = items[i].example.question;
    asked.push_back(question);
    asked.insert(asked.end(), versions[i].begin(), versions[i].end());
    std::vector<std::string> shown = versions[i];
    while (!shown.empty() && !sampler.has_room(joint_question(question, shown))) shown.pop_back();
    joint.push_back(joint_question(question, shown));
  }
  std::vector<Rollout> each = greedy(sampler, asked), once = greedy(sampler, joint);
  auto n = static_cast<double>(std::max<size_t>(items.size(), 1));
  size_t at = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    auto own = std::span<const Rollout>(each).subspan(at, versions[i].size() + 1);
    at += own.size();
    e.vote += is_right(items[i], own[majority_answer(own)]) / n;
    e.joint += is_right(items[i], once[i]) / n;
  }
  e.vote_tokens = (rephrasing + tokens_of(each)) / n;
  e.joint_tokens = (rephrasing + tokens_of(once)) / n;
  if (!items.empty()) e.example = joint[0];
  return e;
}

}  // namespace wels
