#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <unordered_map>

#include "base/check.h"
#include "base/error.h"
#include "base/threads.h"
#include "formats/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/markers.h"
#include "text/scanners.h"

namespace wels {
namespace {

// Up to 16 bytes in two words, zero beyond the end; with the size it is the piece itself, so equal
// keys are equal pieces.
struct Key {
  uint64_t low, high;
  uint32_t size;
  bool operator==(const Key&) const = default;
  uint64_t hash() const {
    uint64_t h = (low ^ high * 0x9E3779B97F4A7C15ull ^ size) * 0xD6E8FEB86659FD93ull;
    return h ^ h >> 32;
  }
};

inline uint64_t low_bytes(uint64_t word, size_t n) {
  return n >= 8 ? word : word & ((uint64_t{1} << (8 * n)) - 1);
}

// `readable`: the end of the buffer the piece lies in; whole words are read where they fit.
inline Key make_key(const uint8_t* p, size_t n, const uint8_t* readable) {
  uint64_t words[2] = {0, 0};
  if (readable - p >= 16) {
    std::memcpy(words, p, 16);
    return {low_bytes(words[0], n), n > 8 ? low_bytes(words[1], n - 8) : 0,
            static_cast<uint32_t>(n)};
  }
  std::memcpy(words, p, n);
  return {words[0], words[1], static_cast<uint32_t>(n)};
}

constexpr size_t kKeyBytes = 16;

// Pieces that merging turns into more than one token, remembered per thread: a direct-mapped cache
// of fixed size.
struct PieceCache {
  static constexpr size_t kSlots = 1 << 13;
  static constexpr size_t kIds = 8;
  struct Slot {
    Key key{0, 0, 0};
    uint32_t count = 0;
    int32_t ids[kIds];
  };
  uint64_t owner = 0;  // the vocabulary the entries belong to
  std::vector<Slot> slots;
  std::vector<int32_t> long_ids;  // scratch of long pieces

  static PieceCache& of_thread(uint64_t owner) {
    thread_local PieceCache cache;
    if (cache.owner != owner) {
      cache.slots.assign(kSlots, Slot());
      cache.owner = owner;
    }
    return cache;
  }
};

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(VocabSource&& source);

  std::string where;
  uint64_t instance;  // never reused, so that a thread's cache cannot outlive its vocabulary
  PreTokenizer pre_tokenizer;
  bool nfc;
  MergeTable merges;
  std::array<int32_t, 256> byte_ids;
  std::vector<AddedToken> added;
  AddedTokenFinder raw_finder, normalized_finder;
  std::optional<int32_t> bos, eos, pad, document_begin;

  // Bytes of token id: pool[offset[id] ... offset[id + 1]).
  std::string pool;
  std::vector<uint32_t> offset;
  std::vector<uint8_t> special;

  // Pieces that are one token.
  struct Whole {
    Key key{0, 0, 0};
    int32_t id = -1;
  };
  std::vector<Whole> whole;
  size_t whole_mask = 0;
  std::unordered_map<std::string_view, int32_t> long_whole;  // tokens of more than kKeyBytes bytes
  std::unordered_map<std::string_view, int32_t> by_bytes;    // every ordinary token, by its bytes
  std::unordered_map<std::string_view, int32_t> by_content;  // added tokens

  std::string_view bytes_of(int32_t id) const {
    auto i = static_cast<size_t>(id);
    return std::string_view(pool).substr(offset[i], offset[i + 1] - offset[i]);
  }
  void build_bytes(const VocabSource& source);
  void build_merges(const VocabSource& source);
  void build_whole(const VocabSource& source);
  void find_special(const VocabSource& source);

