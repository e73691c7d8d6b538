// One parallel region for the whole network: a barrier between steps that spins for a bounded time and then sleeps, so that two processes on
// the same cores take turns instead of burning each other's share.
#pragma once
#include <atomic>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ctime>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <sched.h>
#endif

namespace jtn {

static inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

class Barrier {
  static constexpr int SPINS = 2000;  // some 30 to 100 µs: longer than a balanced step's imbalance, shorter than a time slice
  // a cache line apart; not alignas, which C++14's `new` does not keep
  std::atomic<int> arrived_{0};
  char apart1_[60];
  std::atomic<int> round_{0};
  char apart2_[60];
  std::atomic<int> asleep_{0};

 public:
  void wait(int members) {
    if (members == 1) return;
    const int round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_seq_cst);
      if (asleep_.load(std::memory_order_seq_cst)) wake();
      return;
    }
    for (int i = 0; i < SPINS; i++) {
      if (round_.load(std::memory_order_acquire) != round) return;
      pause_cpu();
    }
    asleep_.fetch_add(1, std::memory_order_seq_cst);
    while (round_.load(std::memory_order_seq_cst) == round) sleep(round);
    asleep_.fetch_sub(1, std::memory_order_seq_cst);
  }

 private:
#if defined(__linux__)
  void wake() { syscall(SYS_futex, reinterpret_cast<int*>(&round_), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
  void sleep(int round) { syscall(SYS_futex, reinterpret_cast<int*>(&round_), FUTEX_WAIT_PRIVATE, round, nullptr, nullptr, 0); }
#else
  void wake() {}
  void sleep(int) { sched_yield(); }
#endif
};

// Memory of one owner, aligned to a page and only ever growing; zeroed when it is new, so that no tail holds a NaN.
class Arena {
  float* data_ = nullptr;
  size_t floats_ = 0;

 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { std::free(data_); }
  float* at_least(size_t floats) {
    if (floats > floats_) {
      std::free(data_);
      const size_t bytes = (floats * 4 + 4095) / 4096 * 4096;
      void* found = nullptr;
      if (posix_memalign(&found, 4096, bytes)) std::abort();  // what the operating system does too when memory runs out
      std::memset(found, 0, bytes);
      data_ = static_cast<float*>(found);
      floats_ = floats;
    }
    return data_;
  }
};

static inline double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

}  // namespace jtn
