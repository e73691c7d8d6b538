// A step of the plan, as every layer's file gets it: pointers to channel planes, packed weights, sizes.
#pragma once
#include <algorithm>
#include <vector>

#include "native/vec.h"

namespace jtn {

enum Kind { STEM = 0, POINTWISE = 1, DEPTHWISE = 2, UPSAMPLE = 3, HEAD = 4 };

struct Step {
  int kind, height, width;          // of the input
  int kernel, stride, first_prior;  // first_prior: row of the head's output
  Activation activation;
  const float* weight;
  const float* bias;
  std::vector<int> input, output, residual;  // offsets of planes in the arena, in floats
};

// What is bound to memory at run time: a worker's or the team's arena.
struct Planes {
  std::vector<const float*> input, residual;
  std::vector<float*> output;
  void bind(const Step& s, float* arena) {
    input.clear(), residual.clear(), output.clear();
    for (int o : s.input) input.push_back(arena + o);
    for (int o : s.residual) residual.push_back(arena + o);
    for (int o : s.output) output.push_back(arena + o);
  }
};

// A member of the team that works on one image: number `rank` of `members`.
struct Member {
  int rank, members;
  int from(int n) const { return static_cast<int>(static_cast<int64_t>(n) * rank / members); }
  int to(int n) const { return static_cast<int>(static_cast<int64_t>(n) * (rank + 1) / members); }
};

// Planes end at a multiple of 16 floats; what lies behind the last pixel is kept at zero, because 1×1 convolutions compute it too.
static inline void clear_tail(float* plane, int pixels) {
  for (int i = pixels; i % 16; i++) plane[i] = 0.f;
}

}  // namespace jtn
