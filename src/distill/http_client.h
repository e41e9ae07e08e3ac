// HTTP as a client, by libcurl: the one place for it.
#pragma once
#include <functional>
#include <string>
#include <string_view>

namespace wels {

struct HttpReply {
  int status = 0;  // 0: no answer
  std::string body, error;
  double retry_after_s = 0;  // as the server says; 0: it does not
};
// GET where body is empty, else POST of JSON. For several threads at once.
using HttpSend = std::function<HttpReply(const std::string& url, const std::string& body)>;
// key: of the Authorization header; empty: none. After a signal (base/signal.h) a request is given
// up, as one without an answer.
HttpSend http_client(const std::string& key, double timeout_s);

// POST of JSON whose answer is taken piece by piece: `piece` gets the body of a status 200 as it
// comes, another status' body is in the reply. Ends when `piece` or `more` (asked several times a
// second) says false. No limit of time but for connecting.
HttpReply http_stream(const std::string& key, const std::string& url, const std::string& body,
                      const std::function<bool(std::string_view)>& piece,
                      const std::function<bool()>& more);

}  // namespace wels
