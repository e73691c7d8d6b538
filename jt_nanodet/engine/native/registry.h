// The plans this process has seen, so that a plan is read and its weights are copied once, not at every call.
#pragma once
#include "native/net.h"

namespace jtn {

struct Known {
  std::unique_ptr<Net> net;
  int64_t version = -1, used = 0;
};

// At most KEPT plans stay; the one unused for longest goes, and is read again should it come back.
static Net& known_net(int64_t id, int64_t version, const int32_t* program, const float* weights, size_t weight_floats) {
  constexpr size_t KEPT = 8;
  static std::map<int64_t, Known> all;
  static int64_t clock = 0;
  Known& one = all[id];
  one.used = ++clock;
  if (!one.net) one.net = std::make_unique<Net>();
  if (one.version != version) {
    one.net->read(program, weights, weight_floats);
    one.version = version;
  }
  if (all.size() > KEPT) {
    auto oldest = all.begin();
    for (auto i = all.begin(); i != all.end(); ++i)
      if (i->second.used < oldest->second.used) oldest = i;
    all.erase(oldest);
  }
  return *one.net;
}

enum Wanted { RAW = 0, DECODED = 1, SECONDS = 2 };

// SECONDS: out gets each step's seconds, on one image and the whole team.
static void compute(Net& net, int wanted, const float* images, int count, float* out, int threads) {
  if (wanted == RAW) net.run(images, count, out, nullptr, threads);
  else if (wanted == DECODED) net.run(images, count, nullptr, out, threads);
  else {
    std::vector<float> raw(static_cast<size_t>(net.priors()) * net.outputs());
    std::fill(net.step_seconds.begin(), net.step_seconds.end(), 0.0);
    net.run(images, 1, raw.data(), nullptr, threads, true);
    std::copy(net.step_seconds.begin(), net.step_seconds.end(), out);
  }
}

}  // namespace jtn
