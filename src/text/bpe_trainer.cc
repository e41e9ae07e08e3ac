#include "text/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/check.h"
#include "base/error.h"
#include "base/threads.h"
#include "text/markers.h"
#include "text/scanners.h"
#include "text/word_counter.h"

namespace wels {
namespace {

constexpr size_t kChunkBytes = 1 << 20;   // unit of parallel counting
constexpr size_t kBatchBytes = 64 << 20;  // documents held in memory at a time
constexpr size_t kPieceBytes = 1 << 10;

// Cuts a long document where no pre-tokeniser of ours joins: after a newline that a letter follows
// (or, where there is none within another chunk's length, anywhere before a character). The rule
// knows nothing of threads.
void cut_document(std::string_view document, std::vector<std::string_view>& chunks) {
  auto boundary = [&](size_t i) {
    return document[i - 1] == '\n' && scan::is_alpha(static_cast<uint8_t>(document[i]));
  };
  while (document.size() > kChunkBytes) {
    size_t at = kChunkBytes, limit = std::min(document.size() - 1, 2 * kChunkBytes);
    while (at < limit && !boundary(at)) ++at;
    if (!boundary(at)) {
      at = kChunkBytes;
      while (at > kChunkBytes - 4 && (document[at] & 0xC0) == 0x80) --at;
    }
    chunks.push_back(document.substr(0, at));
    document.remove_prefix(at);
  }
  if (!document.empty()) chunks.push_back(document);
}

// Calls use(chunk, thread) for every part of every document, in parallel.
template <class Use>
void for_each_chunk(const NextDocument& next, Use&& use) {
  std::vector<std::string> held;
  size_t held_bytes = 0;
  auto run = [&] {
    std::vector<std::string_view> chunks;
    for (const std::string& document : held) cut_document(document, chunks);
    parallel_tasks(static_cast<int64_t>(chunks.size()),
                   [&](int64_t i) { use(chunks[static_cast<size_t>(i)], omp_get_thread_num()); });
    held.clear();
    held_bytes = 0;
  };
  for (std::string_view document; next(document);) {
    held.emplace_back(document);
    held_bytes += document.size();
    if (held_bytes >= kBatchBytes) run();
  }
  run();
}

NextDocument in_order(std::span<const std::string_view> documents) {
  return [documents, i = size_t{0}](std::string_view& document) mutable {
    if (i == documents.size()) return false;
    document = documents[i++];
    return true;
  };
}

struct Pair {
  int64_t count = 0;
  std::vector<uint32_t> words;  // all that hold the pair, and some that did
};

// Pairs by key (left << 32 | right): open addressing; nothing is ever taken out but everything at
// once.
class PairMap {
 public:
  PairMap() : slots_(64, kNone) {}
  Pair* find(uint64_t key) {
    for (size_t i = slot_of(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i] == kNone) return nullptr;
      if (items_[slots_[i]].first == key) return &items_[slots_[i]].second;
    }
  }
  Pair& operator[](uint64_t key) {
    size_t i = slot_of(key);
    for (; slots_[i] != kNone; i = (i + 1) & (slots_.size() - 1)) {
      if (items_[slots_[i]].first == key) return items_[slots_[i]].second;
    }
    if (2 * (items_.size() + 1) > slots_.size()) {
      slots_.assign(slots_.size() * 2, kNone);
      for (size_t item = 0; item < items_.size(); ++item)
        slots_[free_slot(items_[item].first)] = static_cast<uint32_t>(item);
      i = free_slot(key);
    }
    slots_[i] = static_cast<uint32_t>(items_.size());
    return items_.emplace_back(key, Pair()).second;
  }
  std::vector<std::pair<uint64_t, Pair>>& items() { return items_; }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  size_t slot_of(uint64_t key) const {
    key *= 0x9E3779B97F4A7C15ull;
    return (key ^ key >> 32) & (slots_.size() - 1);
  }
  size_t free_slot(uint64_t key) const {
    size_t i = slot_of(key);
    while (slots_[i] != kNone) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  std::vector<uint32_t> slots_;  // index into items_
  std::vector<std::pair<uint64_t, Pair>> items_;
};

// Words as runs of symbols in one array, and the pairs in them.
class Merger {
 public:
  Merger(const WordCounter& counter, const BpeTrainerOptions& options);
  // Joins the best pair; false if none is left. Symbols are numbered: byte_to_char order, then in
  // order of making.
  bool step(std::vector<VocabSource::Merge>& merges);
  const std::vector<std::string>& symbols() const { return symbols_; }

