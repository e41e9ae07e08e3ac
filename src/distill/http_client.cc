#include "distill/http_client.h"

#include <curl/curl.h>

#include <memory>
#include <mutex>

#include "base/signal.h"

namespace wels {
namespace {

constexpr size_t kLongestReply = 64u << 20;

using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

// A request with what all have in common; perform() fills the reply but for its body.
class Request {
 public:
  Request(const std::string& key, const std::string& url, const std::string& body)
      : handle_(curl_easy_init(), curl_easy_cleanup),
        headers_(curl_slist_append(nullptr, "Content-Type: application/json"),
                 curl_slist_free_all) {
    if (!handle_) return;
    if (!key.empty()) curl_slist_append(headers_.get(), ("Authorization: Bearer " + key).c_str());
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_HTTPHEADER, headers_.get());
    set(CURLOPT_USERAGENT, "wels");
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_CONNECTTIMEOUT_MS, 10'000L);
    if (body.empty()) return;
    set(CURLOPT_POSTFIELDS, body.data());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  }
  template <class T>
  void set(CURLoption option, T value) {
    curl_easy_setopt(handle_.get(), option, value);
  }
  void perform(HttpReply& reply) {
    if (!handle_) {
      reply.error = "libcurl gave no handle";
      return;
    }
    CURLcode code = curl_easy_perform(handle_.get());
    if (code != CURLE_OK) {
      reply.error = curl_easy_strerror(code);
      return;
    }
    curl_off_t after = 0;
    reply.status = status();
    curl_easy_getinfo(handle_.get(), CURLINFO_RETRY_AFTER, &after);
    reply.retry_after_s = static_cast<double>(after);
  }
  int status() const {
    long status = 0;
    curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &status);
    return static_cast<int>(status);
  }

 private:
  Handle handle_;
  Headers headers_;
};

void begin_curl() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

size_t take(char* data, size_t size, size_t n, void* to) {
  auto* body = static_cast<std::string*>(to);
  if (body->size() + size * n > kLongestReply) return 0;  // curl ends with an error
  body->append(data, size * n);
  return size * n;
}

struct Stream {
  Request& request;
  HttpReply& reply;
  const std::function<bool(std::string_view)>& piece;
  const std::function<bool()>& more;
  bool enough = false;
};

size_t take_piece(char* data, size_t size, size_t n, void* to) {
  auto* s = static_cast<Stream*>(to);
  if (s->request.status() != 200) return take(data, size, n, &s->reply.body);
  s->enough = !s->piece({data, size * n});
  return s->enough ? 0 : size * n;
}

int ask_for_more(void* to, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto* s = static_cast<Stream*>(to);
  s->enough = s->enough || !s->more();
  return s->enough ? 1 : 0;
}

int ask_to_stop(void*, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return stop_requested() ? 1 : 0;
}

}  // namespace

HttpSend http_client(const std::string& key, double timeout_s) {
  begin_curl();
  return [key, timeout_s](const std::string& url, const std::string& body) {
    HttpReply reply;
    Request r(key, url, body);
    r.set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout_s * 1000));
    r.set(CURLOPT_WRITEFUNCTION, take);
    r.set(CURLOPT_WRITEDATA, &reply.body);
    r.set(CURLOPT_NOPROGRESS, 0L);
    r.set(CURLOPT_XFERINFOFUNCTION, ask_to_stop);
    r.perform(reply);
    if (reply.status == 0) reply.body.clear();
    return reply;
  };
}

HttpReply http_stream(const std::string& key, const std::string& url, const std::string& body,
                      const std::function<bool(std::string_view)>& piece,
                      const std::function<bool()>& more) {
  begin_curl();
  HttpReply reply;
  Request r(key, url, body);
  Stream stream{r, reply, piece, more};
  r.set(CURLOPT_WRITEFUNCTION, take_piece);
  r.set(CURLOPT_WRITEDATA, &stream);
  r.set(CURLOPT_NOPROGRESS, 0L);
  r.set(CURLOPT_XFERINFOFUNCTION, ask_for_more);
  r.set(CURLOPT_XFERINFODATA, &stream);
  r.perform(reply);
  if (stream.enough) {
    reply.error.clear();
    reply.status = 200;
  }
  return reply;
}

}  // namespace wels
