#include "base/signal.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

#include "base/check.h"

namespace wels {
namespace {

// A handler can only reach what has static storage; lock-free atomics are what it may touch.
std::atomic<int> caught{0};
std::atomic<int> stops{0};               // StopSignals that live
std::atomic<bool> interruptible{false};  // an InterruptSignal lives
static_assert(std::atomic<int>::is_always_lock_free);
struct sigaction old_int, old_term;

void on_signal(int number) {
  int none = 0;
  if (!caught.compare_exchange_strong(none, number)) ::_exit(128 + number);
  constexpr char kText[] = "\nstopping cleanly; once more to stop at once\n";
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, kText, sizeof kText - 1);
}

void on_interrupt(int number) { caught = number; }

}  // namespace

StopSignal::StopSignal() {
  CHECK(!interruptible);
  if (stops++ > 0) return;
  caught = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // file writes under way are not cut short
  ::sigemptyset(&action.sa_mask);
  CHECK(::sigaction(SIGINT, &action, &old_int) == 0);
  CHECK(::sigaction(SIGTERM, &action, &old_term) == 0);
}

StopSignal::~StopSignal() {
  if (--stops > 0) return;
  ::sigaction(SIGINT, &old_int, nullptr);
  ::sigaction(SIGTERM, &old_term, nullptr);
  caught = 0;
}

bool StopSignal::requested() const { return caught != 0; }
int StopSignal::number() const { return caught; }

InterruptSignal::InterruptSignal() {
  CHECK(stops == 0);
  CHECK(!interruptible.exchange(true));
  caught = 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  CHECK(::sigaction(SIGINT, &action, &old_int) == 0);
}

InterruptSignal::~InterruptSignal() {
  ::sigaction(SIGINT, &old_int, nullptr);
  caught = 0;
  interruptible = false;
}

bool InterruptSignal::requested() const { return caught != 0; }

bool stop_requested() { return caught != 0; }

void throw_if_stopped() {
  if (stop_requested()) throw Interrupted();
}

}  // namespace wels
