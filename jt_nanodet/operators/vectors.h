// Vectors of the widest registers the compiler may use, in GCC's portable notation: AVX-512, AVX, and 128 bits elsewhere (SSE, NEON).
// Every function here is inline: each operator is compiled with its own copy.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace nanodet {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int HALF = LANES / 2;

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef float HalfFloats __attribute__((vector_size(HALF * 4)));
typedef double Doubles __attribute__((vector_size(HALF * 8)));

template <class V, class T>
inline V load(const T* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class V, class T>
inline void store(T* p, V v) { __builtin_memcpy(p, &v, sizeof v); }

inline Floats all(float x) { return x - Floats{}; }

inline Doubles widened(const float* p) { return __builtin_convertvector(load<HalfFloats>(p), Doubles); }

inline double total(Doubles v) {
    double sum = 0;
    for (int i = 0; i < HALF; i++) sum += v[i];
    return sum;
}

inline double total(Floats v) {
    double sum = 0;
    for (int i = 0; i < LANES; i++) sum += double(v[i]);
    return sum;
}

}  // namespace nanodet
