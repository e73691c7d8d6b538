// Depthwise K×K convolution, stride 1 or 2, without copies: rows above and below the plane are read from zeros, and what a row's vectors read
// beside the plane is masked, so the arithmetic knows no borders; R output rows by one vector stay in registers.
#pragma once
#include "native/step.h"
#include "native/team.h"

namespace jtn {

// What every channel of a depthwise step needs to know about the borders.
class Border {
  int width_, out_width_;
  const int32_t* inside_;  // of each column d of the kernel, for each output column: all bits set where its input column is in the plane
  const float* zeros_;

 public:
  // floats of scratch that `Border` fills
  static size_t floats(const Step& s) { return (1 + s.kernel) * row(s) + row(s) * s.stride; }

  Border(const Step& s, float* scratch) : width_(s.width), out_width_(static_cast<int>(row(s))) {
    int32_t* inside = reinterpret_cast<int32_t*>(scratch);
    for (int d = 0; d < s.kernel; d++)
      for (int x = 0; x < out_width_; x++) {
        const int column = x * s.stride + d - s.kernel / 2;
        const int32_t bits = column >= 0 && column < width_ ? -1 : 0;
        std::memcpy(inside + static_cast<size_t>(d) * out_width_ + x, &bits, sizeof bits);
      }
    inside_ = inside;
    float* zeros = scratch + static_cast<size_t>(s.kernel) * out_width_;
    std::memset(zeros, 0, sizeof(float) * row(s) * (1 + s.stride));
    zeros_ = zeros + WIDTH;  // rows are read from some columns before the first one on
  }

  template <int N> JTN_INLINE V<N> keep(const Border& b, V<N> v, int d, int x) {
    typename Vec<N>::ints bits, mask;
    std::memcpy(&bits, &v, sizeof v);
    std::memcpy(&mask, b.inside_ + static_cast<size_t>(d) * b.out_width_ + x, sizeof mask);
    bits &= mask;
    std::memcpy(&v, &bits, sizeof v);
    return v;
  }
  const float* row(const float* plane, int y, int height) const { return y < 0 || y >= height ? zeros_ : plane + static_cast<size_t>(y) * width_; }

 private:
  static size_t row(const Step& s) { return (s.width / s.stride + 3 * WIDTH + 15) / 16 * 16; }
};

// R rows by N columns of the output from `x` on; in: the R·S - S + K rows of the input that they need.
template <int N, int K, int S, int R>
JTN_INLINE void dw_block(const float* const* in, const Border& border, int x, const float* w, float bias, const Activation& activation, float* out,
                         int out_width, int keep) {
  constexpr int ROWS = (R - 1) * S + K, P = K / 2;
  V<N> sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) sum[r] = V<N>{};
  auto add = [&](V<N> v, int q, int d) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < K; i++) {
      const int r = (q - i) / S;
      if (q >= i && (q - i) % S == 0 && r < R) sum[r] += v * fill<N>(w[i * K + d]);
    }
  };
  if (S == 1) {
#pragma GCC unroll 8
    for (int d = 0; d < K; d++)
#pragma GCC unroll 32
      for (int q = 0; q < ROWS; q++) {
        const V<N> v = load<N>(in[q] + x + d - P);
        add(d == P ? v : Border::keep<N>(border, v, d, x), q, d);
      }
  } else {
#pragma GCC unroll 8
    for (int d = 0; d < K; d += 2)
#pragma GCC unroll 32
      for (int q = 0; q < ROWS; q++) {
        const float* p = in[q] + 2 * x + d - P;
        const V<N> a = load<N>(p), b = load<N>(p + N);
        add(Border::keep<N>(border, Pairs<N>::even(a, b), d, x), q, d);
        if (d + 1 < K) add(Border::keep<N>(border, Pairs<N>::odd(a, b), d + 1, x), q, d + 1);
      }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    const V<N> y = Activation::apply<N>(activation, sum[r] + bias);
    if (keep >= N) {
      store<N>(out + r * out_width, y);
    } else {
      for (int i = 0; i < keep; i++) out[r * out_width + i] = y[i];
    }
  }
}

// R rows of one plane's output from y on.
template <int K, int S, int R>
static void dw_rows(const Step& s, const Border& border, const float* in, float* out, const float* w, float bias, int y) {
  constexpr int ROWS = (R - 1) * S + K;
  const int width = (s.width + S - 1) / S;
  const float* rows[ROWS];
#pragma GCC unroll 32
  for (int q = 0; q < ROWS; q++) rows[q] = border.row(in, y * S - K / 2 + q, s.height);
  out += static_cast<size_t>(y) * width;
  column_blocks(width, [&](auto tag, int x, bool partial) {
    constexpr int N = decltype(tag)::value;
    dw_block<N, K, S, R>(rows, border, x, w, bias, s.activation, out + x, width, partial ? width : N);
  });
}

template <int K, int S> static void dw_plane(const Step& s, const Border& border, const float* in, float* out, const float* w, float bias, int y0, int y1) {
  constexpr int TALL = REGISTERS == 32 ? 10 : 5;
  int y = y0;
  for (; y + TALL <= y1; y += TALL) dw_rows<K, S, TALL>(s, border, in, out, w, bias, y);
  for (; y + 5 <= y1; y += 5) dw_rows<K, S, 5>(s, border, in, out, w, bias, y);
  // the last rows together with some that are done: computed again, to the same values
  if (y < y1 && y1 - y0 >= 5) dw_rows<K, S, 5>(s, border, in, out, w, bias, y1 - 5);
  else for (; y < y1; y++) dw_rows<K, S, 1>(s, border, in, out, w, bias, y);
}

template <int K, int S> static void dw_all(const Step& s, const Planes& m, Member me, Arena& scratch) {
  const int channels = static_cast<int>(m.input.size()), height = (s.height + S - 1) / S, width = (s.width + S - 1) / S;
  int y0 = 0, y1 = height, c0 = 0, c1 = channels;
  if (height >= 10 * me.members) y0 = me.from(height), y1 = me.to(height);
  else c0 = me.from(channels), c1 = me.to(channels);
  if (y0 == y1 || c0 == c1) return;
  const Border border(s, scratch.at_least(Border::floats(s) + 64));
  for (int c = c0; c < c1; c++) {
    dw_plane<K, S>(s, border, m.input[c], m.output[c], s.weight + static_cast<size_t>(c) * K * K, s.bias[c], y0, y1);
    if (y1 == height) clear_tail(m.output[c], height * width);
  }
}

static void depthwise(const Step& s, const Planes& m, Member me, Arena& scratch) {
  if (s.kernel == 3) s.stride == 1 ? dw_all<3, 1>(s, m, me, scratch) : dw_all<3, 2>(s, m, me, scratch);
  else s.stride == 1 ? dw_all<5, 1>(s, m, me, scratch) : dw_all<5, 2>(s, m, me, scratch);
}

}  // namespace jtn
