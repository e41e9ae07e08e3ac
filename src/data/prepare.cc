#include "data/prepare.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/threads.h"
#include "data/file_kind.h"
#include "data/hash.h"
#include "text/markers.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

constexpr size_t kBatchBytes = 16 << 20;  // of text, encoded at once
constexpr size_t kHashBytes = 1 << 20;    // of a file, hashed at once
constexpr uint64_t kFimStream = hash_name("data.fim");

bool starts_character(char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }

int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), starts_character);
}

// Byte offset of character i (or the end).
size_t character_offset(std::string_view text, int64_t i) {
  for (size_t at = 0; at < text.size(); ++at) {
    if (starts_character(text[at]) && i-- == 0) return at;
  }
  return text.size();
}

struct DocumentSize {
  uint64_t hash;
  int64_t characters;
};

// Which documents validate. cut_document ≥ 0: its characters from cut_character on do (and, for the
// tail split, all documents after it).
struct SplitPlan {
  std::vector<bool> validation;
  int64_t cut_document = -1, cut_character = 0;
};

bool in_share(uint64_t hash, double share) {
  return static_cast<double>(hash_mix(hash, 0x2545f4914f6cdd1dull) >> 11) * 0x1p-53 < share;
}

SplitPlan plan_by_characters(const std::vector<DocumentSize>& documents, int64_t total,
                             double share) {
  SplitPlan plan;
  plan.validation.resize(documents.size());
  int64_t train = static_cast<int64_t>(static_cast<double>(total) * (1 - share)), before = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    plan.validation[d] = before >= train;
    if (before < train && before + documents[d].characters > train) {
      plan.cut_document = static_cast<int64_t>(d);
      plan.cut_character = train - before;
    }
    before += documents[d].characters;
  }
  return plan;
}

// Documents whose hash falls into the share, lowest first, as long as they are not more than five
// times the share of the text; without any, the first small enough; without one, the tail of the
// longest document.
SplitPlan plan_by_hash(const std::vector<DocumentSize>& documents, int64_t total, double share) {
  SplitPlan plan;
  plan.validation.resize(documents.size());
  std::vector<size_t> order(documents.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  auto rank = [&](size_t d) { return hash_mix(documents[d].hash, 0x2545f4914f6cdd1dull); };
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return rank(a) != rank(b) ? rank(a) < rank(b) : a < b; });
  double most = std::min(5 * share, 0.5) * static_cast<double>(total), taken = 0;
  for (size_t d : order) {
    if (taken > 0 && !in_share(documents[d].hash, share)) break;
    auto size = static_cast<double>(documents[d].characters);
    if (taken + size > most) continue;
    plan.validation[d] = true;
    taken += size;
  }
  if (taken > 0) return plan;
  auto longest =
      std::max_element(documents.begin(), documents.end(),
                       [](const auto& a, const auto& b) { return a.characters < b.characters; });
  plan.cut_document = longest - documents.begin();
  auto tail = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(total) * share));
  plan.cut_character = longest->characters - std::min(tail, longest->characters / 2);
  return plan;
}

SplitPlan make_plan(const std::vector<DocumentSize>& documents, int64_t total, SplitRule rule) {
  bool tail = rule.kind == SplitRule::Kind::kTail ||
              (rule.kind == SplitRule::Kind::kAuto && documents.size() < 50);
  return tail ? plan_by_characters(documents, total, rule.share.value_or(0.1))
              : plan_by_hash(documents, total, rule.share.value_or(0.01));
}

// A stretch of text that goes to one shard.
struct Job {
  std::string text;
  bool validation, last, fim;
  uint64_t hash;
  std::vector<int32_t> ids;
};

void encode_fim(const TextEncoder& encoder, Job& job, uint64_t seed) {
  Rng rng(seed ^ job.hash, kFimStream);
  std::string_view text = job.text;
  auto n = static_cast<uint64_t>(characters(text));
  auto a = static_cast<int64_t>(rng.below(n + 1)), b = static_cast<int64_t>(rng.below(n + 1));
  size_t begin = character_offset(text, std::min(a, b)),
         end = character_offset(text, std::max(a, b));
  job.ids.push_back(encoder.fim_begin);
  encoder.encode(text.substr(0, begin), job.ids);
  job.ids.push_back(encoder.fim_hole);
  encoder.encode(text.substr(end), job.ids);
  job.ids.push_back(encoder.fim_end);
  encoder.encode(text.substr(begin, end - begin), job.ids);
}

