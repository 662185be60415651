// Threads and signals: threads that leave those of the process alone, and one that ends system calls which would wait for somebody else. Header only: the engine uses it too.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

namespace tlspool {

// While it lives, threads that are made take none of the process's signals, which belong to Node's own. Faults are a thread's own: blocked, they would end the process without a word from a crash
// handler or a sanitizer.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// A timer whose signal comes to the thread that made it, and does nothing but interrupt what waits: accept(2) fails with EINTR, and a close(2) that waits for a peer goes on
// (inet_release of Linux). Belongs to that thread.
class Interrupter {
 public:
  Interrupter() {
    struct sigevent event {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal_number();
    event._sigev_un._tid = gettid();
    is_made_ = catch_signal() && timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
    if (!is_made_) return;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, signal_number());
    pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  }
  ~Interrupter() {
    if (is_made_) timer_delete(timer_);
  }
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;

  // Again and again: the first signal may come before the call. 0 stops it.
  void set(long interval_ns) {
    if (!is_made_) return;
    const itimerspec every{{0, interval_ns}, {0, interval_ns}};
    timer_settime(timer_, 0, &every, nullptr);
    runs_ = interval_ns != 0;
  }

  // For calls that come one after the other: it goes on behind them, and whoever waits otherwise stops it when it interrupts that.
  void keep(long interval_ns) {
    if (!runs_) set(interval_ns);
  }

 private:
  static int signal_number() { return SIGRTMIN + 7; }
  static void ignore(int) {}

  // A process that has a use of its own for the signal keeps it, and goes without this.
  static bool catch_signal() {
    struct sigaction now {};
    if (sigaction(signal_number(), nullptr, &now) != 0) return false;
    if (now.sa_handler == ignore) return true;
    if (now.sa_handler != SIG_DFL) return false;
    struct sigaction wanted {};
    wanted.sa_handler = ignore;
    return sigaction(signal_number(), &wanted, nullptr) == 0;
  }

  timer_t timer_{};
  bool is_made_ = false;
  bool runs_ = false;
};

}  // namespace tlspool
