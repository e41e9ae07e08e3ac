#include "serve/accounts.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "serve/api_error.h"
#include "serve/fixture_test.h"

namespace wels {
namespace {

using testing::HasSubstr;

struct AccountsTest : testing::Test {
  AccountsTest() : folder(testing::TempDir() + "wels_accounts_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder);
    path = folder + "/accounts.db";
  }
  ~AccountsTest() override { std::filesystem::remove_all(folder); }
  std::string folder, path;
  Prices prices{0.014, 0.14, 0.28, "USD"};
};

int status_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const ApiError& e) {
    return e.response().status;
  }
  return 200;
}

TEST(Amounts, AreExactDecimals) {
  EXPECT_EQ(amount_text(0), "0.00");
  EXPECT_EQ(amount_text(parse_amount("110")), "110.00");
  EXPECT_EQ(amount_text(parse_amount("-2.5")), "-2.50");
  EXPECT_EQ(amount_text(140'000), "0.00000014");
  for (const char* bad : {"", "x", "1x", "nan", "inf", "1e9"})
    EXPECT_THROW(parse_amount(bad), Error) << bad;
}

TEST_F(AccountsTest, AKeyOpensItsAccountUntilItIsRevoked) {
  Accounts a(path, prices);
  std::string key = a.create_key("alice", "laptop", {});
  EXPECT_THAT(key, testing::MatchesRegex("sk-[0-9a-f]{64}"));
  ASSERT_TRUE(a.find(key));
  EXPECT_FALSE(a.find(key.substr(0, key.size() - 1)));
  EXPECT_FALSE(a.find(""));
  // Only the hash is in the file.
  std::ifstream file(path + "-wal", std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  EXPECT_THAT(bytes, HasSubstr("laptop"));
  EXPECT_EQ(bytes.find(key), std::string::npos);
  EXPECT_THROW(a.revoke_key("zzzz"), Error);
  a.revoke_key(key.substr(key.size() - 4));
  EXPECT_FALSE(a.find(key));
  EXPECT_GT(a.list_keys().at(0).revoked_s, 0);
}

TEST_F(AccountsTest, ChargesAreExactAndGrantedMoneyGoesFirst) {
  Accounts a(path, prices);
  auto caller = *a.find(a.create_key("bob", "", {}));
  EXPECT_EQ(status_of([&] { a.begin(caller); }), 402);
  a.credit("bob", 1'000'000, true);
  a.credit("bob", parse_amount("1"), false);
  EXPECT_EQ(status_of([&] { a.begin(caller); }), 200);
  a.charge(caller, "r", "m", {.prompt = 100, .cached = 64, .completion = 10, .reasoning = 3});
  int64_t cost = 64 * 14'000 + 36 * 140'000 + 10 * 280'000;
  EXPECT_EQ(a.balance(caller).granted, 0);
  EXPECT_EQ(a.balance(caller).paid, parse_amount("1") + 1'000'000 - cost);
  EXPECT_TRUE(a.adds_up());
  EXPECT_EQ(a.list_keys().at(0).tokens, 110);
  EXPECT_THROW(a.credit("nobody", 1, false), Error);
}

TEST_F(AccountsTest, LimitsAreKeptForEachKey) {
  Accounts a(path, {});
  auto two = *a.find(a.create_key("c", "", {.requests_per_minute = 2}));
  EXPECT_EQ(status_of([&] { a.begin(two); }), 200);
  EXPECT_EQ(status_of([&] { a.begin(two); }), 200);
  EXPECT_EQ(status_of([&] { a.begin(two); }), 429);
  auto one = *a.find(a.create_key("c", "", {.concurrent = 1}));
  std::shared_ptr<void> ticket = a.begin(one);
  EXPECT_EQ(status_of([&] { a.begin(one); }), 429);
  ticket.reset();
  EXPECT_EQ(status_of([&] { a.begin(one); }), 200);
  auto tokens = *a.find(a.create_key("c", "", {.tokens_per_minute = 50}));
  a.charge(tokens, "r", "m", {.prompt = 40, .cached = 0, .completion = 11, .reasoning = 0});
  EXPECT_EQ(status_of([&] { a.begin(tokens); }), 429);
}

TEST_F(AccountsTest, TheLedgerAddsUpAfterAKill) {
  std::string key;
  {
    Accounts a(path, prices);
    key = a.create_key("d", "", {});
    a.credit("d", parse_amount("100"), false);
  }
  for (int round = 0; round < 5; ++round) {
    int charged[2];
    ASSERT_EQ(::pipe(charged), 0);
    pid_t child = ::fork();
    if (child == 0) {
      Accounts a(path, prices);
      auto caller = *a.find(key);
      for (bool told = false;; told = told || ::write(charged[1], "x", 1) == 1)
        a.charge(caller, "r", "m", {.prompt = 7, .cached = 0, .completion = 3, .reasoning = 0});
    }
    char first;
    ASSERT_EQ(::read(charged[0], &first, 1), 1);
    for (int end : charged) ::close(end);
    ::usleep(30'000 + 7'000 * static_cast<unsigned>(round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    Accounts a(path, prices);
    EXPECT_TRUE(a.adds_up());
    Accounts::Key k = a.list_keys().at(0);
    EXPECT_EQ(k.balance.paid, parse_amount("100") - k.requests * (7 * 140'000 + 3 * 280'000));
    EXPECT_GT(k.requests, round);
  }
}

TEST_F(AccountsTest, AFileThatIsNoAccountsFileIsRefused) {
  std::ofstream(path) << "this is a text, and one that is long enough to be looked at by SQLite";
  EXPECT_THROW(Accounts(path, {}), Error);
  EXPECT_THROW(Accounts(folder + "/none/there.db", {}), Error);
  EXPECT_THROW(Accounts(folder + "/p.db", {-1, 0, 0}), Error);
}

TEST_F(AccountsTest, TheLargestRequestAtTheDearestPriceIsBookedExactly) {
  Accounts a(path, {1e4, 1e4, 1e4});
  std::string key = a.create_key("a", "", {});
  constexpr int64_t kTokens = 1 << 24;
  a.charge(*a.find(key), "r", "m", {.prompt = kTokens, .cached = 5, .completion = kTokens});
  EXPECT_EQ(a.balance(*a.find(key)).total(), -2 * kTokens * 10'000'000'000);
  EXPECT_TRUE(a.adds_up());
  try {
    Accounts dearer(path, {0, 10'001, 0});
    ADD_FAILURE() << "not refused";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("--price-miss: 10001 is no price; 0 to 10000 per million"));
  }
}

TEST_F(AccountsTest, TheServerAsksForKeysAndBooksWhatTheyUse) {
  Accounts a(path, prices);
  std::string key = a.create_key("e", "", {});
  TestServerOptions o;
  o.accounts = &a;
  TestServer server(o);
  RawClient c(server.port);
  std::string body =
      R"({"model":"deepseek-chat","max_tokens":5,"messages":[{"role":"user","content":"hi"}]})";
  // Without a key, before the body is read.
  RawClient nobody(server.port);
  RawClient::Response r = nobody.post("/chat/completions", body);
  EXPECT_EQ(r.status, 401);
  EXPECT_EQ(r.body, "Authentication Fails (governor)");
  EXPECT_THAT(r.head, testing::Not(HasSubstr("Content-Type")));
  r = c.post("/chat/completions", body, "Authorization: Bearer sk-wrong0000\r\n");
  EXPECT_EQ(r.status, 401);
  EXPECT_EQ(r.json()["error"]["message"],
            "Authentication Fails, Your api key: ****0000 is invalid");
  EXPECT_EQ(r.json()["error"]["type"], "authentication_error");
  EXPECT_EQ(
      RawClient(server.port).post("/chat/completions", body, "Authorization: Basic x\r\n").status,
      401);
  std::string bearer = "Authorization: Bearer " + key + "\r\n";
  r = c.post("/chat/completions", body, bearer);
  EXPECT_EQ(r.status, 402);
  EXPECT_EQ(r.json()["error"]["message"], "Insufficient Balance");
  a.credit("e", parse_amount("2"), false);
  r = c.post("/chat/completions", body, bearer);
  ASSERT_EQ(r.status, 200) << r.body;
  auto u = r.json()["usage"];
  int64_t cost =
      u["prompt_tokens"].get<int64_t>() * 140'000 + u["completion_tokens"].get<int64_t>() * 280'000;
  EXPECT_EQ(c.get("/user/balance", bearer).json()["balance_infos"][0]["total_balance"],
            amount_text(parse_amount("2") - cost));
  r = c.post("/anthropic/v1/messages", body, "x-api-key: " + key + "\r\n");
  EXPECT_EQ(r.status, 200) << r.body;
  EXPECT_TRUE(a.adds_up());
  EXPECT_EQ(a.list_keys().at(0).requests, 2);
}

}  // namespace
}  // namespace wels
