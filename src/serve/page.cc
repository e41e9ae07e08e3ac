#include "serve/page.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <zlib.h>

#include <boost/asio/ip/address.hpp>

#include "base/check.h"
#include "base/error.h"

// WELS_PAGE_GZ: the path of the compressed page, made by the build.
asm(R"(
  .section .rodata
  .global wels_page_begin
  .global wels_page_end
wels_page_begin:
  .incbin ")" WELS_PAGE_GZ R"("
wels_page_end:
  .byte 0
  .text
)");
extern "C" const char wels_page_begin[], wels_page_end[];

namespace wels {
namespace {

std::string sha256(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CHECK(EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) == 1);
  return {reinterpret_cast<char*>(digest), size};
}

std::string base64(std::string_view bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                          reinterpret_cast<const unsigned char*>(bytes.data()),
                          static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

// 'sha256-...' of all that is between <tag ...> and </tag>. What stands inside of another element
// is text and no tag.
std::string hashes(std::string_view html, std::string_view wanted) {
  std::string out;
  for (size_t at = 0; (at = html.find('<', at)) != std::string_view::npos; ++at) {
    for (std::string_view tag : {"script", "style"}) {
      if (!html.substr(at + 1).starts_with(tag)) continue;
      size_t name_end = at + 1 + tag.size(), begin = html.find('>', name_end);
      size_t end = html.find("</" + std::string(tag) + ">", name_end);
      bool whole = begin != std::string_view::npos && end != std::string_view::npos;
      if (!whole || (html[name_end] != '>' && html[name_end] != ' ')) continue;
      if (tag == wanted)
        out += " 'sha256-" + base64(sha256(html.substr(begin + 1, end - begin - 1))) + "'";
      at = end;
      break;
    }
  }
  return out.empty() ? " 'none'" : out;
}

struct Page {
  std::string_view gzip;
  std::string html, policy, tag;
};

const Page& page() {
  static const Page p = [] {
    Page made;
    made.gzip = {wels_page_begin, static_cast<size_t>(wels_page_end - wels_page_begin)};
    made.html = gunzip(made.gzip);
    made.policy = content_security_policy(made.html);
    for (char c : sha256(made.gzip).substr(0, 8))
      made.tag += fmt::format("{:02x}", static_cast<unsigned char>(c));
    return made;
  }();
  return p;
}

// The name or address in a URL's origin, a Host header or alone, in small letters.
std::string host_of(std::string_view text) {
  if (size_t scheme = text.find("://"); scheme != std::string_view::npos)
    text.remove_prefix(scheme + 3);
  if (text.starts_with('[')) {
    text = text.substr(1, text.find(']') - 1);
  } else if (text.find(':') == text.rfind(':')) {  // else an IPv6 address without a port
    text = text.substr(0, text.find(':'));
  }
  std::string host(text);
  for (char& c : host) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (host.ends_with('.')) host.pop_back();
  return host;
}

}  // namespace

bool names_loopback(std::string_view text) {
  std::string host = host_of(text);
  if (host == "localhost") return true;
  boost::system::error_code not_an_address;
  auto address = boost::asio::ip::make_address(host, not_an_address);
  if (not_an_address) return false;
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6())
        .is_loopback();
  return address.is_loopback();
}

std::string gunzip(std::string_view bytes) {
  z_stream z{};
  CHECK(inflateInit2(&z, 16 + MAX_WBITS) == Z_OK);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = static_cast<uInt>(bytes.size());
  std::string out;
  int state = Z_OK;
  while (state == Z_OK) {
    char chunk[1 << 16];
    z.next_out = reinterpret_cast<Bytef*>(chunk);
    z.avail_out = sizeof chunk;
    state = inflate(&z, Z_NO_FLUSH);
    out.append(chunk, sizeof chunk - z.avail_out);
  }
  inflateEnd(&z);
  if (state != Z_STREAM_END) throw Error("gzip", "the data is damaged");
  return out;
}

bool accepts_gzip(std::string_view header) {
  while (!header.empty()) {
    size_t comma = std::min(header.find(','), header.size());
    std::string one;  // without blanks, small letters
    for (char c : header.substr(0, comma)) {
      if (c != ' ' && c != '\t')
        one += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    header.remove_prefix(std::min(comma + 1, header.size()));
    std::string name = one.substr(0, one.find(';'));
    size_t q = one.find(";q=");
    bool refused =
        q != std::string::npos && one.find_first_not_of("0.", q + 3) == std::string::npos;
    if ((name == "gzip" || name == "*") && !refused) return true;
  }
  return false;
}

std::string content_security_policy(std::string_view html) {
  return "default-src 'none'; script-src" + hashes(html, "script") + "; style-src" +
         hashes(html, "style") +
         "; connect-src 'self'; img-src 'self' data: blob:; font-src data:; base-uri 'none'; "
         "form-action 'none'; frame-ancestors 'none'";
}

HttpResponse page_response(const HttpRequest& r) {
  const Page& p = page();
  bool gzip = accepts_gzip(r.accept_encoding);
  std::string tag = fmt::format("\"{}{}\"", p.tag, gzip ? "" : "-plain");
  HttpResponse out;
  out.content_type = "text/html; charset=utf-8";
  out.headers = {{"ETag", tag},
                 {"Cache-Control", "no-cache"},
                 {"Vary", "Accept-Encoding"},
                 {"Content-Security-Policy", p.policy},
                 {"X-Content-Type-Options", "nosniff"},
                 {"Referrer-Policy", "no-referrer"},
                 {"Cross-Origin-Opener-Policy", "same-origin"}};
  if (r.if_none_match.find(tag) != std::string::npos) {
    out.status = 304;
    return out;
  }
  if (gzip) out.headers.emplace_back("Content-Encoding", "gzip");
  out.body = gzip ? std::string(p.gzip) : p.html;
  return out;
}

}  // namespace wels
