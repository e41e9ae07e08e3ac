// Ctrl-C and SIGTERM as a polite request: long loops ask between steps, save and stop. The second
// one ends the program at once, for when the first got no answer.
#pragma once

namespace wels {

// While one lives, the first SIGINT or SIGTERM is noted (and said on stderr), the second exits with
// 128 + its number. The destructor puts the former handlers back and forgets the request. One at a
// time (CHECK).
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  bool requested() const;
  int number() const;  // SIGINT or SIGTERM; 0: none came
};

}  // namespace wels
