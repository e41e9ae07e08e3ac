#include "serve/accounts.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sqlite3.h>
#include <sys/random.h>

#include <cmath>
#include <deque>

#include "base/check.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/progress.h"
#include "serve/api_error.h"

namespace wels {
namespace {

constexpr int kVersion = 1;
constexpr double kPerToken = 1e6;  // a price per million, of a token, in 1e-12
constexpr double kDearest = 1e4;   // per million: the cost of 9e8 tokens is still an int64_t
constexpr int64_t kWhole = 1'000'000'000'000;

constexpr const char* kSchema = R"(
CREATE TABLE accounts(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_s INTEGER NOT NULL,
  granted INTEGER NOT NULL DEFAULT 0, paid INTEGER NOT NULL DEFAULT 0);
CREATE TABLE keys(
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES accounts(id),
  hash BLOB NOT NULL UNIQUE, label TEXT NOT NULL, ending TEXT NOT NULL, created_s INTEGER NOT NULL,
  revoked_s INTEGER NOT NULL DEFAULT 0, requests_per_minute INTEGER NOT NULL DEFAULT 0,
  tokens_per_minute INTEGER NOT NULL DEFAULT 0, concurrent INTEGER NOT NULL DEFAULT 0,
  requests INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0);
CREATE TABLE ledger(
  id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES accounts(id), key INTEGER,
  time_s INTEGER NOT NULL, kind TEXT NOT NULL, granted INTEGER NOT NULL, paid INTEGER NOT NULL,
  request TEXT, model TEXT, hit INTEGER, miss INTEGER, output INTEGER);
CREATE INDEX ledger_by_account ON ledger(account, id);
PRAGMA user_version = 1;
)";

int64_t now_s() { return static_cast<int64_t>(unix_seconds()); }

std::string sha256(std::string_view text) {
  std::string out(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(out.data()));
  return out;
}

int64_t per_token(double price_per_million, const char* flag) {
  if (!(price_per_million >= 0 && price_per_million <= kDearest))
    throw Error(flag, fmt::format("{} is no price", price_per_million),
                fmt::format("0 to {} per million", kDearest));
  return std::llround(price_per_million * kPerToken);
}

}  // namespace

// A prepared statement. Errors of SQLite are thrown as Error naming the file.
class Accounts::Statement {
 public:
  Statement(Accounts& a, const char* sql) : a_(a) {
    check(sqlite3_prepare_v2(a.db_, sql, -1, &s_, nullptr));
  }
  ~Statement() { sqlite3_finalize(s_); }
  Statement& bind(int64_t v) {
    check(sqlite3_bind_int64(s_, ++bound_, v));
    return *this;
  }
  Statement& bind(std::string_view v) {
    check(sqlite3_bind_text(s_, ++bound_, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT));
    return *this;
  }
  Statement& blob(std::string_view v) {
    check(sqlite3_bind_blob(s_, ++bound_, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT));
    return *this;
  }
  bool row() {  // false: no further one
    int r = sqlite3_step(s_);
    if (r == SQLITE_ROW) return true;
    if (r != SQLITE_DONE) check(r);
    return false;
  }
  void run() {
    while (row()) {
    }
  }
  int64_t number(int column) { return sqlite3_column_int64(s_, column); }
  std::string text(int column) {
    const void* data = sqlite3_column_blob(s_, column);
    return {static_cast<const char*>(data), static_cast<size_t>(sqlite3_column_bytes(s_, column))};
  }

 private:
  void check(int code) {
    if (code != SQLITE_OK)
      throw Error(a_.path_, sqlite3_errmsg(a_.db_), "is it a wels accounts file?");
  }
  Accounts& a_;
  sqlite3_stmt* s_ = nullptr;
  int bound_ = 0;
};

namespace {

// All or nothing; rolled back unless committed.
class Transaction {
 public:
  explicit Transaction(sqlite3* db, const std::string& path) : db_(db), path_(path) {
    run("BEGIN IMMEDIATE");
  }
  ~Transaction() {
    if (!done_) sqlite3_exec(db_, "ROLLBACK", nullptr, nullptr, nullptr);
  }
  void commit() {
    run("COMMIT");
    done_ = true;
  }

