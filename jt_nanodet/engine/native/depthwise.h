// Depthwise K×K convolution, stride 1 or 2: rows are copied once into a zero-padded scratch (for stride 2 split into even and odd columns),
// so that the arithmetic needs no masks; R output rows by one vector stay in registers.
#pragma once
#include "native/step.h"
#include "native/team.h"

namespace jtn {

// Rows of one plane with their padding. Stride 1: one part; stride 2: even columns of the padded row, then odd ones.
template <int K, int S> struct PaddedRows {
  static constexpr int P = K / 2;
  int part, row;  // floats of a part and of a row
  explicit PaddedRows(int width) : part(((width + 2 * P) / S + 2 * WIDTH + 15) / 16 * 16), row(part * S) {}

  void copy(const float* in, float* to, int width) const {
    if (S == 1) {
      for (int i = 0; i < P; i++) to[i] = 0.f;
      for (int x = 0; x < width; x += WIDTH) store<WIDTH>(to + P + x, load<WIDTH>(in + x));
      for (int i = P + width; i < P + width + P + 4; i++) to[i] = 0.f;
      return;
    }
    // column x stands at P + x of the padded row
    float* even = to + ((P & 1) ? part + (P - 1) / 2 : P / 2);
    float* odd = to + ((P & 1) ? (P + 1) / 2 : part + P / 2);
    for (int i = 0; i < P; i++) to[i] = to[part + i] = 0.f;
    const int evens = (width + 1) / 2, odds = width / 2;
    for (int x = 0; 2 * x < width; x += WIDTH) {
      const V<WIDTH> a = load<WIDTH>(in + 2 * x), b = load<WIDTH>(in + 2 * x + WIDTH);
      store<WIDTH>(even + x, Pairs<WIDTH>::even(a, b));
      store<WIDTH>(odd + x, Pairs<WIDTH>::odd(a, b));
    }
    for (int i = 0; i < P + 4; i++) even[evens + i] = odd[odds + i] = 0.f;
  }
};

template <int N, int K, int S, int R>
JTN_INLINE void dw_block(const float* in, int row, int part, const float* w, float bias, const Activation& activation, float* out, int out_width,
                         int keep) {
  constexpr int ROWS = (R - 1) * S + K;
  V<N> sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) sum[r] = V<N>{};
#pragma GCC unroll 8
  for (int d = 0; d < K; d++) {
    V<N> tap[K];
#pragma GCC unroll 8
    for (int i = 0; i < K; i++) tap[i] = fill<N>(w[i * K + d]);
    const float* p = in + (S == 1 ? d : (d & 1) * part + d / 2);
#pragma GCC unroll 32
    for (int q = 0; q < ROWS; q++) {
      const V<N> x = load<N>(p + q * row);
#pragma GCC unroll 8
      for (int i = 0; i < K; i++) {
        const int r = (q - i) / S;
        if (q >= i && (q - i) % S == 0 && r < R) sum[r] += x * tap[i];
      }
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

template <int K, int S, int R>
static void dw_rows(const float* in, const PaddedRows<K, S>& rows, const float* w, float bias, const Activation& activation, float* out, int width) {
  column_blocks(width, [&](auto tag, int x, bool partial) {
    constexpr int N = decltype(tag)::value;
    dw_block<N, K, S, R>(in + x, rows.row, rows.part, w, bias, activation, out + x, width, partial ? width : N);
  });
}

template <int K, int S> static void dw_plane(const Step& s, const float* in, float* out, const float* w, float bias, int y0, int y1, float* scratch) {
  constexpr int P = K / 2;
  const PaddedRows<K, S> rows(s.width);
  const int width = (s.width + S - 1) / S, first = y0 * S - P, last = (y1 - 1) * S - P + K;
  for (int y = first; y < last; y++) {
    float* to = scratch + static_cast<size_t>(y - first) * rows.row;
    if (y < 0 || y >= s.height) std::memset(to, 0, sizeof(float) * rows.row);
    else rows.copy(in + static_cast<size_t>(y) * s.width, to, s.width);
  }
  auto from = [&](int y) { return scratch + static_cast<size_t>(y - y0) * S * rows.row; };
  int y = y0;
  for (; y + 10 <= y1; y += 10) dw_rows<K, S, 10>(from(y), rows, w, bias, s.activation, out + static_cast<size_t>(y) * width, width);
  for (; y + 5 <= y1; y += 5) dw_rows<K, S, 5>(from(y), rows, w, bias, s.activation, out + static_cast<size_t>(y) * width, width);
  if (y < y1 && y1 - y0 >= 5) {  // the last rows together with some that are done: computed again, to the same values
    y = y1 - 5;
    dw_rows<K, S, 5>(from(y), rows, w, bias, s.activation, out + static_cast<size_t>(y) * width, width);
  } else {
    for (; y < y1; y++) dw_rows<K, S, 1>(from(y), rows, w, bias, s.activation, out + static_cast<size_t>(y) * width, width);
  }
}

template <int K, int S> static void dw_all(const Step& s, const Planes& m, Member me, Arena& scratch) {
  const int channels = static_cast<int>(m.input.size()), height = (s.height + S - 1) / S, width = (s.width + S - 1) / S;
  int y0 = 0, y1 = height, c0 = 0, c1 = channels;
  if (height >= 10 * me.members) y0 = me.from(height), y1 = me.to(height);
  else c0 = me.from(channels), c1 = me.to(channels);
  if (y0 == y1 || c0 == c1) return;
  float* rows = scratch.at_least(static_cast<size_t>((y1 - y0) * S + K) * PaddedRows<K, S>(s.width).row + 64);
  for (int c = c0; c < c1; c++) {
    dw_plane<K, S>(s, m.input[c], m.output[c], s.weight + static_cast<size_t>(c) * K * K, s.bias[c], y0, y1, rows);
    if (y1 == height) clear_tail(m.output[c], height * width);
  }
}

static void depthwise(const Step& s, const Planes& m, Member me, Arena& scratch) {
  if (s.kernel == 3) s.stride == 1 ? dw_all<3, 1>(s, m, me, scratch) : dw_all<3, 2>(s, m, me, scratch);
  else s.stride == 1 ? dw_all<5, 1>(s, m, me, scratch) : dw_all<5, 2>(s, m, me, scratch);
}

}  // namespace jtn
