// What the CUDA kernels and their C++ counterparts share: arithmetic that gives the same bits on both.
//
// Every multiplication and addition goes through the functions below. On the device they name the rounding, so that nvcc joins no
// multiplication with an addition; the host is compiled with -ffp-contract=off. exp and log are made here from these alone, because
// the host's and the device's own differ in their last bit.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define KERNEL_FN static __host__ __device__ __forceinline__
// grid, block: numbers of blocks and of threads in each. In tests a header for the host comes first and has its own.
#define KERNEL_LAUNCH(kernel, grid, block, stream, ...) kernel<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__)
#else
#define KERNEL_FN static inline __attribute__((always_inline))
#endif

namespace jt_kernels {

#ifdef __CUDA_ARCH__
KERNEL_FN float add(float a, float b) { return __fadd_rn(a, b); }
KERNEL_FN float sub(float a, float b) { return __fsub_rn(a, b); }
KERNEL_FN float mul(float a, float b) { return __fmul_rn(a, b); }
KERNEL_FN float quotient(float a, float b) { return __fdiv_rn(a, b); }
KERNEL_FN double add(double a, double b) { return __dadd_rn(a, b); }
KERNEL_FN double sub(double a, double b) { return __dsub_rn(a, b); }
KERNEL_FN double mul(double a, double b) { return __dmul_rn(a, b); }
KERNEL_FN double quotient(double a, double b) { return __ddiv_rn(a, b); }
#else
KERNEL_FN float add(float a, float b) { return a + b; }
KERNEL_FN float sub(float a, float b) { return a - b; }
KERNEL_FN float mul(float a, float b) { return a * b; }
KERNEL_FN float quotient(float a, float b) { return a / b; }
KERNEL_FN double add(double a, double b) { return a + b; }
KERNEL_FN double sub(double a, double b) { return a - b; }
KERNEL_FN double mul(double a, double b) { return a * b; }
KERNEL_FN double quotient(double a, double b) { return a / b; }
#endif

KERNEL_FN uint64_t bits_of(double x) { uint64_t u; memcpy(&u, &x, 8); return u; }
KERNEL_FN double double_of(uint64_t u) { double x; memcpy(&x, &u, 8); return x; }
KERNEL_FN uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
KERNEL_FN float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

// A number that sorts as x does (no NaN); -0 counts as 0.
KERNEL_FN uint32_t ordered(float x) {
    uint32_t u = bits_of(x == 0.0f ? 0.0f : x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}
KERNEL_FN float from_ordered(uint32_t u) { return float_of(u & 0x80000000u ? u & 0x7fffffffu : ~u); }

// exp(a) for a <= 0, to about 2e-16 of the result; below -708 the answer for -708 (3e-308). NaN stays NaN.
KERNEL_FN double exp_of(double a) {
    const double magic = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves a whole number in the low bits
    a = a < -708.0 ? -708.0 : a;
    const double shifted = add(mul(a, 1.4426950408889634), magic);
    const double n = sub(shifted, magic);
    // ln 2 in two parts, the first with zeros at its end so that n times it is exact
    const double r = sub(sub(a, mul(n, 6.93147180369123816490e-01)), mul(n, 1.90821492927058770002e-10));
    double p = 1.0 / 6227020800.0;
    p = add(mul(p, r), 1.0 / 479001600.0);
    p = add(mul(p, r), 1.0 / 39916800.0);
    p = add(mul(p, r), 1.0 / 3628800.0);
    p = add(mul(p, r), 1.0 / 362880.0);
    p = add(mul(p, r), 1.0 / 40320.0);
    p = add(mul(p, r), 1.0 / 5040.0);
    p = add(mul(p, r), 1.0 / 720.0);
    p = add(mul(p, r), 1.0 / 120.0);
    p = add(mul(p, r), 1.0 / 24.0);
    p = add(mul(p, r), 1.0 / 6.0);
    p = add(mul(p, r), 0.5);
    p = add(mul(p, r), 1.0);
    p = add(mul(p, r), 1.0);
    const uint64_t power = (bits_of(shifted) - bits_of(magic) + 1023u) << 52;
    return mul(p, double_of(power));
}

// log(1 + y) for 0 <= y <= 1: twice the area tangent of y / (2 + y), whose square is at most 1/9.
KERNEL_FN double log1p_of(double y) {
    const double s = quotient(y, add(2.0, y)), z = mul(s, s);
    double p = 1.0 / 35.0;
    p = add(mul(p, z), 1.0 / 33.0);
    p = add(mul(p, z), 1.0 / 31.0);
    p = add(mul(p, z), 1.0 / 29.0);
    p = add(mul(p, z), 1.0 / 27.0);
    p = add(mul(p, z), 1.0 / 25.0);
    p = add(mul(p, z), 1.0 / 23.0);
    p = add(mul(p, z), 1.0 / 21.0);
    p = add(mul(p, z), 1.0 / 19.0);
    p = add(mul(p, z), 1.0 / 17.0);
    p = add(mul(p, z), 1.0 / 15.0);
    p = add(mul(p, z), 1.0 / 13.0);
    p = add(mul(p, z), 1.0 / 11.0);
    p = add(mul(p, z), 1.0 / 9.0);
    p = add(mul(p, z), 1.0 / 7.0);
    p = add(mul(p, z), 1.0 / 5.0);
    p = add(mul(p, z), 1.0 / 3.0);
    p = add(mul(p, z), 1.0);
    return mul(mul(2.0, s), p);
}

// log(x) for finite, normal x > 0.
KERNEL_FN double log_of(double x) {
    const uint64_t u = bits_of(x);
    int e = (int)(u >> 52) - 1023;
    double m = double_of((u & 0x000fffffffffffffull) | 0x3ff0000000000000ull);
    const bool high = m > 1.4142135623730951;
    m = high ? mul(m, 0.5) : m;
    e = high ? e + 1 : e;
    const double s = quotient(sub(m, 1.0), add(m, 1.0)), z = mul(s, s);
    double p = 1.0 / 23.0;
    p = add(mul(p, z), 1.0 / 21.0);
    p = add(mul(p, z), 1.0 / 19.0);
    p = add(mul(p, z), 1.0 / 17.0);
    p = add(mul(p, z), 1.0 / 15.0);
    p = add(mul(p, z), 1.0 / 13.0);
    p = add(mul(p, z), 1.0 / 11.0);
    p = add(mul(p, z), 1.0 / 9.0);
    p = add(mul(p, z), 1.0 / 7.0);
    p = add(mul(p, z), 1.0 / 5.0);
    p = add(mul(p, z), 1.0 / 3.0);
    p = add(mul(p, z), 1.0);
    return add(mul((double)e, 6.93147180559945309417e-01), mul(mul(2.0, s), p));
}

}  // namespace jt_kernels