  int32_t find_whole(const Key& key) const {
    for (size_t i = key.hash() & whole_mask;; i = (i + 1) & whole_mask) {
      if (whole[i].key == key) return whole[i].id;
      if (whole[i].id < 0) return -1;
    }
  }
  void bytes_to_ids(const uint8_t* p, size_t n, int32_t* ids) const;
  void encode_piece(const uint8_t* begin, const uint8_t* end, const uint8_t* readable,
                    PieceCache& cache, std::vector<int32_t>& out) const;
  void encode_plain(std::string_view text, std::vector<int32_t>& out) const;
  void encode_normalized(std::string_view text, bool find_added, std::vector<int32_t>& out) const;
};

Tokenizer::Impl::Impl(VocabSource&& source)
    : where(source.where),
      pre_tokenizer(std::move(source.steps), source.where),
      nfc(source.nfc),
      added(std::move(source.added)) {
  static std::atomic<uint64_t> instances{0};
  instance = ++instances;
  build_bytes(source);
  build_merges(source);
  build_whole(source);
  std::vector<AddedToken> raw, normalized;
  for (AddedToken token : added) {
    if (token.normalized && nfc) token.content = wels::nfc(token.content);
    (token.normalized ? normalized : raw).push_back(std::move(token));
  }
  raw_finder = AddedTokenFinder(raw);
  normalized_finder = AddedTokenFinder(normalized);
  find_special(source);
}

void Tokenizer::Impl::build_bytes(const VocabSource& source) {
  if (source.tokens.empty() && added.empty())
    throw Error(where, "the vocabulary is empty", "the file may be damaged");
  int32_t most = -1;
  for (const auto& t : source.tokens) most = std::max(most, t.id);
  for (const auto& t : added) most = std::max(most, t.id);
  std::vector<std::string> text(static_cast<size_t>(most) + 1);
  std::vector<uint8_t> used(text.size(), 0);
  special.assign(text.size(), 0);
  auto claim = [&](int32_t id, std::string_view name) {
    if (id < 0)
      throw Error(where, fmt::format("token '{}' has the negative id {}", printable(name), id),
                  "the file may be damaged");
    if (used[static_cast<size_t>(id)]++) {
      throw Error(where, fmt::format("the id {} of '{}' is used twice", id, printable(name)),
                  "every token needs an id of its own");
    }
  };
  std::unordered_map<std::string_view, int32_t> vocab;
  for (const auto& t : source.tokens) {
    claim(t.id, t.text);
    if (!text_to_bytes(t.text, text[static_cast<size_t>(t.id)]))
      text[static_cast<size_t>(t.id)] = t.text;
    if (!added.empty()) vocab.emplace(t.text, t.id);
  }
  for (const AddedToken& t : added) {
    if (t.content.empty())
      throw Error(where, fmt::format("the added token {} is empty", t.id), "remove it");
    auto it = vocab.find(t.content);
    // The vocabulary's "ø" is the byte 0xF8, an added "ø" (DeepSeek-LLM) is the character: two
    // tokens, one spelling.
    bool other = it != vocab.end() && it->second != t.id &&
                 text[static_cast<size_t>(it->second)] != t.content;
    if (it == vocab.end() || other) {
      claim(t.id, t.content);
    } else if (it->second != t.id) {
      throw Error(where,
                  fmt::format("the added token '{}' has the ids {} and {}", printable(t.content),
                              t.id, it->second),
                  "it must have one");
    }
    text[static_cast<size_t>(t.id)] = t.content;
    special[static_cast<size_t>(t.id)] = t.special;
  }
  size_t total = 0;
  for (const std::string& t : text) total += t.size();
  if (total >= MergeTable::kNone)
    throw Error(where, "the vocabulary has more than 4 GB of text", "the file may be damaged");
  pool.reserve(total);
  offset.reserve(text.size() + 1);
  for (const std::string& t : text) {
    offset.push_back(static_cast<uint32_t>(pool.size()));
    pool += t;
  }
  offset.push_back(static_cast<uint32_t>(pool.size()));
  for (const AddedToken& t : added) {
    if (!by_content.emplace(bytes_of(t.id), t.id).second) {
      throw Error(where, fmt::format("the added token '{}' appears twice", printable(t.content)),
                  "remove one");
    }
  }
  by_bytes.reserve(source.tokens.size());
  std::string bytes;
  for (const auto& t : source.tokens) {
    if (!text_to_bytes(t.text, bytes) || bytes.empty() || bytes != bytes_of(t.id)) continue;
    by_bytes.emplace(bytes_of(t.id), t.id);
  }
  byte_ids.fill(-1);
  for (int b = 0; b < 256; ++b) {
    char c = static_cast<char>(b);
    auto it = by_bytes.find(std::string_view(&c, 1));
    if (it != by_bytes.end()) byte_ids[static_cast<size_t>(b)] = it->second;
  }
}

void Tokenizer::Impl::build_merges(const VocabSource& source) {
  merges = MergeTable(source.merges.size());
  std::string bytes;
  auto id_of = [&](std::string_view part, size_t rank) {
    if (text_to_bytes(part, bytes)) {
      auto it = by_bytes.find(bytes);
      if (it != by_bytes.end()) return it->second;
    }
    throw Error(where,
                fmt::format("merge {} needs the token '{}', which the vocabulary does not have",
                            rank, printable(part)),
                "vocabulary and merges must come from the same training");
  };
  for (size_t rank = 0; rank < source.merges.size(); ++rank) {
    const auto& [text, left_size] = source.merges[rank];
    CHECK(left_size <= text.size());
    std::string_view all = text;
    int32_t left = id_of(all.substr(0, left_size), rank),
            right = id_of(all.substr(left_size), rank);
    merges.add(left, right, {static_cast<uint32_t>(rank), id_of(all, rank)});
  }
}

void Tokenizer::Impl::build_whole(const VocabSource& source) {
  // A token stands for its bytes only if merging these bytes ends in it (not so for a few tokens of
  // every vocabulary).
  std::vector<std::pair<std::string_view, int32_t>> tokens(by_bytes.begin(), by_bytes.end());
  std::vector<uint8_t> reached(tokens.size(), 0);
  parallel_for(static_cast<int64_t>(tokens.size()), 1024, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> ids;
    for (int64_t i = begin; i < end; ++i) {
      auto [bytes, id] = tokens[static_cast<size_t>(i)];
      ids.clear();
      for (char c : bytes) ids.push_back(byte_ids[static_cast<uint8_t>(c)]);
      bool complete = std::find(ids.begin(), ids.end(), -1) == ids.end();
      if (complete && !source.ignore_merges) merges.merge(ids);
      reached[static_cast<size_t>(i)] = source.ignore_merges
                                            ? !by_content.count(bytes)
                                            : complete && ids.size() == 1 && ids[0] == id;
    }
  });
  size_t size = std::bit_ceil(std::max<size_t>(16, tokens.size() * 2));
  whole.assign(size, Whole());
  whole_mask = size - 1;
  for (size_t t = 0; t < tokens.size(); ++t) {
    auto [bytes, id] = tokens[t];
    if (!reached[t]) continue;
    if (bytes.size() > kKeyBytes) {
      long_whole.emplace(bytes, id);
      continue;
    }
    auto* p = reinterpret_cast<const uint8_t*>(bytes.data());
    Key key = make_key(p, bytes.size(), p + bytes.size());
    size_t i = key.hash() & whole_mask;
    while (whole[i].id >= 0) i = (i + 1) & whole_mask;
    whole[i] = {key, id};
  }
}

