// Last 1×1 convolution of a level: output rows are priors, (P, C + 4·R), so vectors run over the outputs. Either the raw rows are stored, or
// each is decoded while it is in the cache: sigmoid scores, and boxes from the expected distances (Generalized Focal Loss, arXiv:2006.04388).
#pragma once
#include "native/step.h"
#include "native/team.h"

namespace jtn {

constexpr int HEAD_VECTORS = REGISTERS == 32 ? 4 : 2, HEAD_PRIORS = 6;

// Where the answer goes: rows of raw outputs, or decoded rows of a box (xyxy) and the classes' scores.
struct Answer {
  float *raw, *decoded;
  int classes, bins;
  float image_height, image_width;
};

// rows[j][v·N …] of HEAD_PRIORS priors from pixel p on; `padded` outputs, weights packed [input][padded]
template <int NV> static void head_tile(const float* const* in, int inputs, size_t p, const float* w, const float* bias, int padded, float* rows) {
  constexpr int N = WIDTH;
  V<N> sum[HEAD_PRIORS][NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; v++)
#pragma GCC unroll 8
    for (int j = 0; j < HEAD_PRIORS; j++) sum[j][v] = V<N>{};
  for (int i = 0; i < inputs; i++, w += padded) {
    const float* x = in[i] + p;
    V<N> t[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) t[v] = load<N>(w + N * v);
#pragma GCC unroll 8
    for (int j = 0; j < HEAD_PRIORS; j++) {
      const V<N> q = fill<N>(x[j]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) sum[j][v] += q * t[v];
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < HEAD_PRIORS; j++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) store<N>(rows + static_cast<size_t>(j) * padded + N * v, sum[j][v] + load<N>(bias + N * v));
}

// One prior: logits (classes + 4·bins) to its scores and its box, clipped to the image.
static inline void decode_prior(const Answer& a, const float* logits, int prior, float x, float y, float stride) {
  constexpr int N = WIDTH;
  float* box = a.decoded + static_cast<size_t>(prior) * (4 + a.classes);
  float* scores = box + 4;
  int c = 0;
  for (; c + N <= a.classes; c += N) store<N>(scores + c, sigmoid<N>(load<N>(logits + c)));
  if (c < a.classes) {  // the rows are padded, so a whole vector can be read
    const V<N> z = sigmoid<N>(load<N>(logits + c));
    for (int i = 0; c + i < a.classes; i++) scores[c + i] = z[i];
  }
  float distance[4];
  for (int side = 0; side < 4; side++) {
    const float* l = logits + a.classes + side * a.bins;
    float top = l[0], sum = 0.f, expected = 0.f;
    for (int i = 1; i < a.bins; i++) top = l[i] > top ? l[i] : top;
    for (int at = 0; at < a.bins; at += N) {
      const V<N> e = exponential<N>(load<N>(l + at) - top);
      for (int i = 0; i < N && at + i < a.bins; i++) sum += e[i], expected += e[i] * static_cast<float>(at + i);
    }
    distance[side] = expected / sum * stride;
  }
  auto within = [](float v, float limit) { return v < 0.f ? 0.f : v > limit ? limit : v; };
  box[0] = within(x - distance[0], a.image_width);
  box[1] = within(y - distance[1], a.image_height);
  box[2] = within(x + distance[2], a.image_width);
  box[3] = within(y + distance[3], a.image_height);
}

// `kernel` holds the number of outputs, `stride` the level's stride in pixels.
static void head(const Step& s, const Planes& m, Member me, Arena& arena, const Answer& answer) {
  const int outputs = s.kernel, padded = (outputs + 15) / 16 * 16, pixels = s.height * s.width, vectors = padded / WIDTH;
  constexpr int GROUP = 8 * HEAD_PRIORS;  // the inputs of a group stay in the L1 cache while the weights pass by
  float* rows = arena.at_least(static_cast<size_t>(GROUP) * padded + 64);
  const int inputs = static_cast<int>(m.input.size());
  for (int g = me.from(pixels); g < me.to(pixels); g += GROUP) {
    const int n = std::min(GROUP, me.to(pixels) - g);
    for (int v = 0; v < vectors; v += HEAD_VECTORS) {
      const float *w = s.weight + v * WIDTH, *b = s.bias + v * WIDTH;
      for (int j = 0; j < n; j += HEAD_PRIORS) {  // the last tile may compute pixels behind the end: planes have room, rows too
        float* to = rows + static_cast<size_t>(j) * padded + v * WIDTH;
        switch (std::min(HEAD_VECTORS, vectors - v)) {
          case 4: head_tile<(HEAD_VECTORS >= 4 ? 4 : 1)>(m.input.data(), inputs, g + j, w, b, padded, to); break;
          case 3: head_tile<(HEAD_VECTORS >= 3 ? 3 : 1)>(m.input.data(), inputs, g + j, w, b, padded, to); break;
          case 2: head_tile<2>(m.input.data(), inputs, g + j, w, b, padded, to); break;
          default: head_tile<1>(m.input.data(), inputs, g + j, w, b, padded, to); break;
        }
      }
    }
    for (int j = 0; j < n; j++) {
      const float* row = rows + static_cast<size_t>(j) * padded;
      const int pixel = g + j, prior = s.first_prior + pixel;
      if (answer.raw) std::memcpy(answer.raw + static_cast<size_t>(prior) * outputs, row, sizeof(float) * outputs);
      if (answer.decoded)
        decode_prior(answer, row, prior, static_cast<float>(pixel % s.width * s.stride), static_cast<float>(pixel / s.width * s.stride),
                     static_cast<float>(s.stride));
    }
  }
}

}  // namespace jtn
