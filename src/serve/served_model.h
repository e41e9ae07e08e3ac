// ServedModel: a loaded model with what text needs: tokenizer, chat template, the tokens that end
// an answer. Requests of the API → prompts and what the answer is held to.
#pragma once
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend/device.h"
#include "engine/draft.h"
#include "model/model.h"
#include "serve/answer_mask.h"
#include "serve/chat_request.h"
#include "serve/generation.h"
#include "text/tokenizer.h"

namespace wels {

// The names of the first model's two modes.
inline constexpr const char* kChatName = "deepseek-chat";
inline constexpr const char* kReasonerName = "deepseek-reasoner";

// Whose habits the API has. kV3: DeepSeek's of V3 and R1, where the name chooses the mode and the
// reasoner takes no sampling parameters. k2026: its later one, where deepseek-flash and the models'
// own names think unless told otherwise, with an effort, reasoning has log-probabilities, penalties
// do nothing, and the cache is reported in units of 128.
enum class ApiStyle { kV3, k2026 };
inline constexpr const char* kFlashName = "deepseek-flash";

class ServedModel {
 public:
  // dev, model: must outlive it. chat_template nullopt: a base model, which continues texts.
  // context: tokens of a prompt and its answer at most.
  ServedModel(Device& dev, Model& model, DType dtype, Tokenizer tokenizer,
              std::optional<ChatTemplate> chat_template, std::string name, int64_t context,
              ApiStyle style = ApiStyle::kV3);

  Device& dev() const { return dev_; }
  Model& model() const { return model_; }
  DType dtype() const { return dtype_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::string& name() const { return name_; }
  int64_t context() const { return context_; }
  const std::vector<int32_t>& shown_tokens() const { return shown_; }

  // What is to be generated, but for whose it is (scope) and until when. Throw ApiError.
  GenerationJob chat_job(const ChatRequest& r) const;
  GenerationJob completion_job(const CompletionRequest& r) const;
  GenerationJob embedding_job(const EmbeddingRequest& r) const;
  // The prompt alone. thinking: whether it ends inside the reasoning.
  struct Prompt {
    std::vector<int32_t> tokens;
    bool thinking = false;
  };
  Prompt chat_prompt(const ChatRequest& r) const;
  // Token ids of a text as a document's beginning.
  std::vector<int32_t> document(const std::string& text) const;
  std::vector<int32_t> tokens_of(const std::variant<std::string, std::vector<int32_t>>& v) const;
  void check_tokens(const std::vector<int32_t>& ids) const;

 private:
  bool wants_thinking(const ChatRequest& r) const;
  std::shared_ptr<AnswerPlan> plan(const ChatRequest& r, bool thinking) const;
  std::vector<AnswerPart> forced_calls(const ChatRequest& r) const;
  std::shared_ptr<const TokenTree> token_tree() const;
  void set_options(const GenerationOptions& o, GenerationJob& job, int64_t usual_tokens) const;

  Device& dev_;
  Model& model_;
  DType dtype_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> template_;
  std::string name_;
  int64_t context_;
  ApiStyle style_;
  std::vector<int32_t> stop_ids_, chat_stop_ids_, shown_;
  mutable std::once_flag tree_once_;
  mutable std::shared_ptr<const TokenTree> tree_;
};

}  // namespace wels
