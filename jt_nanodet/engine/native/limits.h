// The two floors of the machine, with the team and the vectors that the engine uses: multiply-adds from registers, and bytes streamed.
#pragma once
#include <omp.h>

#include "native/team.h"
#include "native/vec.h"

namespace jtn {

// The compiler may not look through this: it would compute only the lanes that are read, all chains of them in one vector.
template <int N> JTN_INLINE void keep_whole(V<N>& v) {
#if defined(__x86_64__) || defined(__i386__)
  asm volatile("" : "+x"(v));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(v));
#else
  asm volatile("" : "+m"(v));
#endif
}

// Multiply-adds per second of all members together, each on registers alone.
static double peak_multiply_adds(int threads, double for_seconds) {
  constexpr int N = WIDTH, CHAINS = 12;  // latency times width of every CPU at hand
  double total = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    V<N> sum[CHAINS], x = fill<N>(0.999f), y = fill<N>(1e-3f);
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) sum[c] = fill<N>(static_cast<float>(c));
    const double started = seconds();
    double done = 0.0, now;
    do {
      for (int i = 0; i < 20000; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) {
          sum[c] = sum[c] * x + y;
          keep_whole<N>(sum[c]);
        }
      }
      done += 20000.0 * CHAINS * N;
      now = seconds();
    } while (now - started < for_seconds);
    volatile float keep = 0.f;
#pragma GCC unroll 12
    for (int c = 0; c < CHAINS; c++) keep = keep + sum[c][0];
    total += done / (now - started);
  }
  return total;
}

// Bytes per second of a = b + 3·c over `floats` of each array a member: three streams, as STREAM's triad counts them.
static double triad_bytes(int threads, size_t floats, double for_seconds) {
  double total = 0.0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
  {
    Arena memory;
    float* a = memory.at_least(3 * floats + 64);
    const float *b = a + floats, *c = b + floats;
    const double started = seconds();
    double done = 0.0, now;
    do {
      for (size_t i = 0; i + WIDTH <= floats; i += WIDTH) store<WIDTH>(a + i, load<WIDTH>(b + i) + load<WIDTH>(c + i) * 3.f);
      done += 12.0 * floats;
      now = seconds();
    } while (now - started < for_seconds);
    total += done / (now - started);
  }
  return total;
}

}  // namespace jtn