 private:
  struct WordRef {
    uint64_t begin;
    uint32_t size;
    int64_t count;
  };
  struct Entry {
    int64_t count;
    uint64_t key;
    bool operator<(const Entry& o) const {
      return count != o.count ? count < o.count : key > o.key;
    }
  };
  static uint64_t key_of(int32_t a, int32_t b) {
    return uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b);
  }
  void count_pairs();
  void push(uint64_t key, int64_t count) {
    size_t bytes = symbols_[key >> 32].size() + symbols_[key & 0xFFFFFFFF].size();
    if (count >= min_count_ && bytes <= max_bytes_) heap_.push({count, key});
  }
  void join_in_word(uint32_t word, int32_t left, int32_t right, int32_t joined, PairMap& changes);

  void apply(std::vector<PairMap>& changes, uint64_t gone);

  int64_t min_count_;
  size_t max_bytes_;
  std::vector<int32_t> text_;
  std::vector<WordRef> words_;
  PairMap pairs_;
  std::priority_queue<Entry> heap_;
  std::vector<std::string> symbols_;  // as raw bytes
  std::unordered_map<std::string, int32_t> symbol_ids_;
  std::unordered_set<uint64_t> joined_;
};

std::vector<uint8_t> bytes_in_order() {
  std::vector<uint8_t> bytes(256);
  for (int b = 0; b < 256; ++b) bytes[static_cast<size_t>(b)] = static_cast<uint8_t>(b);
  std::sort(bytes.begin(), bytes.end(),
            [](uint8_t a, uint8_t b) { return byte_to_char(a) < byte_to_char(b); });
  return bytes;
}

Merger::Merger(const WordCounter& counter, const BpeTrainerOptions& options)
    : min_count_(std::max<int64_t>(options.min_count, 1)), max_bytes_(options.max_token_bytes) {
  int32_t id_of[256];
  for (uint8_t b : bytes_in_order()) {
    id_of[b] = static_cast<int32_t>(symbols_.size());
    symbol_ids_.emplace(std::string(1, static_cast<char>(b)), id_of[b]);
    symbols_.emplace_back(1, static_cast<char>(b));
  }
  for (const WordCounter::Word& w : counter.sorted()) {
    if (w.size < 2) continue;
    words_.push_back({text_.size(), w.size, w.count});
    for (char c : counter.text(w)) text_.push_back(id_of[static_cast<uint8_t>(c)]);
  }
  count_pairs();
}

void Merger::count_pairs() {
  CHECK(words_.size() < 0xFFFFFFFFu);
  for (uint32_t w = 0; w < words_.size(); ++w) {
    const int32_t* s = text_.data() + words_[w].begin;
    for (uint32_t i = 0; i + 1 < words_[w].size; ++i) {
      Pair& pair = pairs_[key_of(s[i], s[i + 1])];
      pair.count += words_[w].count;
      if (pair.words.empty() || pair.words.back() != w) pair.words.push_back(w);
    }
  }
  for (const auto& [key, pair] : pairs_.items()) push(key, pair.count);
}

void Merger::join_in_word(uint32_t word, int32_t left, int32_t right, int32_t joined,
                          PairMap& changes) {
  WordRef& ref = words_[word];
  int32_t* s = text_.data() + ref.begin;
  uint32_t out = 0;
  auto less = [&](uint64_t key) { changes[key].count -= ref.count; };
  auto more = [&](uint64_t key) {
    Pair& pair = changes[key];
    pair.count += ref.count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  };
  for (uint32_t i = 0; i < ref.size; ++out) {
    if (i + 1 < ref.size && s[i] == left && s[i + 1] == right) {
      // The neighbour on the left is already in its new form, the one on the right still in its old
      // one.
      if (out > 0) {
        less(key_of(s[out - 1], left));
        more(key_of(s[out - 1], joined));
      }
      if (i + 2 < ref.size) {
        less(key_of(right, s[i + 2]));
        more(key_of(joined, s[i + 2]));
      }
      s[out] = joined;
      i += 2;
    } else {
      s[out] = s[i++];
    }
  }
  ref.size = out;
}

bool Merger::step(std::vector<VocabSource::Merge>& merges) {
  while (!heap_.empty()) {
    Entry best = heap_.top();
    heap_.pop();
    Pair* pair = pairs_.find(best.key);
    int64_t count = pair ? pair->count : 0;
    if (count != best.count) {  // the count fell (or the pair is gone) since this entry was made
      if (count > 0 && count < best.count) push(best.key, count);
      continue;
    }
    auto left = static_cast<int32_t>(best.key >> 32),
         right = static_cast<int32_t>(best.key & 0xFFFFFFFF);
    std::string text = symbols_[static_cast<size_t>(left)] + symbols_[static_cast<size_t>(right)];
    // The same bytes may have been joined from other parts before: then that symbol is used.
    auto [symbol, is_new] = symbol_ids_.try_emplace(text, static_cast<int32_t>(symbols_.size()));
    int32_t joined = symbol->second;
    // For the same reason a pair can come up again after it was joined everywhere: its first rank
    // stays.
    if (joined_.insert(best.key).second) {
      std::string left_text = bytes_to_text(symbols_[static_cast<size_t>(left)]);
      merges.push_back({left_text + bytes_to_text(symbols_[static_cast<size_t>(right)]),
                        static_cast<uint32_t>(left_text.size())});
    }
    if (is_new) symbols_.push_back(std::move(text));

    std::vector<uint32_t> words = std::move(pair->words);
    *pair = Pair();
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    std::vector<PairMap> changes(static_cast<size_t>(thread_count()));
    parallel_for(static_cast<int64_t>(words.size()), 2048, [&](int64_t begin, int64_t end) {
      PairMap& mine = changes[static_cast<size_t>(omp_get_thread_num())];
      for (int64_t i = begin; i < end; ++i)
        join_in_word(words[static_cast<size_t>(i)], left, right, joined, mine);
    });
    apply(changes, best.key);
    return true;
  }
  return false;
}

void Merger::apply(std::vector<PairMap>& changes, uint64_t gone) {
  std::vector<uint64_t> grown;
  for (PairMap& part : changes) {
    for (auto& [key, change] : part.items()) {
      if (key == gone) continue;  // in a a a a the pair joined is also its own neighbour
      Pair& pair = pairs_[key];
      pair.count += change.count;
      if (change.words.empty()) continue;
      grown.push_back(key);
      if (pair.words.empty()) {
        pair.words = std::move(change.words);
      } else {
        pair.words.insert(pair.words.end(), change.words.begin(), change.words.end());
      }
    }
  }
  std::sort(grown.begin(), grown.end());
  grown.erase(std::unique(grown.begin(), grown.end()), grown.end());
  for (uint64_t key : grown) {
    if (int64_t count = pairs_[key].count; count > 0) push(key, count);
  }
}

AddedToken control(std::string_view content) {
  AddedToken t;
  t.content = content;
  t.special = true;
  return t;
}
AddedToken marker(std::string_view content) {
  AddedToken t;
  t.content = content;
  t.normalized = true;
  return t;
}

void name_special(VocabSource& source) {
  for (const AddedToken& t : source.added) {
    if (t.content == kBosMark) source.bos = t.id;
    if (t.content == kEosMark) source.eos = t.id;
    if (t.content == kPadMark) source.pad = t.id;
  }
}

// Tokens that come first are in the vocabulary as well, as in DeepSeek-V3's file: other readers
// number added tokens that are not in it from its end.
void put_first(const std::vector<AddedToken>& first, VocabSource& source) {
  for (AddedToken t : first) {
    t.id = static_cast<int32_t>(source.tokens.size());
    source.tokens.push_back({t.content, t.id});
    source.added.push_back(std::move(t));
  }
}

}  // namespace