// Turns pieces into jobs by the plan: a document is in one shard, but the cut one is in both.
class Splitter {
 public:
  Splitter(const SplitPlan& plan, const PrepareOptions& options) : plan_(plan), options_(options) {}
  void add(Piece piece, std::vector<Job>& jobs) {
    bool validation = plan_.validation[static_cast<size_t>(piece.document)];
    if (piece.document != plan_.cut_document) {
      bool fim = !validation && piece.first && piece.last &&
                 in_share(hash_mix(piece.hash, kFimStream ^ options_.seed), options_.fim_rate);
      jobs.push_back({std::move(piece.text), validation, piece.last, fim, piece.hash, {}});
      return;
    }
    int64_t n = characters(piece.text),
            here = std::clamp<int64_t>(plan_.cut_character - seen_, 0, n);
    size_t at = character_offset(piece.text, here);
    bool ends_here = seen_ < plan_.cut_character && seen_ + n >= plan_.cut_character;
    if (at > 0) jobs.push_back({piece.text.substr(0, at), false, ends_here, false, piece.hash, {}});
    if (at < piece.text.size())
      jobs.push_back({piece.text.substr(at), true, piece.last, false, piece.hash, {}});
    seen_ += n;
  }

 private:
  const SplitPlan& plan_;
  const PrepareOptions& options_;
  int64_t seen_ = 0;  // characters of the cut document
};

uint64_t options_hash(const TextEncoder& encoder, const PrepareOptions& o) {
  constexpr std::string_view kPipeline =
      "wels data 4";  // raise when the same files give other tokens
  return hash_bytes(fmt::format("{} {} {} {} {} {} {} {:016x}", kPipeline,
                                static_cast<int>(o.split.kind), o.split.share.value_or(0),
                                o.fim_rate, o.fim_rate > 0 ? o.seed : 0, encoder.end_of_text,
                                encoder.vocab, encoder.hash));
}

// The hash of everything that decides the shards' content; nothing: stopped.
std::optional<uint64_t> source_hash(const std::vector<std::string>& files,
                                    const TextEncoder& encoder, const PrepareOptions& options) {
  uint64_t h = options_hash(encoder, options);
  int64_t done = 0, total = CorpusReader(files).stored_bytes_total();
  WatchedStage stage(options.watch, "checking");
  std::string block(kHashBytes, '\0');
  for (const std::string& path : files) {
    if (::access(path.c_str(), R_OK) != 0 && files.size() > 1)
      continue;  // skipped and counted by the reader
    h ^= static_cast<uint64_t>(file_kind(path));
    std::ifstream in(path, std::ios::binary);
    do {
      in.read(block.data(), static_cast<std::streamsize>(block.size()));
      if (in.bad() || !in.is_open()) throw Error(path, "cannot read", "is it still there?");
      auto n = static_cast<size_t>(in.gcount());
      h = hash_bytes(std::string_view(block).substr(0, n), h);
      done += static_cast<int64_t>(n);
      if (!stage.goes_on(done, total)) return std::nullopt;
    } while (in);
  }
  return h;
}

bool is_prepared(const Prepared& out, uint64_t source, const TextEncoder& encoder) {
  for (const std::string& path : {out.train, out.validation}) {
    if (!std::filesystem::exists(path)) return false;
    try {
      TokenShard shard(path, encoder.vocab, encoder.hash);
      if (shard.source_hash() != source) return false;
      shard.verify();
    } catch (const Error&) {  // stale or damaged: made again
      return false;
    }
  }
  return true;
}

void check_options(const TextEncoder& encoder, const PrepareOptions& o) {
  if (double share = o.split.share.value_or(0.01); !(share > 0 && share <= 0.5)) {
    throw Error("validation share", fmt::format("{} is not in (0, 0.5]", share), "0.01 is usual");
  }
  if (!(o.fim_rate >= 0 && o.fim_rate <= 0.9)) {
    throw Error("--fim", fmt::format("{} is not in [0, 0.9]", o.fim_rate), "DeepSeek-V3 uses 0.1");
  }
  if (o.fim_rate > 0 && (encoder.fim_begin < 0 || encoder.fim_hole < 0 || encoder.fim_end < 0)) {
    throw Error(
        "--fim", "the tokenizer has no fill-in-the-middle tokens",
        "use one with <｜fim▁begin｜>, <｜fim▁hole｜> and <｜fim▁end｜> (--tokenizer bpe learns "
        "them), or leave --fim out");
  }
}

// First reading of the text: what there is, and which of it validates; nothing: stopped.
std::optional<SplitPlan> count_pieces(const std::vector<std::string>& files,
                                      const PrepareOptions& options, CorpusStats& stats) {
  std::vector<DocumentSize> documents;
  int64_t total = 0;
  CorpusReader reader(files);
  WatchedStage stage(options.watch, "counting");
  for (Piece piece; reader.next(piece);) {
    if (piece.first) documents.push_back({piece.hash, 0});
    int64_t n = characters(piece.text);
    documents.back().characters += n;
    total += n;
    if (!stage.goes_on(reader.stored_bytes_done(), reader.stored_bytes_total()))
      return std::nullopt;
  }
  stats = reader.stats();
  if (total < 2)
    throw Error(files.front(), "too little text to train and validate on", "give more text");
  return make_plan(documents, total, options.split);
}

