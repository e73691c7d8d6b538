// One parallel region for the whole network, in stages. Waiting is spinning for a bounded time and then sleep, and a share of work is taken by
// whoever has a processor, so that two processes on the same cores take turns instead of burning each other's time.
#pragma once
#include <atomic>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include <sched.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace jtn {

static inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

static inline double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// How a member waits: a few microseconds of spinning for what is as good as there; then the processor is offered to others, which costs little
// where nobody wants it; then sleep until woken. Never longer than SPIN + YIELD seconds awake.
struct Patience {
  static constexpr double SPIN = 5e-6, YIELD = 50e-6;
  static constexpr int PAUSES = 16;  // between two looks at the clock

  // Calls ready() until it is true or the patience is at its end; what it said last.
  template <class F> static bool wait(F&& ready) {
    if (ready()) return true;
    const double started = seconds();
    for (double now = started; now - started < SPIN; now = seconds())
      for (int i = 0; i < PAUSES; i++) {
        if (ready()) return true;
        pause_cpu();
      }
    while (!ready()) {
      if (seconds() - started > SPIN + YIELD) return false;
      sched_yield();
    }
    return true;
  }
};

// The work of a team, stage by stage: each stage has a share for every member, and ends when all of them are done. A member takes its own share
// first and then what others have not begun, so a member that is without a processor holds up no one but for the share it was computing.
class Stages {
  static constexpr int LINE = 64;  // bytes apart; not alignas, which C++14's `new` does not keep
  struct Counter {
    std::atomic<int> value{0};
    char apart[LINE - sizeof(int)];
  };
  Counter ended_, done_, asleep_;
  double* ends_ = nullptr;
  std::vector<Counter> begun_;  // share -> the last stage of which somebody took it

 public:
  // Before the members start, by one thread. Should fewer come than there are shares, they do the work of all.
  // ends: where the second at which each stage ended is written, for stage 1 at [0]; null where it is not asked for.
  void start(int shares, double* ends = nullptr) {
    begun_ = std::vector<Counter>(shares);
    ends_ = ends;
    ended_.value.store(0), done_.value.store(0), asleep_.value.store(0);
  }

  // compute(share) for the shares of `stage` (1, 2, …, in order) that member `rank` gets; returns when all shares of the stage are done.
  template <class F> void run(int stage, int rank, F&& compute) {
    const int shares = static_cast<int>(begun_.size());
    for (int i = 0; i < shares; i++) {
      const int share = (rank + i) % shares;
      int before = stage - 1;
      std::atomic<int>& begun = begun_[share].value;
      if (begun.load(std::memory_order_relaxed) != before || !begun.compare_exchange_strong(before, stage, std::memory_order_acq_rel)) continue;
      compute(share);
      if (done_.value.fetch_add(1, std::memory_order_acq_rel) == shares - 1) end(stage);
    }
    wait(stage);
  }

 private:
  void end(int stage) {
    if (ends_) ends_[stage - 1] = seconds();
    done_.value.store(0, std::memory_order_relaxed);
    ended_.value.store(stage, std::memory_order_seq_cst);
    if (asleep_.value.load(std::memory_order_seq_cst)) wake();
  }
  void wait(int stage) {
    if (Patience::wait([&] { return ended_.value.load(std::memory_order_acquire) >= stage; })) return;
    asleep_.value.fetch_add(1, std::memory_order_seq_cst);
    for (int now; (now = ended_.value.load(std::memory_order_seq_cst)) < stage;) sleep(now);
    asleep_.value.fetch_sub(1, std::memory_order_seq_cst);
  }
#if defined(__linux__)
  long futex(int what, int value) { return syscall(SYS_futex, reinterpret_cast<int*>(&ended_.value), what, value, nullptr, nullptr, 0); }
  void wake() { futex(FUTEX_WAKE_PRIVATE, INT_MAX); }
  void sleep(int now) { futex(FUTEX_WAIT_PRIVATE, now); }
#else
  void wake() {}
  void sleep(int) {
    const timespec moment = {0, 50000};
    nanosleep(&moment, nullptr);
  }
#endif
};

// Memory of one owner, aligned to a page and only ever growing; zeroed when it is new, so that no tail holds a NaN. Much memory asks for large pages:
// a convolution walks over some hundred planes at once, more than the processor remembers pages of 4 KiB.
class Arena {
  static constexpr size_t PAGE = 4096, LARGE_PAGE = 1 << 21;
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
      const size_t page = floats * 4 < LARGE_PAGE ? PAGE : LARGE_PAGE, bytes = (floats * 4 + page - 1) / page * page;
      void* found = nullptr;
      if (posix_memalign(&found, page, bytes)) std::abort();  // what the operating system does too when memory runs out
#if defined(__linux__)
      if (page == LARGE_PAGE) madvise(found, bytes, MADV_HUGEPAGE);  // a wish; without it everything works, more slowly
#endif
      std::memset(found, 0, bytes);
      data_ = static_cast<float*>(found);
      floats_ = floats;
    }
    return data_;
  }
};

}  // namespace jtn