BpeTrainerOptions deepseek_style_options(int32_t vocab_size) {
  BpeTrainerOptions o;
  o.vocab_size = vocab_size;
  for (std::string_view t : {kBosMark, kEosMark, kPadMark}) o.first.push_back(control(t));
  for (std::string_view t : {kThinkBegin, kThinkEnd, kFimHole, kFimBegin, kFimEnd, kUserMark,
                             kAssistantMark, kCallsBegin, kCallsEnd, kCallBegin, kCallEnd,
                             kOutputsBegin, kOutputsEnd, kOutputBegin, kOutputEnd, kToolSep})
    o.last.push_back(marker(t));
  return o;
}

VocabSource train_bpe(const NextDocument& next, const BpeTrainerOptions& options) {
  auto least = static_cast<int64_t>(256 + options.first.size() + options.last.size());
  if (options.vocab_size < least) {
    throw Error(
        "vocab_size",
        fmt::format("{} is less than the {} bytes and special tokens", options.vocab_size, least),
        fmt::format("use at least {}", least));
  }
  VocabSource source;
  source.where = "trained vocabulary";
  source.steps = options.steps;
  PreTokenizer pre_tokenizer(options.steps, source.where);
  std::vector<WordCounter> counters(static_cast<size_t>(thread_count()));
  for_each_chunk(next, [&](std::string_view chunk, int thread) {
    WordCounter& counter = counters[static_cast<size_t>(thread)];
    scan::pieces(pre_tokenizer, chunk, [&](const uint8_t* begin, const uint8_t* end) {
      for (; begin < end; begin += kPieceBytes) {
        auto size = std::min(static_cast<size_t>(end - begin), kPieceBytes);
        counter.add({reinterpret_cast<const char*>(begin), size}, 1);
        if (size < kPieceBytes) break;
      }
    });
  });
  for (size_t i = 1; i < counters.size(); ++i) {
    counters[0].add_all(counters[i]);
    counters[i] = WordCounter();
  }
  if (counters[0].size() == 0)
    throw Error("corpus", "there is no text to learn a vocabulary from", "give files with text");

  Merger merger(counters[0], options);
  counters.clear();
  auto symbols =
      static_cast<size_t>(options.vocab_size) - options.first.size() - options.last.size();
  while (merger.symbols().size() < symbols && merger.step(source.merges)) {
  }
  put_first(options.first, source);
  for (const std::string& symbol : merger.symbols()) {
    source.tokens.push_back({bytes_to_text(symbol), static_cast<int32_t>(source.tokens.size())});
  }
  for (AddedToken t : options.last) {
    t.id = static_cast<int32_t>(source.tokens.size() + source.added.size() - options.first.size());
    source.added.push_back(std::move(t));
  }
  name_special(source);
  return source;
}