void Tokenizer::Impl::find_special(const VocabSource& source) {
  auto pick = [&](std::optional<int32_t> stated,
                  std::initializer_list<std::string_view> names) -> std::optional<int32_t> {
    if (stated) {
      if (*stated < 0 || *stated >= static_cast<int32_t>(special.size())) {
        throw Error(where,
                    fmt::format("the special token id {} is not in the vocabulary of {}", *stated,
                                special.size()),
                    "the file may be damaged");
      }
      return stated;
    }
    for (std::string_view name : names) {
      if (auto it = by_content.find(name); it != by_content.end()) return it->second;
    }
    return std::nullopt;
  };
  bos = pick(source.bos, {kBosMark, "<|begin_of_text|>", "<s>"});
  eos = pick(source.eos, {kEosMark, "<|end_of_text|>", "<|endoftext|>", "</s>"});
  pad = pick(source.pad, {kPadMark, "<pad>"});
  if (!source.add_bos) document_begin = eos;
  if (source.add_bos == true) document_begin = bos;
}

void Tokenizer::Impl::bytes_to_ids(const uint8_t* p, size_t n, int32_t* ids) const {
  for (size_t i = 0; i < n; ++i) {
    ids[i] = byte_ids[p[i]];
    if (ids[i] < 0) {
      std::string piece(reinterpret_cast<const char*>(p), std::min<size_t>(n, 40));
      throw Error("text",
                  fmt::format("the byte 0x{:02x} in '{}' has no token in the vocabulary of {}",
                              p[i], printable(piece), where),
                  "use only characters that the training text had, or a byte-level vocabulary");
    }
  }
}

void Tokenizer::Impl::encode_piece(const uint8_t* begin, const uint8_t* end,
                                   const uint8_t* readable, PieceCache& cache,
                                   std::vector<int32_t>& out) const {
  auto n = static_cast<size_t>(end - begin);
  if (n <= kKeyBytes) {
    Key key = make_key(begin, n, readable);
    if (int32_t id = find_whole(key); id >= 0) {
      out.push_back(id);
      return;
    }
    PieceCache::Slot& slot = cache.slots[key.hash() >> 13 & (PieceCache::kSlots - 1)];
    if (slot.key == key) {
      out.insert(out.end(), slot.ids, slot.ids + slot.count);
      return;
    }
    int32_t ids[kKeyBytes];
    bytes_to_ids(begin, n, ids);
    size_t count = merges.merge_short(ids, n);
    out.insert(out.end(), ids, ids + count);
    if (count <= PieceCache::kIds) {
      slot.key = key;
      slot.count = static_cast<uint32_t>(count);
      std::copy(ids, ids + count, slot.ids);
    }
    return;
  }
  auto it = long_whole.find({reinterpret_cast<const char*>(begin), n});
  if (it != long_whole.end()) {
    out.push_back(it->second);
    return;
  }
  std::vector<int32_t>& ids = cache.long_ids;
  ids.resize(n);
  bytes_to_ids(begin, n, ids.data());
  merges.merge(ids);
  out.insert(out.end(), ids.begin(), ids.end());
  if (ids.capacity() > (1 << 20)) std::vector<int32_t>().swap(ids);
}