// Second reading: tokens. False: stopped.
bool encode_pieces(const std::vector<std::string>& files, const TextEncoder& encoder,
                   const SplitPlan& plan, const PrepareOptions& options, ShardWriter& train,
                   ShardWriter& validation, Prepared& out) {
  Splitter splitter(plan, options);
  CorpusReader reader(files);
  WatchedStage stage(options.watch, "encoding");
  int64_t bytes = 0;
  bool changed = false;
  Piece piece;
  for (bool more = true; more && !changed;) {
    std::vector<Job> jobs;
    for (size_t have = 0; have < kBatchBytes && (more = reader.next(piece));) {
      changed = piece.document >= out.stats.documents;
      if (changed) break;
      have += piece.text.size();
      splitter.add(std::move(piece), jobs);
    }
    parallel_tasks(static_cast<int64_t>(jobs.size()), [&](int64_t i) {
      Job& job = jobs[static_cast<size_t>(i)];
      job.fim ? encode_fim(encoder, job, options.seed) : encoder.encode(job.text, job.ids);
    });
    for (const Job& job : jobs) {
      ShardWriter& to = job.validation ? validation : train;
      auto n = static_cast<int64_t>(job.text.size());
      to.append(job.ids, n);
      if (job.last) to.end_document();
      out.fim_documents += job.fim;
      bytes += n;
    }
    if (!stage.goes_on(bytes, out.stats.bytes)) return false;
  }
  if (changed || bytes != out.stats.bytes || reader.stats().documents != out.stats.documents) {
    throw Error(files.front(), "the corpus changed while it was read",
                "start again when nothing writes to it");
  }
  return true;
}

}  // namespace

Prepared prepare(const std::vector<std::string>& files, const TextEncoder& encoder,
                 const std::string& folder, const PrepareOptions& options) {
  CHECK(!files.empty());
  check_options(encoder, options);
  Prepared out;
  out.train = folder + "/train.tokens";
  out.validation = folder + "/validation.tokens";
  std::optional<uint64_t> source = source_hash(files, encoder, options);
  out.stopped = !source;
  if (out.stopped) return out;
  if (options.expected_source != 0 && *source != options.expected_source) {
    throw Error("corpus",
                "it, or how it is split and tokenised, is not what this run was started with",
                "give the same files and flags to resume, or another --out for a new run");
  }
  out.reused = is_prepared(out, *source, encoder);
  if (out.reused) return out;
  std::optional<SplitPlan> plan = count_pieces(files, options, out.stats);
  out.stopped = !plan;
  if (out.stopped) return out;
  make_folder(folder);
  ShardWriter train(out.train, encoder.vocab, encoder.end_of_text),
      validation(out.validation, encoder.vocab, encoder.end_of_text);
  out.stopped = !encode_pieces(files, encoder, *plan, options, train, validation, out);
  if (out.stopped) return out;
  if (train.tokens() < 2 || validation.tokens() < 2) {
    throw Error(files.front(), "too little text to train and validate on", "give more text");
  }
  validation.finish(encoder.hash, *source);
  train.finish(encoder.hash, *source);
  return out;
}

TextEncoder text_encoder(const Tokenizer& tokenizer) {
  TextEncoder e;
  e.encode = [tokenizer](std::string_view text, std::vector<int32_t>& out) {
    tokenizer.encode(text, AddedTokens::kAsText, out);
  };
  e.vocab = tokenizer.vocab_size();
  e.end_of_text = tokenizer.eos().value_or(-1);
  e.fim_begin = tokenizer.find(kFimBegin).value_or(-1);
  e.fim_hole = tokenizer.find(kFimHole).value_or(-1);
  e.fim_end = tokenizer.find(kFimEnd).value_or(-1);
  // Ids and what they stand for, and how a text is cut that shows both normalisation and
  // pre-tokeniser.
  for (int32_t id = 0; id < e.vocab; ++id) {
    std::string_view bytes = tokenizer.token_bytes(id);
    bool special = tokenizer.is_special(id);
    e.hash = hash_bytes(bytes, e.hash ^ static_cast<uint64_t>(special));
  }
  for (std::string_view piece :
       tokenizer.pieces("It's 12345 o'clock,  e\xCC\x81t\xC3\xA9\n\n don't中文かな... x\t_y")) {
    e.hash = hash_bytes(piece, e.hash);
  }
  e.hash ^= tokenizer.normalizes() ? 0x9e3779b97f4a7c15ull : 0;
  return e;
}

}  // namespace wels
