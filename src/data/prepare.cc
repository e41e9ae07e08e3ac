#include "data/prepare.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/threads.h"
#include "data/file_kind.h"
#include "data/hash.h"
#include "text/tokenizer.h"

namespace wels {
namespace {

constexpr size_t kBatchBytes = 16 << 20;  // of text, encoded at once
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
  if (rule.kind == SplitRule::Kind::kAuto) {
    rule = documents.size() < 50 ? SplitRule{SplitRule::Kind::kTail, 0.1}
                                 : SplitRule{SplitRule::Kind::kHash, rule.share};
  }
  return rule.kind == SplitRule::Kind::kTail ? plan_by_characters(documents, total, rule.share)
                                             : plan_by_hash(documents, total, rule.share);
}

class ProgressClock {
 public:
  using Clock = std::chrono::steady_clock;
  explicit ProgressClock(const PrepareOptions& options)
      : report_(options.progress), start_(Clock::now()) {}
  void update(bool encoding, double done, double total) {
    if (!report_) return;
    auto now = Clock::now();
    if (now - shown_ < std::chrono::milliseconds(100) && done < total) return;
    shown_ = now;
    double s = std::max(1e-6, std::chrono::duration<double>(now - start_).count()), rate = done / s;
    report_({encoding, done, total, rate, rate > 0 ? (total - done) / rate : 0});
  }

 private:
  std::function<void(const PrepareProgress&)> report_;
  Clock::time_point start_, shown_{};
};

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

// Where pieces come from: a corpus on disk or documents in memory. Read twice, by two calls of
// open().
struct Pieces {
  std::function<bool(Piece&)> next;
  std::function<CorpusStats()> stats;
  std::function<std::pair<int64_t, int64_t>()> stored;  // bytes read and in all
};
using OpenPieces = std::function<Pieces()>;

OpenPieces from_files(const std::vector<std::string>& files) {
  return [&files] {
    auto reader = std::make_shared<CorpusReader>(files);
    return Pieces{
        [reader](Piece& p) { return reader->next(p); }, [reader] { return reader->stats(); },
        [reader] { return std::pair(reader->stored_bytes_done(), reader->stored_bytes_total()); }};
  };
}

OpenPieces from_memory(const std::vector<std::string>& documents) {
  return [&documents] {
    auto i = std::make_shared<size_t>(0);
    auto stats = std::make_shared<CorpusStats>();
    auto next = [&documents, i, stats](Piece& p) {
      while (*i < documents.size() && documents[*i].empty()) ++*i;
      if (*i == documents.size()) return false;
      p = {documents[*i], stats->documents++, true, true, hash_bytes(documents[*i])};
      stats->bytes += static_cast<int64_t>(p.text.size());
      ++*i;
      return true;
    };
    auto n = static_cast<int64_t>(documents.size());
    return Pieces{next, [stats] { return *stats; },
                  [i, n] { return std::pair(static_cast<int64_t>(*i), n); }};
  };
}

uint64_t options_hash(const TextEncoder& encoder, const PrepareOptions& o) {
  constexpr std::string_view kPipeline =
      "wels data 2";  // raise when the same files give other tokens
  return hash_bytes(fmt::format(
      "{} {} {} {} {} {} {} {:016x}", kPipeline, static_cast<int>(o.split.kind), o.split.share,
      o.fim_rate, o.fim_rate > 0 ? o.seed : 0, encoder.end_of_text, encoder.vocab, encoder.hash));
}

Prepared shard_paths(const std::string& folder) {
  return {folder + "/train.tokens", folder + "/validation.tokens", false, {}};
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
  if (!(o.split.share > 0 && o.split.share <= 0.5)) {
    throw Error("validation share", fmt::format("{} is not in (0, 0.5]", o.split.share),
                "0.01 is usual");
  }
  if (!(o.fim_rate >= 0 && o.fim_rate <= 0.9)) {
    throw Error("fill-in-the-middle rate", fmt::format("{} is not in [0, 0.9]", o.fim_rate),
                "DeepSeek-V3 uses 0.1");
  }
  if (o.fim_rate > 0 && (encoder.fim_begin < 0 || encoder.fim_hole < 0 || encoder.fim_end < 0)) {
    throw Error("tokenizer", "it has no fill-in-the-middle tokens",
                "use a tokenizer with <｜fim▁begin｜> ..., or rate 0");
  }
}

// First reading: what there is, and which of it validates.
SplitPlan count_pieces(const OpenPieces& open, const PrepareOptions& options,
                       const std::string& where, CorpusStats& stats) {
  std::vector<DocumentSize> documents;
  int64_t total = 0;
  Pieces pieces = open();
  ProgressClock clock(options);
  for (Piece piece; pieces.next(piece);) {
    if (piece.first) documents.push_back({piece.hash, 0});
    int64_t n = characters(piece.text);
    documents.back().characters += n;
    total += n;
    auto [done, all] = pieces.stored();
    clock.update(false, static_cast<double>(done) / 1e6, static_cast<double>(all) / 1e6);
  }
  stats = pieces.stats();
  if (total < 2) throw Error(where, "too little text to train and validate on", "give more text");
  return make_plan(documents, total, options.split);
}

// Second reading: tokens.
void encode_pieces(const OpenPieces& open, const TextEncoder& encoder, const SplitPlan& plan,
                   const CorpusStats& counted, const PrepareOptions& options,
                   const std::string& where, ShardWriter& train, ShardWriter& validation) {
  Splitter splitter(plan, options);
  Pieces pieces = open();
  ProgressClock clock(options);
  int64_t bytes = 0;
  bool changed = false;
  Piece piece;
  for (bool more = true; more && !changed;) {
    std::vector<Job> jobs;
    for (size_t have = 0; have < kBatchBytes && (more = pieces.next(piece));) {
      changed = piece.document >= counted.documents;
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
      bytes += n;
    }
    clock.update(true, static_cast<double>(bytes) / 1e6, static_cast<double>(counted.bytes) / 1e6);
  }
  if (changed || bytes != counted.bytes || pieces.stats().documents != counted.documents) {
    throw Error(where, "the corpus changed while it was read",
                "start again when nothing writes to it");
  }
}

Prepared prepare_from(const OpenPieces& open, const TextEncoder& encoder, const std::string& where,
                      uint64_t source, const std::string& folder, const PrepareOptions& options) {
  Prepared out = shard_paths(folder);
  if (is_prepared(out, source, encoder)) {
    out.reused = true;
    return out;
  }
  SplitPlan plan = count_pieces(open, options, where, out.stats);
  make_folder(folder);
  ShardWriter train(out.train, encoder.vocab, encoder.end_of_text),
      validation(out.validation, encoder.vocab, encoder.end_of_text);
  encode_pieces(open, encoder, plan, out.stats, options, where, train, validation);
  if (train.tokens() < 2 || validation.tokens() < 2) {
    throw Error(where, "too little text to train and validate on", "give more text");
  }
  validation.finish(encoder.hash, source);
  train.finish(encoder.hash, source);
  return out;
}

}  // namespace

