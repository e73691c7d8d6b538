// Bilinear upsampling by 2, half-pixel centres (PyTorch's align_corners=False): 3/4 of the nearer and 1/4 of the farther neighbour.
#pragma once
#include "native/step.h"
#include "native/team.h"

namespace jtn {

static void upsample(const Step& s, const Planes& m, Member me, Arena& arena) {
  constexpr int N = WIDTH;
  const int height = s.height, width = s.width, channels = static_cast<int>(m.input.size());
  float* line = arena.at_least(static_cast<size_t>(width) + 4 * N + 64) + 16;
  for (int c = me.from(channels); c < me.to(channels); c++) {
    for (int y = 0; y < 2 * height; y++) {
      const int near = y / 2, far = (y & 1) ? std::min(height - 1, near + 1) : std::max(0, near - 1);
      const float *a = m.input[c] + static_cast<size_t>(near) * width, *b = m.input[c] + static_cast<size_t>(far) * width;
      for (int x = 0; x < width; x += N) store<N>(line + x, load<N>(a + x) * 0.75f + load<N>(b + x) * 0.25f);
      line[-1] = line[0];
      line[width] = line[width - 1];
      float* out = m.output[c] + static_cast<size_t>(y) * 2 * width;
      for (int x = 0; x < width; x += N) {
        const V<N> own = load<N>(line + x) * 0.75f, left = load<N>(line + x - 1) * 0.25f + own, right = load<N>(line + x + 1) * 0.25f + own;
        if (x + N <= width) {
          store<N>(out + 2 * x, Pairs<N>::low(left, right));
          store<N>(out + 2 * x + N, Pairs<N>::high(left, right));
        } else {
          for (int i = 0; i < width - x; i++) out[2 * (x + i)] = left[i], out[2 * (x + i) + 1] = right[i];
        }
      }
    }
    clear_tail(m.output[c], 4 * height * width);
  }
}

}  // namespace jtn
