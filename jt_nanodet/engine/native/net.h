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
  Barrier barrier_;

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
    auto answer = [&](int i) {
      const size_t row = static_cast<size_t>(i) * priors_;
      return Answer{raw ? raw + row * outputs_ : nullptr, decoded ? decoded + row * (4 + classes_) : nullptr, classes_, bins_,
                    static_cast<float>(height_), static_cast<float>(width_)};
    };
    const size_t image = static_cast<size_t>(inputs_) * height_ * width_;
#pragma omp parallel num_threads(threads)
    {
      const int rank = omp_get_thread_num(), members = omp_get_num_threads();
      Worker& worker = *workers_[rank];
      // as many images as fill the team are computed whole by one member each; the rest by all members together
      const int alone = members == 1 ? 0 : count / members * members;
      if (alone) {
        bind(worker);
        for (int i = rank; i < alone; i += members)
          for (size_t k = 0; k < steps_.size(); k++) step(k, worker.bound[k], Member{0, 1}, worker, images + i * image, answer(i));
        barrier_.wait(members);  // worker 0's arena serves the team next
      }
      for (int i = alone; i < count; i++)
        for (size_t k = 0; k < steps_.size(); k++) {
          const double started = profile && rank == 0 ? seconds() : 0.0;
          step(k, workers_[0]->bound[k], Member{rank, members}, worker, images + i * image, answer(i));
          barrier_.wait(members);
          if (profile && rank == 0) step_seconds[k] += seconds() - started;
        }
    }
  }

 private:
  void bind(Worker& worker) {
    if (!worker.bound.empty()) return;
    float* arena = worker.planes.at_least(arena_floats_ + 256);
    worker.bound.resize(steps_.size());
    for (size_t k = 0; k < steps_.size(); k++) worker.bound[k].bind(steps_[k], arena);
  }

  void step(size_t k, const Planes& planes, Member me, Worker& worker, const float* image, const Answer& answer) {
    const Step& s = steps_[k];
    switch (s.kind) {
      case STEM: stem(s, planes, me, worker.scratch, image); break;
      case POINTWISE: pointwise(s, planes, me); break;
      case DEPTHWISE: depthwise(s, planes, me, worker.scratch); break;
      case UPSAMPLE: upsample(s, planes, me, worker.scratch); break;
      case HEAD: head(s, planes, me, worker.scratch, answer); break;
    }
  }
};

}  // namespace jtn
