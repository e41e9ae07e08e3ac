// libFuzzer: any bytes as the body of a request are refused with a status or read; what can be read
// names every part of itself.
#include "serve/anthropic.h"
#include "serve/api_error.h"
#include "serve/responses.h"
#include "base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wels;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  if (size > 1 << 16) return 0;
  auto read = [](auto fn) {
    try {
      fn();
    } catch (const ApiError& e) {
      CHECK(e.response().status == 400);
      CHECK(!e.response().body.empty());
    }
  };
  read([&] { parse_chat_request(text, true); });
  read([&] { parse_completion_request(text); });
  read([&] { parse_embedding_request(text); });
  read([&] { parse_messages_request(text, true); });
  read([&] { parse_responses_request(text); });
  return 0;
}
