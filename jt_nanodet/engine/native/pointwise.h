// 1×1 convolution with bias, activation and an added residual: tiles of 6 output channels by a few vectors of pixels, kept in registers.
#pragma once
#include "native/step.h"

namespace jtn {

constexpr int PW_CHANNELS = 6;                                  // as `pack.py` packs the weights
constexpr int PW_VECTORS = REGISTERS == 32 ? 4 : 2;             // 6·4 + 4 + 1 registers of 32, 6·2 + 2 + 1 of 16

template <int NV, int NC>
static inline void pw_tile(const float* const* in, int inputs, size_t at, const float* w, const float* bias, float* const* out,
                           const float* const* residual, const Activation& activation) {
  constexpr int N = WIDTH;
  V<N> sum[NC][NV];
#pragma GCC unroll 8
  for (int c = 0; c < NC; c++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) sum[c][v] = V<N>{};  // the bias comes last: sums that begin with it round at its size
  for (int i = 0; i < inputs; i++, w += PW_CHANNELS) {
    const float* p = in[i] + at;
    V<N> x[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) x[v] = load<N>(p + N * v);
#pragma GCC unroll 8
    for (int c = 0; c < NC; c++) {
      const V<N> q = fill<N>(w[c]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) sum[c][v] += x[v] * q;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < NC; c++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      V<N> y = Activation::apply<N>(activation, sum[c][v] + bias[c]);
      if (residual) y += load<N>(residual[c] + at + N * v);
      store<N>(out[c] + at + N * v, y);
    }
}

// Channels [c0, c1) of NV vectors of pixels from `at` on.
template <int NV> static void pw_columns(const Step& s, const Planes& m, size_t at, int c0, int c1) {
  const int inputs = static_cast<int>(m.input.size());
  for (int c = c0; c < c1; c += PW_CHANNELS) {
    const float* w = s.weight + static_cast<size_t>(c) * inputs;
    const float* const* residual = m.residual.empty() ? nullptr : m.residual.data() + c;
    auto call = [&](auto tile) { tile(m.input.data(), inputs, at, w, s.bias + c, m.output.data() + c, residual, s.activation); };
    switch (std::min(PW_CHANNELS, c1 - c)) {
      case 6: call(pw_tile<NV, 6>); break;
      case 5: call(pw_tile<NV, 5>); break;
      case 4: call(pw_tile<NV, 4>); break;
      case 3: call(pw_tile<NV, 3>); break;
      case 2: call(pw_tile<NV, 2>); break;
      default: call(pw_tile<NV, 1>); break;
    }
  }
}

// The plane is cut into tiles of nearly equal size, all channels of a tile before the next: its input stays in the cache. A member gets whole tiles,
// whose pixels it will use next, and of the tile at each end as many blocks of channels as make the shares equal.
static void pointwise(const Step& s, const Planes& m, Member me) {
  const int vectors = (s.height * s.width + WIDTH - 1) / WIDTH, channels = static_cast<int>(m.output.size());
  const int tiles = (vectors + PW_VECTORS - 1) / PW_VECTORS, blocks = (channels + PW_CHANNELS - 1) / PW_CHANNELS;
  const int from = me.from(vectors * blocks), to = me.to(vectors * blocks);  // in vectors times blocks, tile by tile
  for (int i = 0; i < tiles; i++) {
    const int a = vectors * i / tiles, n = vectors * (i + 1) / tiles - a;
    auto block = [&](int position) { return std::max(0, std::min(blocks, (position - a * blocks) / n)); };
    const int c0 = block(from) * PW_CHANNELS, c1 = std::min(channels, block(to) * PW_CHANNELS);
    if (c0 >= c1) continue;
    const size_t at = static_cast<size_t>(a) * WIDTH;
    switch (n) {
      case 1: pw_columns<1>(s, m, at, c0, c1); break;
      case 2: pw_columns<2>(s, m, at, c0, c1); break;
      case 3: pw_columns<(PW_VECTORS >= 3 ? 3 : 1)>(s, m, at, c0, c1); break;
      case 4: pw_columns<(PW_VECTORS >= 4 ? 4 : 1)>(s, m, at, c0, c1); break;
    }
  }
}

}  // namespace jtn
