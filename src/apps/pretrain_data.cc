#include "apps/pretrain_data.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signal.h"
#include "data/sample.h"
#include "text/bpe_trainer.h"
#include "text/markers.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

constexpr int64_t kTokenizerSampleBytes = 100'000'000;
constexpr double kShownAfterSeconds = 2;  // short work needs no status line

// Shows how far the work is, and hears Ctrl-C, while it lives.
class WatchedWork {
 public:
  Watch watch() {
    return [this](const DataProgress& p) {
      if (monotonic_seconds() - start_ > kShownAfterSeconds && line_.due()) {
        line_.update(fmt::format("{}  {:.0f}%  {:.0f}/{:.0f} MB  {:.1f} MB/s  {} left", p.stage,
                                 p.total > 0 ? 100 * p.done / p.total : 100, p.done, p.total,
                                 p.mb_per_s, human_duration(p.eta_s)));
      }
      return !stop_.requested();
    };
  }
  bool stopped() const { return stop_.requested(); }

 private:
  StopSignal stop_;
  StatusLine line_{10};
  double start_ = monotonic_seconds();
};

std::optional<std::string> learn_merges(const std::vector<std::string>& files, int64_t vocab) {
  double t0 = monotonic_seconds();
  BpeTrainerOptions options = deepseek_style_options(static_cast<int32_t>(vocab));
  TextSample sample;
  {
    WatchedWork work;
    sample = sample_corpus(files, kTokenizerSampleBytes, work.watch());
  }
  if (sample.stopped) return std::nullopt;
  std::vector<std::string_view> views(sample.pieces.begin(), sample.pieces.end());
  VocabSource source = train_bpe(views, options);
  log_info("learned {} tokens from {} of {} in {}", source.tokens.size() + options.last.size(),
           human_bytes(static_cast<double>(sample.bytes)),
           human_bytes(static_cast<double>(sample.stats.bytes)),
           human_duration(monotonic_seconds() - t0));
  return write_tokenizer_json(source);
}

std::optional<std::string> collect_characters(const std::vector<std::string>& files) {
  AddedToken end;
  end.content = kEosMark;
  end.special = true;
  WatchedWork work;
  Watch watch = work.watch();
  WatchedStage stage(watch, "sampling");
  CorpusReader reader(files);
  Piece piece;
  bool goes_on = true;
  VocabSource source = train_characters(
      [&](std::string_view& text) {
        if (!goes_on || !reader.next(piece)) return false;
        goes_on = stage.goes_on(reader.stored_bytes_done(), reader.stored_bytes_total());
        text = piece.text;
        return true;
      },
      {end});
  if (!goes_on) return std::nullopt;
  return write_tokenizer_json(source);
}

// The tokenizer that the flags ask for.
std::optional<std::string> chosen_tokenizer(const DataFlags& f,
                                            const std::vector<std::string>& files,
                                            int64_t preset_vocab) {
  if (f.tokenizer == "char") return collect_characters(files);
  if (f.tokenizer == "bpe") return learn_merges(files, f.vocab > 0 ? f.vocab : preset_vocab);
  return write_tokenizer_json(load_vocab_source(f.tokenizer));
}

SplitRule split_rule(const DataFlags& f) {
  SplitRule rule;
  if (f.split == "hash") rule.kind = SplitRule::Kind::kHash;
  if (f.split == "tail") rule.kind = SplitRule::Kind::kTail;
  if (f.split_share > 0) rule.share = f.split_share;
  return rule;
}

void report_corpus(const Prepared& p, double fim, const std::string& first_file) {
  log_info("corpus: {}", p.stats.summary());
  if (fim <= 0) return;
  log_info("fill-in-the-middle: {} documents", p.fim_documents);
  if (p.fim_documents == 0) {
    log_warn(
        "{}: --fim {} rearranged no document; a document is a file, a line of .jsonl, or what "
        "stands between lines <|doc|> of a .txt",
        first_file, fim);
  }
}

}  // namespace

std::vector<std::string> corpus_files(const DataFlags& f) {
  return f.corpus.empty() ? find_local_text(f.local_mb * 1'000'000) : list_corpus(f.corpus);
}

