// wels keys: the accounts file of wels serve.
#include <fmt/format.h>

#include "apps/commands.h"
#include "base/error.h"
#include "base/machine.h"
#include "serve/accounts.h"

namespace wels {
namespace {

struct KeysFlags {
  std::string file, account, label, which, amount;
  KeyLimits limits;
  bool granted = false;
};

int create(const KeysFlags& f) {
  std::string key = Accounts(f.file, {}).create_key(f.account, f.label, f.limits);
  fmt::print("{}\n", key);
  fmt::print(stderr, "this is the only time that the key is shown\n");
  return 0;
}

int list(const KeysFlags& f) {
  Accounts accounts(f.file, {});
  fmt::print("{:>4}  {:20} {:16} {:8} {:20} {:>10} {:>12} {:>14}  {}\n", "no", "account", "label",
             "key", "created", "requests", "tokens", "balance", "limits");
  for (const Accounts::Key& k : accounts.list_keys()) {
    std::string limits;
    auto limit = [&](int64_t n, const char* unit) {
      if (n > 0) limits += fmt::format("{}{} {}", limits.empty() ? "" : ", ", n, unit);
    };
    limit(k.limits.requests_per_minute, "requests/min");
    limit(k.limits.tokens_per_minute, "tokens/min");
    limit(k.limits.concurrent, "at once");
    if (k.revoked_s > 0)
      limits = "revoked " + utc_date(static_cast<double>(k.revoked_s)).substr(0, 10);
    fmt::print("{:>4}  {:20} {:16} ...{:5} {:20} {:>10} {:>12} {:>14}  {}\n", k.id, k.account,
               k.label, k.ending, utc_date(static_cast<double>(k.created_s)).substr(0, 19),
               k.requests, k.tokens, amount_text(k.balance.total()), limits);
  }
  if (!accounts.adds_up())
    throw Error(f.file, "a balance is not the sum of its ledger", "restore the file from a copy");
  return 0;
}

int revoke(const KeysFlags& f) {
  Accounts::Key k = Accounts(f.file, {}).revoke_key(f.which);
  fmt::print("revoked key {} of {}\n", k.id, k.account);
  return 0;
}

int credit(const KeysFlags& f) {
  Balance b = Accounts(f.file, {}).credit(f.account, parse_amount(f.amount), f.granted);
  fmt::print("{} has {}\n", f.account, amount_text(b.total()));
  return 0;
}

}  // namespace

void add_keys(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("keys", "API keys and balances of wels serve --keys");
  auto f = std::make_shared<KeysFlags>();
  sub->require_subcommand(1);
  auto action = [&](const char* name, const char* help, int (*fn)(const KeysFlags&)) {
    CLI::App* a = sub->add_subcommand(name, help);
    a->add_option("file", f->file, "the accounts file, made if missing")->required();
    a->callback([f, fn, &run] { run = [f, fn] { return fn(*f); }; });
    return a;
  };
  CLI::App* c = action("create", "a new key, printed once", create);
  c->add_option("account", f->account, "whose it is; made if missing")->required();
  c->add_option("--label", f->label, "a name for the key");
  for (auto [flag, value, help] :
       {std::tuple{"--requests-per-minute", &f->limits.requests_per_minute, "0: no limit"},
        std::tuple{"--tokens-per-minute", &f->limits.tokens_per_minute, "0: no limit"},
        std::tuple{"--concurrent", &f->limits.concurrent, "requests at once, 0: no limit"}}) {
    c->add_option(flag, *value, help)->check(CLI::NonNegativeNumber)->capture_default_str();
  }
  action("list", "all keys, their use and balances", list);
  action("revoke", "a key is valid no more", revoke)
      ->add_option("key", f->which, "its number or last four characters")
      ->required();
  CLI::App* p = action("credit", "add to an account's balance", credit);
  p->add_option("account", f->account, "whose")->required();
  p->add_option("amount", f->amount, "in the server's currency; negative: take off")->required();
  p->add_flag("--granted", f->granted, "given, not paid; used up first");
}

}  // namespace wels
