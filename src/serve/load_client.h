// Many clients of a server at once, on one thread: for measuring what `wels serve` bears, and for
// tests that no stream stalls, loses or repeats anything.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace wels {

// One client: asks its requests one after another, each on a connection of its own.
struct LoadClient {
  std::vector<std::string> bodies = {};  // JSON, with "stream": true or without
  double bytes_per_s = 0;                // reads no faster; 0: as fast as it can
  int64_t leaves_after = -1;  // events with text, then it closes the connection; -1: it stays
};

struct LoadStream {
  size_t client = 0, request = 0;
  int status = 0;         // 0: no answer
  bool done = false;      // "[DONE]" was the last, or the answer came as a whole
  bool left = false;      // by the client's own choice
  std::string text = {};  // reasoning and content as they came
  int64_t prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;  // as usage says
  double first_s = 0;               // from the request to the first text
  double total_s = 0;               // to the end
  std::vector<double> gaps_s = {};  // between reads that brought text
};

struct LoadTarget {
  std::string address = "127.0.0.1";
  int port = 0;
  std::string path = "/chat/completions";
  std::string key = {};    // Bearer; empty: none
  double give_up_s = 600;  // for all of it; streams that are not done then are not `done`
};

// All clients at once until every one has had its requests. By client, then request. Throws Error
// where nobody listens.
std::vector<LoadStream> run_load(const LoadTarget& target, std::vector<LoadClient> clients);

// The value below which the share q (0 to 1) of `values` lies; 0 of none. Sorts them.
double quantile(std::vector<double>& values, double q);

}  // namespace wels
