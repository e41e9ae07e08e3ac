#include "serve/page.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Page, GzipIsTakenAsTheHeaderSays) {
  for (const char* yes :
       {"gzip", "gzip, deflate, br", "deflate;q=0.5, GZIP;q=0.8", "*", "gzip ; q=1"})
    EXPECT_TRUE(accepts_gzip(yes)) << yes;
  for (const char* no : {"", "deflate", "gzip;q=0", "gzip; q=0.00, br", "xgzip", ",,;"})
    EXPECT_FALSE(accepts_gzip(no)) << no;
}

TEST(Page, DamagedBytesAreNoPage) {
  EXPECT_THROW(gunzip("nothing of the kind"), Error);
  EXPECT_THROW(gunzip(std::string("\x1f\x8b\x08\x00", 4)), Error);
}

TEST(Page, ThePolicyNamesEveryScriptByItsHash) {
  // printf 'alert(1)' | openssl dgst -sha256 -binary | base64
  std::string p = content_security_policy(
      "<script type=\"module\">alert(1)</script><style>a{}</style><scripted>x</scripted>");
  EXPECT_THAT(p, HasSubstr("script-src 'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI=';"));
  EXPECT_THAT(p, HasSubstr("style-src 'sha256-"));
  EXPECT_THAT(p, HasSubstr("default-src 'none'"));
  // What a script says of tags is no tag.
  std::string with = content_security_policy("<script>x='<style>'</script><style>a{}</style>");
  EXPECT_EQ(with.substr(with.find("; style")), p.substr(p.find("; style")));
  EXPECT_THAT(content_security_policy("<p>"), HasSubstr("script-src 'none'; style-src 'none'"));
}

TEST(Page, ItComesCompressedOrPlainAndOnlyWhenItHasChanged) {
  TestServer server;
  RawClient c(server.port);
  auto plain = c.get("/");
  EXPECT_EQ(plain.status, 200);
  EXPECT_THAT(plain.head, HasSubstr("Content-Type: text/html"));
  EXPECT_THAT(plain.head, Not(HasSubstr("Content-Encoding")));
  EXPECT_THAT(plain.head,
              HasSubstr("Content-Security-Policy: default-src 'none'; script-src 'sha256-"));
  EXPECT_THAT(plain.head, HasSubstr("X-Content-Type-Options: nosniff"));
  EXPECT_THAT(plain.head, HasSubstr("Referrer-Policy: no-referrer"));
  EXPECT_THAT(plain.body, HasSubstr("<!doctype html>"));
  auto packed = c.get("/index.html", "Accept-Encoding: gzip\r\n");
  EXPECT_THAT(packed.head, HasSubstr("Content-Encoding: gzip"));
  EXPECT_EQ(gunzip(packed.body), plain.body);
  size_t at = packed.head.find("ETag: ") + 6;
  std::string tag = packed.head.substr(at, packed.head.find("\r\n", at) - at);
  auto same = c.get("/", "Accept-Encoding: gzip\r\nIf-None-Match: " + tag + "\r\n");
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.body, "");
  EXPECT_EQ(c.get("/", "If-None-Match: " + tag + "\r\n").status, 200);  // that was the packed one
}

TEST(Page, OnlyThisMachinesNameOpensIt) {
  TestServer server;
  for (const char* path : {"/", "/ui/config.json", "/ui/inside/x"}) {
    RawClient c(server.port);
    c.send(std::string("GET ") + path + " HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    EXPECT_EQ(c.response().status, 403) << path;
  }
  RawClient c(server.port);
  auto r = c.get("/ui/config.json", "Origin: http://evil.example\r\n");
  EXPECT_THAT(r.head, Not(HasSubstr("Access-Control-Allow-Origin")));
}

TEST(Page, ThisMachineHasManyNames) {
  for (const char* name :
       {"localhost", "LocalHost:8080", "localhost.", "http://localhost:5173", "127.0.0.1:80",
        "127.0.0.2", "[::1]", "[::1]:8080", "::1", "::ffff:127.0.0.1", "https://[::1]:1"})
    EXPECT_TRUE(names_loopback(name)) << name;
  for (const char* name : {"", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                           "http://evil.example:127", "0.0.0.0", "::", "[::2]", "10.0.0.1",
                           "::ffff:10.0.0.1", "127.1", "[", "]"})
    EXPECT_FALSE(names_loopback(name)) << name;
}

TEST(Page, TheConfigurationSaysWhatIsServed) {
  TestServer server;
  nlohmann::json j = RawClient(server.port).get("/ui/config.json").json();
  EXPECT_EQ(j["mode"], "chat");
  EXPECT_EQ(j["name"], "tiny");
  EXPECT_EQ(j["context"], 1024);
  EXPECT_EQ(j["auth"], false);
  EXPECT_EQ(j["experts"], 4);
  EXPECT_TRUE(j["prices"].is_null());
  ASSERT_EQ(j["models"].size(), 3u);
  EXPECT_EQ(j["models"][1]["id"], "deepseek-reasoner");
  EXPECT_EQ(j["models"][1]["thinking"], true);
  EXPECT_EQ(j["models"][2]["thinking"], false);
}

}  // namespace
}  // namespace wels