std::string tokenizer_choice(const DataFlags& f, int64_t preset_vocab,
                             const std::optional<RunStart>& start) {
  if (start) {
    nlohmann::json settings = nlohmann::json::parse(start->settings);
    auto it = settings.find("tokenizer");
    return it != settings.end() && it->is_string() ? it->get<std::string>() : "";
  }
  if (f.tokenizer == "char") return "char";
  if (f.tokenizer != "bpe") return "file";
  return fmt::format("bpe {}", f.vocab > 0 ? f.vocab : preset_vocab);
}

std::optional<std::string> make_tokenizer(const DataFlags& f, const std::vector<std::string>& files,
                                          int64_t preset_vocab, const std::string& out,
                                          const std::optional<RunStart>& start) {
  std::string path = out + "/tokenizer.json";
  bool there = std::filesystem::exists(path),
       learned = f.tokenizer == "bpe" || f.tokenizer == "char";
  if (f.vocab > 0 && f.tokenizer != "bpe") {
    throw Error(
        "--vocab",
        "says how many tokens bpe learns; --tokenizer " + f.tokenizer + " has as many as it has",
        "drop one of the two");
  }
  if (start && there && read_file(path) != start->tokenizer_json) {
    throw Error(path, "is not the tokenizer this run was started with",
                fmt::format("put it back: cp {}/tokenizer.json {}", start->folder, path));
  }
  std::string then = tokenizer_choice(f, preset_vocab, start),
              now = tokenizer_choice(f, preset_vocab, std::nullopt);
  if (start && learned && !then.empty() && then != now) {
    throw Error(out,
                fmt::format("was started with the tokenizer {}, not {}",
                            then == "file" ? "of a file" : then, now),
                "give the same --tokenizer and --vocab to resume, or another --out for a new run");
  }
  if (start && !learned && chosen_tokenizer(f, files, 0) != start->tokenizer_json) {
    throw Error(f.tokenizer, "is not the tokenizer this run was started with",
                "give the same one to resume, or another --out for a new run");
  }
  // Without a checkpoint nothing depends on what an earlier call left here: the flags decide.
  std::optional<std::string> json =
      start ? start->tokenizer_json : chosen_tokenizer(f, files, preset_vocab);
  if (json && !(start && there)) write_file_atomic(path, *json);
  return json;
}

Prepared prepare_run(const DataFlags& f, const std::vector<std::string>& files,
                     const TextEncoder& encoder, const std::string& out, uint64_t seed,
                     const std::optional<RunStart>& start) {
  double t0 = monotonic_seconds();
  WatchedWork work;
  PrepareOptions options;
  options.split = split_rule(f);
  options.fim_rate = f.fim;
  options.seed = seed;
  options.expected_source = start ? start->source_hash : 0;
  options.watch = work.watch();
  Prepared p = prepare(files, encoder, out + "/tokens", options);
  if (p.stopped || p.reused) return p;
  report_corpus(p, f.fim, files.front());
  log_info("tokenised in {}", human_duration(monotonic_seconds() - t0));
  return p;
}

void DataFlags::add(CLI::App* sub) {
  sub->add_option(
      "corpus", corpus,
      "files or folders: .txt .md .jsonl code, .gz .zst (none: text found on this machine)");
  sub->add_option("--local-mb", local_mb, "without a corpus: how much of the machine's text")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--tokenizer", tokenizer,
                  "bpe (learned from at most 100 MB, spread over the corpus), char, or a "
                  "tokenizer.json")
      ->capture_default_str();
  sub->add_option("--vocab", vocab, "tokens to learn (0: the preset's)")
      ->check(CLI::Range(int64_t{0}, int64_t{INT32_MAX}));
  sub->add_option("--split", split, "validation: hash of each document, tail of the text, or auto")
      ->check(CLI::IsMember({"auto", "hash", "tail"}))
      ->capture_default_str();
  sub->add_option("--split-share", split_share, "share that validates (hash 0.01, tail 0.1)")
      ->check(CLI::Range(0.0001, 0.5));
  sub->add_option("--fim", fim,
                  "share of the training documents up to 1 MiB turned into fill-in-the-middle: "
                  "prefix, suffix, middle (V3: 0.1)")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
}

}  // namespace wels