Prepared prepare(const std::vector<std::string>& files, const TextEncoder& encoder,
                 const std::string& folder, const PrepareOptions& options) {
  check_options(encoder, options);
  uint64_t source = options_hash(encoder, options);
  for (const std::string& path : files) {
    if (::access(path.c_str(), R_OK) != 0 && files.size() > 1)
      continue;  // skipped and counted by the reader
    source = hash_bytes(MappedFile(path).text(), source ^ static_cast<uint64_t>(file_kind(path)));
  }
  return prepare_from(from_files(files), encoder, files.empty() ? "corpus" : files.front(), source,
                      folder, options);
}

bool prepare_shards(const std::vector<std::string>& documents, const Encoder& encode, int64_t vocab,
                    int32_t end_of_text, uint64_t tokenizer_hash, SplitRule rule,
                    const std::string& out) {
  TextEncoder encoder{encode, vocab, tokenizer_hash, end_of_text};
  PrepareOptions options;
  options.split = rule;
  check_options(encoder, options);
  uint64_t source = options_hash(encoder, options);
  for (const std::string& d : documents) source = hash_bytes(d, source);
  return !prepare_from(from_memory(documents), encoder, "corpus", source, out, options).reused;
}

TextEncoder text_encoder(const Tokenizer& tokenizer) {
  TextEncoder e;
  e.encode = [tokenizer](std::string_view text, std::vector<int32_t>& out) {
    tokenizer.encode(text, AddedTokens::kAsText, out);
  };
  e.vocab = tokenizer.vocab_size();
  e.end_of_text = tokenizer.eos().value_or(-1);
  e.fim_begin = tokenizer.find("<｜fim▁begin｜>").value_or(-1);
  e.fim_hole = tokenizer.find("<｜fim▁hole｜>").value_or(-1);
  e.fim_end = tokenizer.find("<｜fim▁end｜>").value_or(-1);
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
