// Found before CUDA's own <cub/cub.cuh>, which it includes. CUB 3 (CUDA 13) dropped a few names that
// Jittor 1.3.11 uses: Max in other/code_softmax.py, LaneId in depthwise_conv.py, the two iterators in
// extern/cuda/cub/ops/cub_where_op.cc.
#pragma once
#include_next <cub/cub.cuh>
#include <cuda/version>

#if CCCL_MAJOR_VERSION >= 3
#include <cstddef>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

namespace cub {

struct Max {
    template <class T>
    __host__ __device__ T operator()(const T &left, const T &right) const { return right > left ? right : left; }
};

struct Min {
    template <class T>
    __host__ __device__ T operator()(const T &left, const T &right) const { return right < left ? right : left; }
};

struct Sum {
    template <class T>
    __host__ __device__ T operator()(const T &left, const T &right) const { return left + right; }
};

// Position of the calling thread in its warp, from the register that holds it.
__device__ inline unsigned LaneId() {
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

template <class Value, class Offset = std::ptrdiff_t>
using CountingInputIterator = thrust::counting_iterator<Value>;

template <class Value, class Function, class Iterator, class Offset = std::ptrdiff_t>
using TransformInputIterator = thrust::transform_iterator<Function, Iterator, Value>;

}  // namespace cub
#endif
