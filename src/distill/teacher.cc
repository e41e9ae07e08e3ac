#include "distill/teacher.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace wels {

Teacher::Teacher(Device& dev, Model& model, TeacherSettings settings)
    : dev_(dev), model_(model), settings_(settings), pool_(device_pool(dev)) {
  CHECK(settings.top_k >= 1 && settings.temperature > 0);
}

Teacher::Said Teacher::say(const MicroBatch& mb, bool reverse) {
  Ctx ctx{.dev = dev_, .pool = pool_, .tape = nullptr, .dtype = settings_.dtype};
  std::vector<int32_t> rows, targets;
  for (size_t i = 0; i < mb.targets.size(); ++i) {
    if (mb.targets[i] < 0) continue;
    rows.push_back(static_cast<int32_t>(i));
    targets.push_back(mb.targets[i]);
  }
  auto n = static_cast<int64_t>(mb.targets.size()), m = static_cast<int64_t>(rows.size());
  int64_t k = settings_.top_k;
  std::vector<int32_t> id(static_cast<size_t>(n * k), -1);
  std::vector<float> logp(id.size()), tail(static_cast<size_t>(n));
  Said said;
  said.gold_logp.resize(static_cast<size_t>(n));
  if (m > 0) {
    Var h = select_rows(ctx, model_.hidden(ctx, mb.batch, {}), rows);
    OwnedTensor top_id = make_tensor(pool_, DType::kI32, m, k),
                top_logp = make_tensor(pool_, DType::kF32, m, k),
                top_tail = make_tensor(pool_, DType::kF32, m, 1);
    dev_.top_tokens(h.t, model_.head(), settings_.temperature, {top_id.t, top_logp.t, top_tail.t});
    std::vector<int32_t> some_id(static_cast<size_t>(m * k));
    std::vector<float> some_logp(some_id.size()), some_tail(static_cast<size_t>(m));
    dev_.download(top_id.t, some_id.data());
    dev_.download(top_logp.t, some_logp.data());
    dev_.download(top_tail.t, some_tail.data());
    std::vector<double> gold =
        to_host(dev_, token_logp(ctx, h, model_.head(), ctx.make_ids(targets.data(), m)).t);
    for (size_t r = 0; r < rows.size(); ++r) {
      auto to = static_cast<size_t>(rows[r]), width = static_cast<size_t>(k);
      std::copy_n(some_id.begin() + static_cast<long>(r * width), width,
                  id.begin() + static_cast<long>(to * width));
      std::copy_n(some_logp.begin() + static_cast<long>(r * width), width,
                  logp.begin() + static_cast<long>(to * width));
      tail[to] = some_tail[r];
      said.gold_logp[to] = gold[r];
    }
  }
  struct Kept {
    OwnedTensor id, logp, tail;
  };
  auto kept = std::make_shared<Kept>(Kept{make_tensor(pool_, DType::kI32, n, k),
                                          make_tensor(pool_, DType::kF32, n, k),
                                          make_tensor(pool_, DType::kF32, n, 1)});
  dev_.upload(id.data(), kept->id.t);
  dev_.upload(logp.data(), kept->logp.t);
  dev_.upload(tail.data(), kept->tail.t);
  said.lesson = {{kept->id.t, kept->logp.t, kept->tail.t},
                 {.reverse = reverse, .temperature = settings_.temperature},
                 kept};
  return said;
}

void require_same_vocabulary(const std::string& teacher, const Tokenizer& a, int64_t teacher_vocab,
                             const Tokenizer& b, int64_t student_vocab) {
  const char* hint = "learn from the teacher's text instead: wels distill --mode sft";
  if (a.vocab_size() != b.vocab_size()) {
    throw Error(teacher,
                fmt::format("has a tokenizer of {} tokens, the student's has {}", a.vocab_size(),
                            b.vocab_size()),
                hint);
  }
  for (int32_t i = 0; i < a.vocab_size(); ++i) {
    std::string x = a.decode(std::vector<int32_t>{i}), y = b.decode(std::vector<int32_t>{i});
    if (x != y) {
      throw Error(teacher, fmt::format("token {} is \"{}\", the student's is \"{}\"", i, x, y),
                  hint);
    }
  }
  if (teacher_vocab > student_vocab) {
    throw Error(
        teacher,
        fmt::format("has {} rows in its head, the student {}", teacher_vocab, student_vocab),
        "give the student the same vocab_size");
  }
}

}  // namespace wels
