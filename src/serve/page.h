// The page: web/dist/index.html, one file with all that it needs, compressed inside the program.
#pragma once
#include <string>
#include <string_view>

#include "serve/http.h"

namespace wels {

// The page for `GET /`, as the client takes it (gzip or plain), or 304 where it has this one
// already. Its Content-Security-Policy lets no other host and no script but its own in.
HttpResponse page_response(const HttpRequest& r);

// --- its parts ---

// The text behind gzip's bytes. Throws Error where they are none.
std::string gunzip(std::string_view bytes);
// Whether an Accept-Encoding header lets gzip through.
bool accepts_gzip(std::string_view header);
// Scripts and style sheets of `html` by their hashes; nothing else may run.
std::string content_security_policy(std::string_view html);

// Whether an Origin, a Host or an address is this machine: "http://localhost:5173", "127.0.0.1:80",
// "[::1]", "::ffff:127.0.0.1".
bool names_loopback(std::string_view text);

}  // namespace wels
