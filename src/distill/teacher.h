// A frozen model that teaches by its distribution over the next token: the k most probable tokens
// and what all others have together. Full logits are never stored, neither the teacher's nor the
// student's (Device::top_tokens, Device::token_kl).
#pragma once
#include <memory>
#include <vector>

#include "model/model.h"
#include "text/tokenizer.h"
#include "train/trainer.h"

namespace wels {

inline constexpr int64_t kMostTopTokens = 64;

struct TeacherSettings {
  DType dtype = DType::kBF16;  // T of its activations
  int64_t top_k = kMostTopTokens;
  double temperature = 1;  // of its distribution; a student's must be the same
};

class Teacher {
 public:
  // The model is only read; both outlive the teacher.
  Teacher(Device& dev, Model& model, TeacherSettings settings);

  struct Said {
    Lesson lesson;                  // reverse: as asked for
    std::vector<double> gold_logp;  // [n] of the targets, temperature 1; 0 without a target
  };
  // What it says at the rows that have a target; the others have no teacher. The same bits whatever
  // else is in the batch.
  Said say(const MicroBatch& mb, bool reverse);

  Model& model() const { return model_; }
  const TeacherSettings& settings() const { return settings_; }

 private:
  Device& dev_;
  Model& model_;
  TeacherSettings settings_;
  Pool pool_;
};

// Throws Error naming `teacher` where the two tokenizers differ in any token, or where the
// teacher's head has rows that the student's lacks: a distribution over tokens is only worth
// something where tokens mean the same.
void require_same_vocabulary(const std::string& teacher, const Tokenizer& of_teacher,
                             int64_t teacher_vocab, const Tokenizer& of_student,
                             int64_t student_vocab);

}  // namespace wels
