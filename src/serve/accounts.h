// Accounts in SQLite: API keys, limits, balances and a ledger of every charge.
//
// Amounts are whole millionths of a millionth of the currency: a price of 0.14 per million tokens
// is 140,000 for each token, so charges are exact sums. A charge is one transaction that writes the
// ledger and the balance together; after a crash an account's balance is the sum of its ledger.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "serve/generation.h"

struct sqlite3;

namespace wels {

// Per million tokens, in the accounts' currency.
struct Prices {
  double hit = 0, miss = 0, output = 0;
  std::string currency = "USD";
};

// 0: no limit.
struct KeyLimits {
  int64_t requests_per_minute = 0, tokens_per_minute = 0, concurrent = 0;
};

struct Balance {
  int64_t granted = 0, paid = 0;  // in 1e-12
  int64_t total() const { return granted + paid; }
};

// "110.00": to hundredths, more digits where there are more.
std::string amount_text(int64_t amount);
// Throws Error where it is no amount.
int64_t parse_amount(const std::string& text);

class Accounts {
 public:
  // Makes the file if there is none. Throws Error: no SQLite file, another version, no permission.
  Accounts(const std::string& path, Prices prices);
  ~Accounts();
  Accounts(const Accounts&) = delete;

  // --- wels keys ---
  struct Key {
    int64_t id = 0;
    std::string account, label, ending;    // its last four characters
    int64_t created_s = 0, revoked_s = 0;  // 0: not revoked
    KeyLimits limits;
    Balance balance;  // of the account
    int64_t requests = 0, tokens = 0;
  };
  // A new key, which is shown this once: only its hash is kept. The account is made if missing.
  std::string create_key(const std::string& account, const std::string& label, KeyLimits limits);
  std::vector<Key> list_keys();
  // By number or by the last four characters. Throws Error where that is none, or several.
  Key revoke_key(const std::string& which);
  Balance credit(const std::string& account, int64_t amount, bool granted);
  // Whether every account's balance is the sum of its ledger.
  bool adds_up();

  // --- the server ---
  struct Caller {
    int64_t key = 0, account = 0;
    KeyLimits limits;
  };
  // The owner of a key; nullopt: there is no such key.
  std::optional<Caller> find(std::string_view key);
  // Counts a request against the key's limits until the ticket is gone. Throws ApiError: 429 beyond
  // a limit, 402 where the balance is spent (only if anything costs).
  std::shared_ptr<void> begin(const Caller& caller);
  void charge(const Caller& caller, const std::string& request_id, const std::string& model,
              const Usage& usage);
  Balance balance(const Caller& caller);
  const Prices& prices() const { return prices_; }

 private:
  class Statement;
  struct Window;
  void migrate();
  int64_t account_id(const std::string& name, bool make);
  std::string path_;
  Prices prices_;
  int64_t price_hit_, price_miss_, price_output_;  // in 1e-12 a token
  sqlite3* db_ = nullptr;
  std::mutex mutex_;
  std::map<int64_t, std::shared_ptr<Window>> windows_;  // by key
};

}  // namespace wels