void Tokenizer::Impl::encode_plain(std::string_view text, std::vector<int32_t>& out) const {
  PieceCache& cache = PieceCache::of_thread(instance);
  auto* readable = reinterpret_cast<const uint8_t*>(text.data()) + text.size();
  scan::pieces(pre_tokenizer, text, [&](const uint8_t* begin, const uint8_t* end) {
    encode_piece(begin, end, readable, cache, out);
  });
}

void Tokenizer::Impl::encode_normalized(std::string_view text, bool find_added,
                                        std::vector<int32_t>& out) const {
  std::string normal;
  if (nfc && !nfc_is_trivial(text)) {
    normal = wels::nfc(text);
    text = normal;
  }
  if (!find_added) {
    encode_plain(text, out);
    return;
  }
  normalized_finder.split(
      text, [&](std::string_view part) { encode_plain(part, out); },
      [&](int32_t id) { out.push_back(id); });
}

Tokenizer::Tokenizer(VocabSource source) : impl_(std::make_shared<const Impl>(std::move(source))) {}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& where) {
  return Tokenizer(parse_tokenizer_json(json, where));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, AddedTokens added) const {
  std::vector<int32_t> out;
  out.reserve(text.size() / 4 + 8);
  encode(text, added, out);
  return out;
}

void Tokenizer::encode(std::string_view text, AddedTokens added, std::vector<int32_t>& out) const {
  const Impl& impl = *impl_;
  if (added == AddedTokens::kAsText) {
    impl.encode_normalized(text, false, out);
    return;
  }
  impl.raw_finder.split(
      text, [&](std::string_view part) { impl.encode_normalized(part, true, out); },
      [&](int32_t id) { out.push_back(id); });
}

std::vector<int32_t> Tokenizer::encode_document(std::string_view text, AddedTokens added) const {
  std::optional<int32_t> begin = document_begin();
  if (text.empty() && !begin) begin = bos() ? bos() : eos();
  std::vector<int32_t> out;
  if (begin) out.push_back(*begin);
  encode(text, added, out);
  if (begin && out.size() > 1 && (out[1] == begin || out[1] == bos())) out.erase(out.begin());
  return out;
}

std::vector<std::vector<int32_t>> Tokenizer::encode_parallel(
    std::span<const std::string_view> documents, AddedTokens added) const {
  std::vector<std::vector<int32_t>> out(documents.size());
  parallel_tasks(static_cast<int64_t>(documents.size()), [&](int64_t i) {
    out[static_cast<size_t>(i)] = encode(documents[static_cast<size_t>(i)], added);
  });
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  out.reserve(ids.size() * 4);
  for (int32_t id : ids) {
    if (!(skip_special && is_special(id))) out += token_bytes(id);
  }
  return out;
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? impl_->bytes_of(id) : std::string_view();
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->special.size()); }

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && impl_->special[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::find(std::string_view content) const {
  for (const auto* map : {&impl_->by_content, &impl_->by_bytes}) {
    if (auto it = map->find(content); it != map->end()) return it->second;
  }
  return std::nullopt;
}

std::optional<int32_t> Tokenizer::bos() const { return impl_->bos; }
std::optional<int32_t> Tokenizer::eos() const { return impl_->eos; }
std::optional<int32_t> Tokenizer::pad() const { return impl_->pad; }
std::optional<int32_t> Tokenizer::document_begin() const { return impl_->document_begin; }
bool Tokenizer::normalizes() const { return impl_->nfc; }
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added; }

std::vector<std::string_view> Tokenizer::pieces(std::string_view text, bool fast) const {
  std::vector<std::string_view> out;
  if (fast) {
    scan::pieces(impl_->pre_tokenizer, text, [&](const uint8_t* begin, const uint8_t* end) {
      out.emplace_back(reinterpret_cast<const char*>(begin), static_cast<size_t>(end - begin));
    });
    return out;
  }
  std::vector<PreTokenizer::Piece> pieces;
  impl_->pre_tokenizer.split(text, pieces);
  for (const auto& piece : pieces) out.push_back(text.substr(piece.begin, piece.end - piece.begin));
  return out;
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return "";
  held_ += tokenizer_.token_bytes(id);
  size_t ready = utf8_complete_prefix(held_);
  std::string out = utf8_lossy(std::string_view(held_).substr(0, ready));
  held_.erase(0, ready);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = utf8_lossy(held_);
  held_.clear();
  return out;
}

}  // namespace wels
