// First convolution (3×3, stride 2, few input channels) with its activation and the 3×3 stride-2 max-pool behind it, row by row: the large
// map between them never goes to memory. A monotone activation may come after the maximum: the values are the same.
#pragma once
#include "native/step.h"
#include "native/team.h"

namespace jtn {

constexpr int STEM_CHANNELS = REGISTERS == 32 ? 12 : 6;  // by 2 vectors
// Zero-padded rows of the picture for a 3×3 convolution of stride 2: the even columns of the padded row, then the odd ones.
struct SplitRows {
  int part, row;  // floats of a part and of a row
  explicit SplitRows(int width) : part(((width + 2) / 2 + 2 * WIDTH + 15) / 16 * 16), row(2 * part) {}

  void copy(const float* in, float* to, int width) const {
    float *even = to + part, *odd = to + 1;  // column x stands at 1 + x of the padded row
    to[0] = to[part] = 0.f;
    const int evens = (width + 1) / 2, odds = width / 2;
    for (int x = 0; 2 * x < width; x += WIDTH) {
      const V<WIDTH> a = load<WIDTH>(in + 2 * x), b = load<WIDTH>(in + 2 * x + WIDTH);
      store<WIDTH>(even + x, Pairs<WIDTH>::even(a, b));
      store<WIDTH>(odd + x, Pairs<WIDTH>::odd(a, b));
    }
    for (int i = 0; i < 5; i++) even[evens + i] = odd[odds + i] = 0.f;
  }
};

constexpr float LOWEST = -3.402823466e38f;

// rows of the scratch: 3·inputs deinterleaved image rows, then a ring of 3 convolution rows for every channel, each with MARGIN before it
struct StemScratch {
  static constexpr int MARGIN = 16;
  int inputs, channels, half, row;
  SplitRows rows;
  StemScratch(int inputs_, int channels_, int width)
      : inputs(inputs_), channels(channels_), half((width + 1) / 2), row((half + MARGIN + 4 * WIDTH + 15) / 16 * 16), rows(width) {}
  size_t image_floats() const { return (static_cast<size_t>(rows.row) * 3 * inputs + 63) / 64 * 64; }
  size_t line_floats() const { return static_cast<size_t>(row) * 2; }  // one image row
  size_t floats() const { return line_floats() + image_floats() + static_cast<size_t>(row) * 3 * channels + 64; }
};

// Row y of the convolution for all channels, without activation; `ring` gets it at [channel][MARGIN + x].
static void stem_row(const Step& s, const StemScratch& k, const float* image, int y, float* line, float* image_rows, float* ring) {
  constexpr int N = WIDTH;
  const size_t plane = static_cast<size_t>(s.height) * s.width;
  for (int c = 0; c < k.inputs; c++)
    for (int d = 0; d < 3; d++) {
      const int iy = 2 * y + d - 1;
      float* to = image_rows + static_cast<size_t>(c * 3 + d) * k.rows.row;
      if (iy < 0 || iy >= s.height) std::memset(to, 0, sizeof(float) * k.rows.row);
      else if (c == k.inputs - 1 && iy == s.height - 1) {  // whole vectors would read behind the end of the picture
        std::memcpy(line, image + c * plane + static_cast<size_t>(iy) * s.width, sizeof(float) * s.width);
        k.rows.copy(line, to, s.width);
      } else k.rows.copy(image + c * plane + static_cast<size_t>(iy) * s.width, to, s.width);
    }
  for (int h = 0; h < k.channels; h += STEM_CHANNELS)
    for (int x = 0; x < k.half; x += 2 * N) {
      V<N> sum[STEM_CHANNELS][2];
#pragma GCC unroll 12
      for (int c = 0; c < STEM_CHANNELS; c++) sum[c][0] = sum[c][1] = V<N>{};
      const float* w = s.weight + static_cast<size_t>(h) * k.inputs * 9;  // packed in blocks of 6 channels
      const size_t next = static_cast<size_t>(6) * k.inputs * 9;
      for (int i = 0; i < 3 * k.inputs; i++) {
        const float* p = image_rows + static_cast<size_t>(i) * k.rows.row + x;
#pragma GCC unroll 3
        for (int d = 0; d < 3; d++, w += 6) {
          const float* q = p + (d & 1) * k.rows.part + d / 2;
          const V<N> a = load<N>(q), b = load<N>(q + N);
#pragma GCC unroll 12
          for (int c = 0; c < STEM_CHANNELS; c++) {
            const V<N> t = fill<N>(c < 6 ? w[c] : w[next + c - 6]);
            sum[c][0] += a * t;
            sum[c][1] += b * t;
          }
        }
      }
#pragma GCC unroll 12
      for (int c = 0; c < STEM_CHANNELS; c++) {
        float* out = ring + static_cast<size_t>(h + c) * k.row + StemScratch::MARGIN + x;
        store<N>(out, sum[c][0] + s.bias[h + c]);
        store<N>(out + N, sum[c][1] + s.bias[h + c]);
      }
    }
  for (int c = 0; c < k.channels; c++) {  // what the pool must not see
    float* out = ring + static_cast<size_t>(c) * k.row + StemScratch::MARGIN;
    out[-1] = LOWEST;
    for (int i = 0; i < 4; i++) out[k.half + i] = LOWEST;
  }
}

// image: (inputs, height, width) contiguous
static void stem(const Step& s, const Planes& m, Member me, Arena& arena, const float* image) {
  constexpr int N = WIDTH;
  const StemScratch k(s.kernel, static_cast<int>(m.output.size()), s.width);  // `kernel` holds the number of input channels
  float* line = arena.at_least(k.floats());
  float* image_rows = line + k.line_floats();
  float* rings = image_rows + k.image_floats();
  const size_t ring = static_cast<size_t>(k.row) * k.channels;
  const int conv_height = (s.height + 1) / 2, height = (conv_height + 1) / 2, width = (k.half + 1) / 2;
  int have = -1;
  for (int y = me.from(height); y < me.to(height); y++) {
    const int low = std::max(0, 2 * y - 1), high = std::min(conv_height - 1, 2 * y + 1);
    for (int r = std::max(low, have + 1); r <= high; r++) stem_row(s, k, image, have = r, line, image_rows, rings + (r % 3) * ring);
    for (int c = 0; c < k.channels; c++) {
      const float* row[3];
      for (int i = 0; i < 3; i++) row[i] = rings + (std::min(low + i, high) % 3) * ring + static_cast<size_t>(c) * k.row + StemScratch::MARGIN;
      auto tallest = [&](int x) { return larger<N>(larger<N>(load<N>(row[0] + x), load<N>(row[1] + x)), load<N>(row[2] + x)); };
      float* out = m.output[c] + static_cast<size_t>(y) * width;
      for (int x = 0; x < width; x += N) {
        const V<N> a = tallest(2 * x), b = tallest(2 * x + N), l = tallest(2 * x - 1), r = tallest(2 * x + N - 1);
        const V<N> best = larger<N>(larger<N>(Pairs<N>::even(a, b), Pairs<N>::odd(a, b)), Pairs<N>::even(l, r));
        const V<N> z = Activation::apply<N>(s.activation, best);
        if (x + N <= width) store<N>(out + x, z);
        else for (int i = 0; i < width - x; i++) out[x + i] = z[i];
      }
    }
  }
  if (me.rank == me.members - 1) for (float* out : m.output) clear_tail(out, height * width);
}

}  // namespace jtn
