// Alternating Mutual Distillation: a large and a small model of one tokenizer teach each other in
// turns (teaching.md 2.2; after Deep Mutual Learning 1706.00384, CTCD 2311.02849, SALT 2410.18779,
// GKD 2306.13649).
//
//   A  the small one learns from the large one: with probability λ on its own answers (reverse KL),
//      else on gold examples, (1 - a) · KL + a · cross-entropy
//   B  the large one learns gold examples, and of the small one
//      B1  where it knows a token better: w · KL, w falling to 0 over the rounds
//      B2  which examples are worth it: the middle of the small one's losses
//      B3  right answers that it found where the large one finds none
//      and what these answer counts `favour` times among the questions of the large one's C
//   C  both learn by GRPO from what a program can check: new information enters here only
//
// Each channel has its own switch. A phase without its channels is supervised learning on the same
// gold examples, so that every arm spends the same operations on each model: the allowance is per
// model and round, sampling, scoring and the other model's forward passes included (evaluation
// not). After each phase the model is held against what it was: worse by more than a standard
// error, and it is what it was again, and the channel's weight (w or λ) is halved. A phase C that
// finds nothing right, or whose policy collapses, ends early and is undone likewise; the run goes
// on.
//
// The folder: state.json (what is done, one entry a phase), round-02-A/ and so on: runs of their
// own with checkpoints, so a stop or kill -9 loses nothing that a checkpoint has.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/examples.h"
#include "distill/distill_stage.h"
#include "distill/selection.h"
#include "train/stage.h"

namespace wels {

struct ColearnSettings {
  std::string out;
  std::string tasks;
  bool a = true, b1 = true, b2 = true, b3 = true, c = true;
  int64_t rounds = 4;
  double round_flops = 1e12;  // of each model in a round
  double rl_share = 0.25;     // of it, for C where C is on
  double lambda = 0.5;        // A: probability of a step on the small one's own answers
  double alpha = 0.3;         // A: weight of the cross-entropy on gold
  double w = 0.5;             // B1: weight in the first round
  double keep_low = 0.4, keep_high = 0.9;  // B2: quantiles of the small one's losses
  int64_t pool = 2048;                     // B2: examples scored in a round
  double replay = 0.25;                    // B3: share of the answers found
  double favour = 4;                       // B3: how much more often C asks the large one these
  ExploreSettings explore;
  double lr_small = 3e-4, lr_large = 3e-4, lr_rl = 1e-4;
  int64_t rl_groups = 8, rl_samples = 8;
  int64_t eval_items = 256;
  SftSettings sft;  // batch, longest, micro_batch_tokens, trainer, seed, save_every
  RolloutSettings rollout;
};

// Both models on held-out questions and examples.
struct PairEvaluation {
  double accuracy[2] = {0, 0};  // greedy: small, large
  double nats[2] = {0, 0};      // per learned token of the held-out examples
  double kl = 0;                // KL(large || small), nats per learned token
  double agreement = 0;         // share of the questions with the same greedy answer
  double complementarity = 0;   // share that the small one gets right and the large one wrong
  int64_t items = 0;
};

struct ColearnPhase {
  int64_t round = 0;
  std::string name;  // A, B, C-small, C-large
  bool large = false;
  double flops = 0, seconds = 0;
  PairEvaluation after;
  bool kept = true;  // false: rolled back
  double lambda = 0, w = 0;
  int64_t explored = 0;              // B3: answers found
  std::vector<int64_t> solved = {};  // B3: to which of the explored questions
  std::string trouble = {};          // C: why it ended early; empty: it did not
};

struct ColearnResult {
  PairEvaluation before;
  std::vector<ColearnPhase> phases;
  std::string model[2];  // folders: small, large
  double flops[2] = {0, 0};
  bool stopped = false;
};

// The gate: whether an accuracy over so many questions fell by more than its standard error.
bool is_worse(double was, double is, int64_t items);

// The share of draws that give the questions found by exploration `favour` times the weight of any
// other, where they are `found` of `asked` questions and come among the others as well.
double favoured_share(int64_t found, int64_t asked, double favour);

// models: folders of the small and the large one. files: what checkpoints hold beside the weights.
// report: told after each phase. Throws Error where the folder holds a run with other settings.
ColearnResult colearn(Device& dev, const std::string (&models)[2], const Tokenizer& tokenizer,
                      const std::map<std::string, std::string>& files, const ExampleSource& train,
                      const ExampleSource& held_out, const ColearnSettings& settings,
                      const std::function<void(const ColearnResult&)>& report);

}  // namespace wels
