// What tests/engine/test_layers.py calls: single layers on planes with NaN between and behind them.
#include "native/depthwise.h"
#include "native/upsample.h"

#include <limits>

using namespace jtn;

namespace {
// Planes of `pixels` floats each, `apart` floats from one to the next; `in` null: nothing is copied into them.
struct Field {
  std::vector<float> memory;
  size_t apart;
  Field(const float* in, int channels, int pixels) : apart((pixels + 15) / 16 * 16 + 16) {
    memory.assign(64 + apart * channels + 192, std::numeric_limits<float>::quiet_NaN());
    for (int c = 0; in && c < channels; c++) std::memcpy(plane(c), in + static_cast<size_t>(c) * pixels, sizeof(float) * pixels);
  }
  float* plane(int c) { return memory.data() + 64 + apart * c; }
};
}  // namespace

extern "C" {
int width() { return WIDTH; }

// x (channels, height, width) by `members` one after the other; y (channels, outputs); false where the padding behind a plane is not zero
bool layer(int upsampling, const float* x, const float* w, const float* bias, int channels, int height, int width, int kernel, int stride, float slope,
           int members, float* y) {
  Step s{};
  s.height = height, s.width = width, s.kernel = kernel, s.stride = stride, s.weight = w, s.bias = bias;
  s.activation.on = slope < 1.f, s.activation.slope = slope;
  const int outputs = upsampling ? 4 * height * width : ((height + stride - 1) / stride) * ((width + stride - 1) / stride);
  Field in(x, channels, height * width), out(nullptr, channels, outputs);
  Planes m;
  for (int c = 0; c < channels; c++) m.input.push_back(in.plane(c)), m.output.push_back(out.plane(c));
  Arena scratch;
  for (int rank = members; rank--;) upsampling ? upsample(s, m, Member{rank, members}) : depthwise(s, m, Member{rank, members}, scratch);
  bool zeros = true;
  for (int c = 0; c < channels; c++) {
    std::memcpy(y + static_cast<size_t>(c) * outputs, out.plane(c), sizeof(float) * outputs);
    for (int i = outputs; i % 16; i++) zeros = zeros && out.plane(c)[i] == 0.f;
  }
  return zeros;
}
}
