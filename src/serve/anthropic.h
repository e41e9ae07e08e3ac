// Anthropic's /v1/messages in terms of a chat: requests, responses and streams. What DeepSeek's
// endpoint ignores (top_k, cache_control, metadata, ...) is ignored here; thinking.budget_tokens is
// kept.
#pragma once
#include "serve/chat_request.h"
#include "serve/response_writer.h"

namespace wels {

// counting: for count_tokens, which needs no max_tokens. Throws ApiError. The model is what the
// client named; models with other names than those served are meant to be deepseek-chat.
ChatRequest parse_messages_request(std::string_view body, bool counting);
std::string messages_response(const ResponseInfo& info, const Answer& answer, const Usage& usage);
// prompt_tokens: what is known when the stream begins.
std::unique_ptr<EventWriter> make_messages_writer(ResponseInfo info, int64_t prompt_tokens);

}  // namespace wels
