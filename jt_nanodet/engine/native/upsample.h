// Bilinear upsampling by 2, half-pixel centres (PyTorch's align_corners=False): 3/4 of the nearer and 1/4 of the farther neighbour.
#pragma once
#include "native/step.h"

namespace jtn {

// Rows 2y and 2y + 1 of the output, N columns of the input from x on; rows: the input's rows y - 1, y and y + 1, borders repeated.
template <int N> JTN_INLINE void up_block(const float* const* rows, int x, float* out, int width, bool partial) {
  for (int half = 0; half < 2; half++) {
    const float *near = rows[1] + x, *far = rows[2 * half] + x;
    auto between = [&](int i) { return load<N>(near + i) * 0.75f + load<N>(far + i) * 0.25f; };
    const V<N> own = between(0) * 0.75f, left = between(-1) * 0.25f + own, right = between(1) * 0.25f + own;
    float* to = out + static_cast<size_t>(half) * 2 * width + 2 * x;
    if (!partial) {
      store<N>(to, Pairs<N>::low(left, right));
      store<N>(to + N, Pairs<N>::high(left, right));
    } else {
      for (int i = 0; i < width; i++) to[2 * i] = left[i], to[2 * i + 1] = right[i];
    }
  }
}

static void upsample(const Step& s, const Planes& m, Member me) {
  const int height = s.height, width = s.width, channels = static_cast<int>(m.input.size());
  for (int c = me.from(channels); c < me.to(channels); c++) {
    for (int y = 0; y < height; y++) {
      const float* rows[3];
      for (int i = 0; i < 3; i++) rows[i] = m.input[c] + static_cast<size_t>(std::min(height - 1, std::max(0, y + i - 1))) * width;
      float* out = m.output[c] + static_cast<size_t>(y) * 4 * width;
      column_blocks(width, [&](auto tag, int x, bool partial) { up_block<decltype(tag)::value>(rows, x, out, width, partial); });
      for (int half = 0; half < 2; half++) {  // the first and the last column have no neighbour: what was read beside the row is replaced
        auto border = [&](int x) { return rows[1][x] * 0.75f + rows[2 * half][x] * 0.25f; };
        float* to = out + static_cast<size_t>(half) * 2 * width;
        to[0] = border(0) * 0.25f + border(0) * 0.75f;
        to[2 * width - 1] = border(width - 1) * 0.25f + border(width - 1) * 0.75f;
      }
    }
    clear_tail(m.output[c], 4 * height * width);
  }
}

}  // namespace jtn
