// Vectors of N floats by GCC's vector extensions: the compiler maps them to AVX-512, AVX2, SSE or NEON, so there is one source for all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace jtn {

#if defined(JTN_FORCE_WIDTH)
constexpr int WIDTH = JTN_FORCE_WIDTH;  // tests run every width on one machine
#elif defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int REGISTERS = 32;
#else
constexpr int REGISTERS = 16;
#endif

template <int N> struct Vec;
#define JTN_VEC(N)                                                                                  \
  template <> struct Vec<N> {                                                                       \
    typedef float type __attribute__((vector_size(4 * N)));                                         \
    typedef float loose __attribute__((vector_size(4 * N), aligned(4), may_alias));                 \
    typedef int32_t ints __attribute__((vector_size(4 * N)));                                       \
  };
JTN_VEC(4)
JTN_VEC(8)
JTN_VEC(16)
#undef JTN_VEC

template <int N> using V = typename Vec<N>::type;

#define JTN_INLINE static inline __attribute__((always_inline))

template <int N> JTN_INLINE V<N> load(const float* p) { return *reinterpret_cast<const typename Vec<N>::loose*>(p); }
template <int N> JTN_INLINE void store(float* p, V<N> v) { *reinterpret_cast<typename Vec<N>::loose*>(p) = v; }
template <int N> JTN_INLINE V<N> fill(float x) { return V<N>{} + x; }
// `a > b ? a : b`, as MAXPS does: the second operand where either is NaN
template <int N> JTN_INLINE V<N> larger(V<N> a, V<N> b) { return a > b ? a : b; }
template <int N> JTN_INLINE V<N> smaller(V<N> a, V<N> b) { return a < b ? a : b; }

// Every second element of the 2·N floats a, b: from the first (even) or the second (odd) on; and the way back.
template <int N> struct Pairs;
#define JTN_PAIRS(N, EVEN, ODD, LOW, HIGH)                                                          \
  template <> struct Pairs<N> {                                                                     \
    JTN_INLINE V<N> even(V<N> a, V<N> b) { return __builtin_shuffle(a, b, Vec<N>::ints EVEN); }     \
    JTN_INLINE V<N> odd(V<N> a, V<N> b) { return __builtin_shuffle(a, b, Vec<N>::ints ODD); }       \
    JTN_INLINE V<N> low(V<N> a, V<N> b) { return __builtin_shuffle(a, b, Vec<N>::ints LOW); }       \
    JTN_INLINE V<N> high(V<N> a, V<N> b) { return __builtin_shuffle(a, b, Vec<N>::ints HIGH); }     \
  };
#define JTN_LIST(...) {__VA_ARGS__}
JTN_PAIRS(4, JTN_LIST(0, 2, 4, 6), JTN_LIST(1, 3, 5, 7), JTN_LIST(0, 4, 1, 5), JTN_LIST(2, 6, 3, 7))
JTN_PAIRS(8, JTN_LIST(0, 2, 4, 6, 8, 10, 12, 14), JTN_LIST(1, 3, 5, 7, 9, 11, 13, 15), JTN_LIST(0, 8, 1, 9, 2, 10, 3, 11),
          JTN_LIST(4, 12, 5, 13, 6, 14, 7, 15))
JTN_PAIRS(16, JTN_LIST(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
          JTN_LIST(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
          JTN_LIST(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
          JTN_LIST(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31))
#undef JTN_PAIRS
#undef JTN_LIST

// e^x to about 1 ULP: x = n·ln 2 + f, a polynomial for e^f (Cephes), the exponent set by integer arithmetic. Clamped to ±87.
template <int N> JTN_INLINE V<N> exponential(V<N> x) {
  x = smaller<N>(larger<N>(x, fill<N>(-87.f)), fill<N>(87.f));
  const V<N> magic = fill<N>(12582912.f);  // 1.5·2^23: adding and taking it away rounds to a whole number
  V<N> n = x * 1.44269504f + magic - magic;
  V<N> f = x - n * 0.693359375f + n * 2.12194440e-4f;
  V<N> p = fill<N>(1.9875691500e-4f);
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * (f * f) + f + 1.f;
  typename Vec<N>::ints power = (__builtin_convertvector(n, typename Vec<N>::ints) + 127) << 23;
  V<N> scale;
  std::memcpy(&scale, &power, sizeof scale);
  return p * scale;
}
template <int N> JTN_INLINE V<N> sigmoid(V<N> x) { return 1.f / (1.f + exponential<N>(-x)); }

// y = min(max(x, slope·x), cap) where `on`: LeakyReLU, ReLU (slope 0) and ReLU6 (cap 6).
struct Activation {
  bool on = false;
  float slope = 1.f, cap = 3.402823466e38f;
  template <int N> JTN_INLINE V<N> apply(const Activation& a, V<N> x) {
    if (!a.on) return x;
    return smaller<N>(larger<N>(x, x * a.slope), fill<N>(a.cap));
  }
};

// Calls f with each (Width, first column) that together cover `columns`: the widest vectors first, the last one overlapping what was done.
// `partial` is true for the one block of a row narrower than the narrowest vector.
template <int N> struct WidthTag { static constexpr int value = N; };
template <class F> JTN_INLINE void column_blocks(int columns, F&& f) {
  int x = 0;
  for (; columns - x >= WIDTH; x += WIDTH) f(WidthTag<WIDTH>(), x, false);
  while (x < columns) {
    const int left = columns - x;
    if (WIDTH >= 16 && left > 8 && columns >= 16) { f(WidthTag<(WIDTH >= 16 ? 16 : WIDTH)>(), columns - 16, false); return; }
    if (WIDTH >= 8 && left > 4 && columns >= 8) {
      const int at = left >= 8 ? x : columns - 8;
      f(WidthTag<(WIDTH >= 8 ? 8 : WIDTH)>(), at, false);
      x = at + 8;
      continue;
    }
    if (columns < 4) { f(WidthTag<4>(), 0, true); return; }
    const int at = left >= 4 ? x : columns - 4;
    f(WidthTag<4>(), at, false);
    x = at + 4;
  }
}

}  // namespace jtn
