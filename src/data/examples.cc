#include "data/examples.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "base/threads.h"
#include "data/hash.h"
#include "data/json_lines.h"
#include "data/loader.h"

namespace wels {
namespace {

constexpr size_t kRecordsAtOnce = 4096;  // encoded in parallel

struct Line {
  std::string text, where;
};

struct Encoded {
  TrainingTokens tokens;
  uint64_t question_hash = 0;
  enum { kWhole, kCut, kTooLong, kNothingLeft } outcome = kWhole;
};

TrainingTokens tokens_of(const ChatRecord& record, const std::string& where,
                         const Tokenizer& tokenizer, const ChatDataOptions& o) {
  if (record.messages.empty()) return training_tokens(record.text, tokenizer, record.ends);
  try {
    return training_tokens(o.chat_template, record.messages, tokenizer);
  } catch (const Error& e) {
    if (e.where() == "tokenizer") throw;
    throw Error(where + ": " + e.where(), e.fact(), e.hint());
  }
}

Encoded encode(const Line& line, const Tokenizer& tokenizer, const ChatDataOptions& o) {
  ChatRecord record = parse_chat_record(line.text, line.where);
  Encoded out;
  out.question_hash = record.question_hash;
  out.tokens = tokens_of(record, line.where, tokenizer, o);
  if (out.tokens.size() > o.longest) {
    out.outcome = o.cut ? Encoded::kCut : Encoded::kTooLong;
    out.tokens.ids.resize(static_cast<size_t>(o.longest));
    out.tokens.learned.resize(static_cast<size_t>(o.longest));
  }
  bool first_learned = out.tokens.size() > 0 && out.tokens.learned[0] != 0;
  bool nothing = out.tokens.learned_count() - (first_learned ? 1 : 0) == 0;
  if (nothing && out.outcome != Encoded::kTooLong) out.outcome = Encoded::kNothingLeft;
  return out;
}

void take(const std::vector<Encoded>& encoded, const ChatDataOptions& o, ChatData& data) {
  for (const Encoded& e : encoded) {
    ChatDataStats& s = data.stats;
    if (e.outcome == Encoded::kTooLong) ++s.too_long;
    if (e.outcome == Encoded::kNothingLeft) ++s.nothing_left;
    if (e.outcome == Encoded::kTooLong || e.outcome == Encoded::kNothingLeft) continue;
    if (e.outcome == Encoded::kCut) ++s.cut;
    ++s.records;
    s.tokens += e.tokens.size();
    s.learned += e.tokens.learned_count();
    (in_held_out_share(e.question_hash, o.held_out) ? data.held_out : data.train).add(e.tokens);
  }
}

}  // namespace

void StoredExamples::add(const TrainingTokens& tokens) {
  CHECK(tokens.ids.size() == tokens.learned.size());
  ids_.insert(ids_.end(), tokens.ids.begin(), tokens.ids.end());
  learned_.insert(learned_.end(), tokens.learned.begin(), tokens.learned.end());
  begins_.push_back(static_cast<int64_t>(ids_.size()));
  auto bytes = [](const auto& v) {
    return std::string_view(reinterpret_cast<const char*>(v.data()), v.size() * sizeof v[0]);
  };
  hash_ = hash_bytes(bytes(tokens.learned), hash_bytes(bytes(tokens.ids), hash_));
}

TrainingTokens StoredExamples::example(int64_t i) const {
  CHECK(i >= 0 && i < size());
  auto begin = begins_[static_cast<size_t>(i)], end = begins_[static_cast<size_t>(i) + 1];
  return {{ids_.begin() + begin, ids_.begin() + end},
          {learned_.begin() + begin, learned_.begin() + end}};
}

std::string ChatDataStats::summary() const {
  std::string out =
      fmt::format("{} examples, {} tokens, {} of them learned", records, tokens, learned);
  auto add = [&](int64_t n, const char* what) {
    if (n > 0) out += fmt::format("; {} {}", n, what);
  };
  add(cut, "cut to the longest length");
  add(too_long, "too long, left out");
  add(nothing_left, "left out: nothing of what is learned is within the longest length");
  return out;
}

ChatData read_chat_data(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                        const ChatDataOptions& options) {
  ChatData data;
  std::vector<Line> lines;
  auto flush = [&] {
    std::vector<Encoded> encoded(lines.size());
    parallel_tasks(static_cast<int64_t>(lines.size()), [&](int64_t i) {
      auto at = static_cast<size_t>(i);
      encoded[at] = encode(lines[at], tokenizer, options);
    });
    take(encoded, options, data);
    lines.clear();
  };
  read_json_lines(files, [&](std::string_view text, const std::string& where) {
    lines.push_back({std::string(text), where});
    if (lines.size() == kRecordsAtOnce) flush();
    return true;
  });
  flush();
  if (data.train.size() == 0) {
    throw Error(files.front(), "leaves no example to train on: " + data.stats.summary(),
                "give more examples, or a larger --seq");
  }
  return data;
}

bool in_held_out_share(uint64_t question_hash, double share) {
  return static_cast<double>(hash_mix(question_hash, 0x9fb21c651e98df25ull) >> 11) * 0x1p-53 <
         share;
}

int64_t drawn_example(int64_t i, int64_t n, uint64_t seed) {
  if (n < 0) return i;
  uint64_t epoch = static_cast<uint64_t>(i / n);
  return permute(i % n, n, hash_mix(seed ^ 0xa0761d6478bd642full, epoch ^ 0xe7037ed1a0b428dbull));
}

std::vector<std::vector<int64_t>> best_fit(const std::vector<int64_t>& sizes, int64_t most) {
  std::vector<int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  auto size = [&](int64_t i) { return sizes[static_cast<size_t>(i)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return size(a) > size(b); });
  std::vector<std::vector<int64_t>> groups;
  std::vector<int64_t> room;
  for (int64_t i : order) {
    size_t best = room.size();
    for (size_t g = 0; g < room.size(); ++g) {
      if (room[g] >= size(i) && (best == room.size() || room[g] < room[best])) best = g;
    }
    if (best == room.size()) {
      groups.emplace_back();
      room.push_back(most);
    }
    groups[best].push_back(i);
    room[best] -= size(i);
  }
  for (auto& group : groups) std::sort(group.begin(), group.end());
  return groups;
}

void append_example(const TrainingTokens& tokens, Batch& batch, std::vector<int32_t>& targets) {
  CHECK(tokens.size() >= 2);
  batch.append(std::vector<int32_t>(tokens.ids.begin(), tokens.ids.end() - 1));
  for (size_t i = 1; i < tokens.ids.size(); ++i)
    targets.push_back(tokens.learned[i] != 0 ? tokens.ids[i] : -1);
}

}  // namespace wels
