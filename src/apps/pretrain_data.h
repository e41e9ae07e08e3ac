// The text side of `wels pretrain`: from files to the run's tokenizer and token shards, in bounded
// memory, with a status line. Ctrl-C stops it; nothing is lost, the same command starts it again.
#pragma once
#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "train/run_folder.h"

namespace wels {

struct DataFlags {
  std::vector<std::string> corpus;
  std::string tokenizer = "bpe", split = "auto";
  int64_t vocab = 0, local_mb = 24;
  double split_share = -1, fim = 0;
  void add(CLI::App* sub);
};

// The files of the corpus: the given ones, or text found on this machine. Throws Error.
std::vector<std::string> corpus_files(const DataFlags& f);

// How the run's tokenizer is made, as its checkpoints keep it: "char", "bpe 512" or "file"; of a
// run that goes on what it was started with (empty: that is not known).
std::string tokenizer_choice(const DataFlags& f, int64_t preset_vocab,
                             const std::optional<RunStart>& start);

// The tokenizer.json of the run in folder `out`, written there: the checkpoint's where the run goes
// on, a given one, or one learned from the corpus (a vocabulary of f.vocab, or of `preset_vocab`
// tokens). Merges are learned from at most 100 MB of the corpus (data/sample.h says which);
// characters are collected from all of it. Nothing: stopped. Throws Error, also where
// out/tokenizer.json, or what the flags ask for, is not what the run was started with.
std::optional<std::string> make_tokenizer(const DataFlags& f, const std::vector<std::string>& files,
                                          int64_t preset_vocab, const std::string& out,
                                          const std::optional<RunStart>& start);

// The shards in out/tokens, made or reused; `stopped` where they are not there. seed: of the cuts
// for fill-in-the-middle. Throws Error.
Prepared prepare_run(const DataFlags& f, const std::vector<std::string>& files,
                     const TextEncoder& encoder, const std::string& out, uint64_t seed,
                     const std::optional<RunStart>& start);

}  // namespace wels