VocabSource train_bpe(std::span<const std::string_view> documents,
                      const BpeTrainerOptions& options) {
  return train_bpe(in_order(documents), options);
}

VocabSource train_characters(const NextDocument& next, const std::vector<AddedToken>& first) {
  std::vector<std::vector<uint8_t>> seen(static_cast<size_t>(thread_count()),
                                         std::vector<uint8_t>(kBadByte + 256, 0));
  for_each_chunk(next, [&](std::string_view chunk, int thread) {
    auto& mine = seen[static_cast<size_t>(thread)];
    auto* p = reinterpret_cast<const uint8_t*>(chunk.data());
    for (auto* end = p + chunk.size(); p < end;) {
      Char c = read_char(p, end);
      mine[c.code == kBadByte ? kBadByte + *p : c.code] = 1;
      p += c.size;
    }
  });
  VocabSource source;
  source.where = "trained vocabulary";
  source.steps = character_steps();
  source.ignore_merges = true;  // a character of several bytes is looked up as a whole
  put_first(first, source);
  for (uint32_t code = 0; code < seen[0].size(); ++code) {
    if (std::none_of(seen.begin(), seen.end(), [&](const auto& s) { return s[code] != 0; }))
      continue;
    std::string bytes;
    if (code < kBadByte) {
      append_utf8(bytes, code);
    } else {
      bytes = static_cast<char>(code - kBadByte);
    }
    source.tokens.push_back({bytes_to_text(bytes), static_cast<int32_t>(source.tokens.size())});
  }
  if (source.tokens.size() == first.size())
    throw Error("corpus", "there is no text to learn a vocabulary from", "give files with text");
  name_special(source);
  return source;
}

VocabSource train_characters(std::span<const std::string_view> documents,
                             const std::vector<AddedToken>& first) {
  return train_characters(in_order(documents), first);
}

}  // namespace wels
