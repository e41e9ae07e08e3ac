// The one place that speaks HTTP as a client, by libcurl.
#include <curl/curl.h>

#include <memory>
#include <mutex>

#include "distill/endpoint.h"

namespace wels {
namespace {

constexpr size_t kLongestReply = 64u << 20;

size_t take(char* data, size_t size, size_t n, void* to) {
  auto* body = static_cast<std::string*>(to);
  if (body->size() + size * n > kLongestReply) return 0;  // curl ends with an error
  body->append(data, size * n);
  return size * n;
}

using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using Headers = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

}  // namespace

HttpSend http_client(const std::string& key, double timeout_s) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  return [key, timeout_s](const std::string& url, const std::string& body) {
    HttpReply reply;
    Handle h(curl_easy_init(), curl_easy_cleanup);
    if (!h) {
      reply.error = "libcurl gave no handle";
      return reply;
    }
    Headers headers(curl_slist_append(nullptr, "Content-Type: application/json"),
                    curl_slist_free_all);
    if (!key.empty()) curl_slist_append(headers.get(), ("Authorization: Bearer " + key).c_str());
    curl_easy_setopt(h.get(), CURLOPT_URL, url.c_str());
    curl_easy_setopt(h.get(), CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h.get(), CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(h.get(), CURLOPT_USERAGENT, "wels");
    curl_easy_setopt(h.get(), CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(timeout_s * 1000));
    curl_easy_setopt(h.get(), CURLOPT_CONNECTTIMEOUT_MS, 10'000L);
    curl_easy_setopt(h.get(), CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(h.get(), CURLOPT_WRITEDATA, &reply.body);
    if (!body.empty()) {
      curl_easy_setopt(h.get(), CURLOPT_POSTFIELDS, body.data());
      curl_easy_setopt(h.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    }
    CURLcode code = curl_easy_perform(h.get());
    if (code != CURLE_OK) {
      reply.error = curl_easy_strerror(code);
      reply.body.clear();
      return reply;
    }
    long status = 0;
    curl_off_t after = 0;
    curl_easy_getinfo(h.get(), CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(h.get(), CURLINFO_RETRY_AFTER, &after);
    reply.status = static_cast<int>(status);
    reply.retry_after_s = static_cast<double>(after);
    return reply;
  };
}

}  // namespace wels
