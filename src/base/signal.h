// Ctrl-C and SIGTERM as a polite request: long loops ask between steps, save and stop. The second
// one ends the program at once, for when the first got no answer.
#pragma once
#include "base/error.h"

namespace wels {

// While one lives, the first SIGINT or SIGTERM is noted (and said on stderr), the second exits with
// 128 + its number. The destructor puts the former handlers back and forgets the request. They
// nest: what the inner one was asked, the outer ones were asked too, and only the outermost forgets
// it. So a command of several parts holds one around all of them, and asks it before each.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  bool requested() const;
  int number() const;  // SIGINT or SIGTERM; 0: none came
};

// While one lives, Ctrl-C (SIGINT) is only noted, however often it comes: for answers in a
// conversation that goes on. SIGTERM keeps its meaning. One at a time, and not with a StopSignal
// (CHECK).
class InterruptSignal {
 public:
  InterruptSignal();
  ~InterruptSignal();
  InterruptSignal(const InterruptSignal&) = delete;
  bool requested() const;
};

// Whether the one of these that lives now has noted a signal.
bool stop_requested();

// Thrown by what may take long and was not waited for after a signal.
class Interrupted : public Error {
 public:
  Interrupted() : Error("stopped", "a signal came before the end") {}
};
void throw_if_stopped();  // Interrupted, if stop_requested()

}  // namespace wels