 private:
  void run(const char* sql) {
    if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK)
      throw Error(path_, sqlite3_errmsg(db_), "is the disk full, or another program writing?");
  }
  sqlite3* db_;
  const std::string& path_;
  bool done_ = false;
};

}  // namespace

// What a key has done in the last minute.
struct Accounts::Window {
  std::mutex mutex;
  std::deque<double> requests;
  std::deque<std::pair<double, int64_t>> tokens;
  int64_t concurrent = 0;
  void forget(double now) {
    while (!requests.empty() && requests.front() <= now - 60) requests.pop_front();
    while (!tokens.empty() && tokens.front().first <= now - 60) tokens.pop_front();
  }
};

std::string amount_text(int64_t amount) {
  std::string sign = amount < 0 ? "-" : "";
  uint64_t a = amount < 0 ? 0 - static_cast<uint64_t>(amount) : static_cast<uint64_t>(amount);
  std::string fraction = fmt::format("{:012}", a % kWhole);
  while (fraction.size() > 2 && fraction.back() == '0') fraction.pop_back();
  return fmt::format("{}{}.{}", sign, a / kWhole, fraction);
}

int64_t parse_amount(const std::string& text) {
  size_t used = 0;
  long double value = 0;
  try {
    value = std::stold(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  bool good = used == text.size() && used > 0 && std::isfinite(value) && std::fabs(value) <= 1e6L;
  if (!good)
    throw Error("amount", "'" + text + "' is none",
                "a number such as 10 or -2.50, at most 1000000");
  return std::llround(value * static_cast<long double>(kWhole));
}

Accounts::Accounts(const std::string& path, Prices prices)
    : path_(path),
      prices_(std::move(prices)),
      price_hit_(per_token(prices_.hit, "--price-hit")),
      price_miss_(per_token(prices_.miss, "--price-miss")),
      price_output_(per_token(prices_.output, "--price-output")) {
  int code =
      sqlite3_open_v2(path.c_str(), &db_,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  std::string why = sqlite3_errmsg(db_);
  if (code != SQLITE_OK) {
    sqlite3_close(db_);
    throw Error(path, "cannot open the accounts: " + why, "give a file that can be written");
  }
  sqlite3_busy_timeout(db_, 5000);
  try {
    migrate();
  } catch (...) {
    sqlite3_close(db_);
    throw;
  }
}

Accounts::~Accounts() { sqlite3_close(db_); }

void Accounts::migrate() {
  // Survives kill -9 with NORMAL; a power cut may lose the last charges, never their sums.
  Statement(*this, "PRAGMA journal_mode = WAL").run();
  Statement(*this, "PRAGMA synchronous = NORMAL").run();
  Statement(*this, "PRAGMA foreign_keys = ON").run();
  Transaction t(db_, path_);
  Statement version(*this, "PRAGMA user_version");
  version.row();
  if (version.number(0) == kVersion) return;
  Statement tables(*this, "SELECT count(*) FROM sqlite_master");
  tables.row();
  if (version.number(0) != 0 || tables.number(0) != 0) {
    throw Error(path_,
                fmt::format("is of version {}, this program reads {}", version.number(0), kVersion),
                "use the wels that made it, or another file");
  }
  version.row();
  tables.row();
  if (sqlite3_exec(db_, kSchema, nullptr, nullptr, nullptr) != SQLITE_OK)
    throw Error(path_, sqlite3_errmsg(db_));
  t.commit();
}

int64_t Accounts::account_id(const std::string& name, bool make) {
  if (make) {
    Statement(*this, "INSERT OR IGNORE INTO accounts(name, created_s) VALUES(?, ?)")
        .bind(name)
        .bind(now_s())
        .run();
  }
  Statement s(*this, "SELECT id FROM accounts WHERE name = ?");
  s.bind(name);
  if (!s.row()) throw Error("account", "there is no '" + name + "'", "wels keys list shows all");
  return s.number(0);
}

std::string Accounts::create_key(const std::string& account, const std::string& label,
                                 KeyLimits l) {
  if (account.empty()) throw Error("account", "has no name", "give one");
  uint8_t random[32];
  CHECK(::getrandom(random, sizeof random, 0) == ssize_t{sizeof random});
  std::string key = "sk-";
  for (uint8_t b : random) key += fmt::format("{:02x}", b);
  std::lock_guard lock(mutex_);
  Transaction t(db_, path_);
  int64_t id = account_id(account, true);
  Statement(*this,
            "INSERT INTO keys(account, hash, label, ending, created_s, requests_per_minute, "
            "tokens_per_minute, concurrent) VALUES(?, ?, ?, ?, ?, ?, ?, ?)")
      .bind(id)
      .blob(sha256(key))
      .bind(label)
      .bind(key.substr(key.size() - 4))
      .bind(now_s())
      .bind(l.requests_per_minute)
      .bind(l.tokens_per_minute)
      .bind(l.concurrent)
      .run();
  t.commit();
  return key;
}

std::vector<Accounts::Key> Accounts::list_keys() {
  std::lock_guard lock(mutex_);
  Statement s(*this,
              "SELECT k.id, a.name, k.label, k.ending, k.created_s, k.revoked_s, "
              "k.requests_per_minute, k.tokens_per_minute, k.concurrent, a.granted, a.paid, "
              "k.requests, k.tokens FROM keys k JOIN accounts a ON a.id = k.account ORDER BY k.id");
  std::vector<Key> out;
  while (s.row()) {
    out.push_back({s.number(0),
                   s.text(1),
                   s.text(2),
                   s.text(3),
                   s.number(4),
                   s.number(5),
                   {s.number(6), s.number(7), s.number(8)},
                   {s.number(9), s.number(10)},
                   s.number(11),
                   s.number(12)});
  }
  return out;
}

Accounts::Key Accounts::revoke_key(const std::string& which) {
  std::vector<Key> found;
  for (const Key& k : list_keys()) {
    if (std::to_string(k.id) == which || (which.size() >= 4 && which.ends_with(k.ending)))
      found.push_back(k);
  }
  if (found.size() != 1) {
    throw Error("key", fmt::format("'{}' fits {} keys", which, found.size()),
                "wels keys list shows the numbers");
  }
  std::lock_guard lock(mutex_);
  Statement(*this, "UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s = 0")
      .bind(now_s())
      .bind(found[0].id)
      .run();
  return found[0];
}

Balance Accounts::credit(const std::string& account, int64_t amount, bool granted) {
  std::lock_guard lock(mutex_);
  Transaction t(db_, path_);
  int64_t id = account_id(account, false), g = granted ? amount : 0, p = granted ? 0 : amount;
  Statement(*this,
            "INSERT INTO ledger(account, time_s, kind, granted, paid) VALUES(?, ?, 'credit', ?, ?)")
      .bind(id)
      .bind(now_s())
      .bind(g)
      .bind(p)
      .run();
  Statement(*this, "UPDATE accounts SET granted = granted + ?, paid = paid + ? WHERE id = ?")
      .bind(g)
      .bind(p)
      .bind(id)
      .run();
  Balance b;
  {
    Statement s(*this, "SELECT granted, paid FROM accounts WHERE id = ?");
    s.bind(id).row();
    b = {s.number(0), s.number(1)};
  }
  t.commit();
  return b;
}

bool Accounts::adds_up() {
  std::lock_guard lock(mutex_);
  Statement s(
      *this,
      "SELECT count(*) FROM accounts a WHERE a.granted != (SELECT coalesce(sum(granted), 0) "
      "FROM ledger WHERE account = a.id) OR a.paid != (SELECT coalesce(sum(paid), 0) FROM "
      "ledger WHERE account = a.id)");
  s.row();
  return s.number(0) == 0;
}

std::optional<Accounts::Caller> Accounts::find(std::string_view key) {
  // Only the hash is looked up: how long that takes says nothing of the key itself.
  std::string hash = sha256(key);
  std::lock_guard lock(mutex_);
  Statement s(*this,
              "SELECT id, account, hash, requests_per_minute, tokens_per_minute, concurrent FROM "
              "keys WHERE hash = ? AND revoked_s = 0");
  s.blob(hash);
  if (!s.row()) return std::nullopt;
  std::string stored = s.text(2);
  if (stored.size() != hash.size() || CRYPTO_memcmp(stored.data(), hash.data(), hash.size()) != 0)
    return std::nullopt;
  return Caller{s.number(0), s.number(1), {s.number(3), s.number(4), s.number(5)}};
}

Balance Accounts::balance(const Caller& caller) {
  std::lock_guard lock(mutex_);
  Statement s(*this, "SELECT granted, paid FROM accounts WHERE id = ?");
  s.bind(caller.account).row();
  return {s.number(0), s.number(1)};
}

std::shared_ptr<void> Accounts::begin(const Caller& caller) {
  bool costs = price_hit_ > 0 || price_miss_ > 0 || price_output_ > 0;
  if (costs && balance(caller).total() <= 0) throw insufficient_balance();
  std::shared_ptr<Window> w;
  {
    std::lock_guard lock(mutex_);
    auto& slot = windows_[caller.key];
    if (!slot) slot = std::make_shared<Window>();
    w = slot;
  }
  const KeyLimits& l = caller.limits;
  std::lock_guard lock(w->mutex);
  double now = monotonic_seconds();
  w->forget(now);
  auto wait = [&](double since) {
    return std::max(1, static_cast<int>(std::ceil(since + 60 - now)));
  };
  if (l.concurrent > 0 && w->concurrent >= l.concurrent)
    throw rate_limited(fmt::format("Rate limit reached: {} requests at once", l.concurrent), 1);
  if (l.requests_per_minute > 0 &&
      static_cast<int64_t>(w->requests.size()) >= l.requests_per_minute) {
    throw rate_limited(
        fmt::format("Rate limit reached: {} requests per minute", l.requests_per_minute),
        wait(w->requests.front()));
  }
  int64_t tokens = 0;
  for (const auto& [at, n] : w->tokens) tokens += n;
  if (l.tokens_per_minute > 0 && tokens >= l.tokens_per_minute) {
    throw rate_limited(fmt::format("Rate limit reached: {} tokens per minute", l.tokens_per_minute),
                       wait(w->tokens.front().first));
  }
  if (l.requests_per_minute > 0) w->requests.push_back(now);
  ++w->concurrent;
  return std::shared_ptr<void>(nullptr, [w](void*) {
    std::lock_guard release(w->mutex);
    --w->concurrent;
  });
}

void Accounts::charge(const Caller& c, const std::string& request_id, const std::string& model,
                      const Usage& u) {
  int64_t miss = u.prompt - u.cached, tokens = u.prompt + u.completion;
  int64_t cost = u.cached * price_hit_ + miss * price_miss_ + u.completion * price_output_;
  std::lock_guard lock(mutex_);
  if (c.limits.tokens_per_minute > 0) {
    auto& w = windows_[c.key];
    if (!w) w = std::make_shared<Window>();
    std::lock_guard window(w->mutex);
    w->tokens.emplace_back(monotonic_seconds(), tokens);
  }
  Transaction t(db_, path_);
  int64_t granted = 0;
  {
    Statement s(*this, "SELECT granted FROM accounts WHERE id = ?");
    s.bind(c.account).row();
    granted = std::min(cost, std::max<int64_t>(s.number(0), 0));  // what was given goes first
  }
  Statement(*this,
            "INSERT INTO ledger(account, key, time_s, kind, granted, paid, request, model, hit, "
            "miss, output) VALUES(?, ?, ?, 'usage', ?, ?, ?, ?, ?, ?, ?)")
      .bind(c.account)
      .bind(c.key)
      .bind(now_s())
      .bind(-granted)
      .bind(granted - cost)
      .bind(request_id)
      .bind(model)
      .bind(u.cached)
      .bind(miss)
      .bind(u.completion)
      .run();
  Statement(*this, "UPDATE accounts SET granted = granted - ?, paid = paid - ? WHERE id = ?")
      .bind(granted)
      .bind(cost - granted)
      .bind(c.account)
      .run();
  Statement(*this, "UPDATE keys SET requests = requests + 1, tokens = tokens + ? WHERE id = ?")
      .bind(tokens)
      .bind(c.key)
      .run();
  t.commit();
}

}  // namespace wels
