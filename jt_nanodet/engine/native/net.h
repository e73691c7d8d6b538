// Runs a plan: reads it once, keeps its weights aligned, and computes any number of images with one team of threads.
#pragma once
#include <omp.h>

#include <map>
#include <memory>

#include "native/depthwise.h"
#include "native/head.h"
#include "native/pointwise.h"
#include "native/stem.h"
#include "native/team.h"
#include "native/upsample.h"

namespace jtn {

class Net {
  static constexpr int HEADER = 16;  // whole numbers before a step's planes, as `pack.py` writes them
  std::vector<Step> steps_;
  Arena weights_;
  size_t arena_floats_ = 0;
  int inputs_ = 0, height_ = 0, width_ = 0, priors_ = 0, outputs_ = 0, classes_ = 0, bins_ = 0;

  // What one worker owns: its arena (or the team's), its scratch, and pointers into them.
  struct Worker {
    Arena planes, scratch;
    std::vector<Planes> bound;  // every step's planes in this arena
  };
  std::vector<std::unique_ptr<Worker>> workers_;
  Stages stages_;

 public:
  std::vector<double> step_seconds;  // filled where a run is profiled

  // program: see pack.py; throws nothing, the Python side has checked it
  void read(const int32_t* program, const float* weights, size_t weight_floats) {
    float* own = weights_.at_least(weight_floats + 64);
    std::memcpy(own, weights, weight_floats * sizeof(float));
    const int count = program[0];
    arena_floats_ = static_cast<size_t>(program[1]);
    inputs_ = program[2], height_ = program[3], width_ = program[4], priors_ = program[5], outputs_ = program[6], classes_ = program[7];
    bins_ = program[8];
    const int32_t* p = program + HEADER;
    steps_.clear();
    for (int i = 0; i < count; i++) {
      Step s;
      s.kind = p[0], s.height = p[1], s.width = p[2], s.kernel = p[3], s.stride = p[4], s.first_prior = p[5];
      s.activation.on = p[6] != 0;
      std::memcpy(&s.activation.slope, p + 7, 4);
      std::memcpy(&s.activation.cap, p + 8, 4);
      s.weight = own + p[9], s.bias = own + p[10];
      const int in = p[11], out = p[12], residual = p[13];
      p += HEADER;
      s.input.assign(p, p + in), p += in;
      s.output.assign(p, p + out), p += out;
      s.residual.assign(p, p + residual), p += residual;
      steps_.push_back(std::move(s));
    }
    workers_.clear();
    step_seconds.assign(count, 0.0);
  }

  int priors() const { return priors_; }
  int outputs() const { return outputs_; }

  // images (count, inputs, height, width) to raw (count, P, outputs) or decoded (count, P, 4 + classes); null where not wanted.
  void run(const float* images, int count, float* raw, float* decoded, int threads, bool profile = false) {
    threads = std::max(1, threads);
    while (static_cast<int>(workers_.size()) < threads) workers_.push_back(std::make_unique<Worker>());
    bind(*workers_[0]);  // whose arena also serves the whole team
    const Batch batch{images, raw, decoded};
    // as many images as fill the team are computed whole by one member each; the rest by all members together
    const int alone = threads == 1 ? 0 : count / threads * threads;
    if (alone) each_by_one(batch, alone, threads);
    if (alone < count) each_by_all(batch, alone, count, threads, profile);
  }

 private:
  struct Batch {
    const float* images;
    float *raw, *decoded;
  };

  const float* image(const Batch& batch, int i) const { return batch.images + static_cast<size_t>(i) * inputs_ * height_ * width_; }
  Answer answer(const Batch& batch, int i) const {
    const size_t row = static_cast<size_t>(i) * priors_;
    return Answer{batch.raw ? batch.raw + row * outputs_ : nullptr, batch.decoded ? batch.decoded + row * (4 + classes_) : nullptr, classes_, bins_,
                  static_cast<float>(height_), static_cast<float>(width_)};
  }

  void each_by_one(const Batch& batch, int count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int i = 0; i < count; i++) {
      Worker& worker = *workers_[omp_get_thread_num()];
      bind(worker);
      for (size_t k = 0; k < steps_.size(); k++) step(k, worker.bound[k], Member{0, 1}, worker, image(batch, i), answer(batch, i));
    }
  }

  // In the arena of worker 0, each step a stage. Profiled: adds each step's seconds.
  void each_by_all(const Batch& batch, int first, int count, int threads, bool profile) {
    std::vector<double> ends(profile ? (count - first) * steps_.size() : 0);
    double started = seconds();
    stages_.start(threads, profile ? ends.data() : nullptr);
#pragma omp parallel num_threads(threads)
    {
      const int rank = omp_get_thread_num();
      int stage = 0;
      for (int i = first; i < count; i++)
        for (size_t k = 0; k < steps_.size(); k++)
          stages_.run(++stage, rank, [&](int share) {
            step(k, workers_[0]->bound[k], Member{share, threads}, *workers_[rank], image(batch, i), answer(batch, i));
          });
    }
    for (size_t i = 0; i < ends.size(); started = ends[i++]) step_seconds[i % steps_.size()] += ends[i] - started;
  }

  void bind(Worker& worker) {
    if (!worker.bound.empty()) return;
    float* arena = worker.planes.at_least(arena_floats_ + 256) + 64;  // steps read some floats before and behind what they use
    worker.bound.resize(steps_.size());
    for (size_t k = 0; k < steps_.size(); k++) worker.bound[k].bind(steps_[k], arena);
  }

  void step(size_t k, const Planes& planes, Member me, Worker& worker, const float* image, const Answer& answer) {
    const Step& s = steps_[k];
    switch (s.kind) {
      case STEM: stem(s, planes, me, worker.scratch, image); break;
      case POINTWISE: pointwise(s, planes, me); break;
      case DEPTHWISE: depthwise(s, planes, me, worker.scratch); break;
      case UPSAMPLE: upsample(s, planes, me); break;
      case HEAD: head(s, planes, me, worker.scratch, answer); break;
    }
  }
};

}  // namespace jtn
