// Error: bad input (file, flag, request, checkpoint). Says where, what is wrong and what to do.
// Thrown anywhere, caught in two places only: the command line's main and the request handler. Bugs
// of ours are CHECKs instead.
#pragma once
#include <stdexcept>
#include <string>

namespace wels {

class Error : public std::runtime_error {
 public:
  // where: file, flag or field ("config.json", "--lr"); what: the fact, with values; hint: what
  // would work.
  Error(std::string where, std::string what, std::string hint = "")
      : std::runtime_error(where + ": " + what + (hint.empty() ? "" : "; " + hint)),
        where_(std::move(where)),
        what_(std::move(what)),
        hint_(std::move(hint)) {}
  const std::string& where() const { return where_; }
  const std::string& fact() const { return what_; }
  const std::string& hint() const { return hint_; }

 private:
  std::string where_, what_, hint_;
};

}  // namespace wels
