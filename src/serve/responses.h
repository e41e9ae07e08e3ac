// OpenAI's /responses in terms of a chat, without memory: every request brings its whole
// conversation, nothing is stored. Streams are named events with sequence numbers that end with
// response.completed, response.incomplete or response.failed.
#pragma once
#include "serve/chat_request.h"
#include "serve/response_writer.h"

namespace wels {

ChatRequest parse_responses_request(std::string_view body);  // throws ApiError
std::string responses_response(const ResponseInfo& info, const ChatRequest& request,
                               const Answer& answer, const Usage& usage);
std::unique_ptr<EventWriter> make_responses_writer(ResponseInfo info, ChatRequest request);

}  // namespace wels
