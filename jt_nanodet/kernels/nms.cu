// Filter, class-wise suppression and the best M of a whole batch: two kernels, no host in between. Arithmetic: nms_common.h.
//
//   1. filter    a thread a score: what passes goes into the image's list of keys, in any order
//   2. suppress  one block an image: M times the best key of all threads, which each then strike from their share of the list what the
//                winner suppresses and look for their next best. That is greedy suppression in sorted order, without a sort: no more than
//                M keys of a list of up to P * C are ever needed in order. Keys are unique, so the list's order does not show.
#pragma once
#include "nms_common.h"

namespace jt_kernels {

constexpr int FILTER_THREADS = 256, FILTER_EACH = 8, SUPPRESS_THREADS = 512, SUPPRESS_GROUP = 16;

__global__ void nms_filter(NmsArguments a) {
    __shared__ int passed, first;
    __shared__ uint32_t reach;
    const uint32_t total = (uint32_t)a.priors_count * a.classes, chunk = FILTER_THREADS * FILTER_EACH;
    const uint32_t chunks = (total + chunk - 1) / chunk, b = blockIdx.x / chunks, start = blockIdx.x % chunks * chunk;
    const float* scores = a.scores + (size_t)b * total;
    const float* boxes = a.boxes + (size_t)b * a.priors_count * 4;
    if (threadIdx.x == 0) { passed = 0; reach = 0; }
    __syncthreads();
    uint64_t mine[FILTER_EACH];
    int place[FILTER_EACH];
    for (int k = 0; k < FILTER_EACH; k++) {
        const uint32_t i = start + k * FILTER_THREADS + threadIdx.x;
        place[k] = -1;
        if (i >= total || !(scores[i] > a.score_threshold)) continue;
        mine[k] = best_key(scores[i], i);
        place[k] = atomicAdd(&passed, 1);
        uint32_t far = 0;
        for (int j = 0; j < 4; j++) {
            const uint32_t key = coordinate_key(boxes[(size_t)(i / a.classes) * 4 + j]);
            far = key > far ? key : far;
        }
        atomicMax(&reach, far);
    }
    __syncthreads();
    if (threadIdx.x == 0 && passed > 0) {
        first = atomicAdd(a.candidates + b, passed);
        atomicMax(a.reach + b, reach);
    }
    __syncthreads();
    uint64_t* keys = a.keys + (size_t)b * total;
    for (int k = 0; k < FILTER_EACH; k++)
        if (place[k] >= 0) keys[first + place[k]] = mine[k];
}

__global__ void nms_suppress(NmsArguments a) {
    __shared__ uint64_t slots[SUPPRESS_THREADS], groups[SUPPRESS_THREADS / SUPPRESS_GROUP];
    const int b = blockIdx.x, count = a.candidates[b], t = threadIdx.x;
    const float* boxes = a.boxes + (size_t)b * a.priors_count * 4;
    uint64_t* keys = a.keys + (size_t)b * a.priors_count * a.classes;
    const float step = add(reach_of(a.reach[b]), 1.0f);
    uint64_t mine = 0;  // the best of this thread's keys that is neither kept nor struck out
    for (int i = t; i < count; i += SUPPRESS_THREADS) mine = keys[i] > mine ? keys[i] : mine;
    int found = 0;
    for (; found < a.most; found++) {
        slots[t] = mine;
        __syncthreads();
        if (t < SUPPRESS_THREADS / SUPPRESS_GROUP) {
            uint64_t best = 0;
            for (int i = 0; i < SUPPRESS_GROUP; i++) {
                const uint64_t other = slots[i * (SUPPRESS_THREADS / SUPPRESS_GROUP) + t];
                best = other > best ? other : best;
            }
            groups[t] = best;
        }
        __syncthreads();
        uint64_t best = 0;
        for (int i = 0; i < SUPPRESS_THREADS / SUPPRESS_GROUP; i++) best = groups[i] > best ? groups[i] : best;
        if (best == 0) break;  // the same for all threads
        const uint32_t index = index_of(best);
        const Placed winner = placed(boxes, index, a.classes, step);
        if (t == 0) {
            const float* box = boxes + (size_t)(index / a.classes) * 4;
            float* row = a.detections + ((size_t)b * a.most + found) * 5;
            for (int j = 0; j < 4; j++) row[j] = box[j];
            row[4] = a.scores[(size_t)b * a.priors_count * a.classes + index];
            a.kept[(size_t)b * a.most + found] = (int32_t)index;
        }
        mine = 0;
        for (int i = t; i < count; i += SUPPRESS_THREADS) {
            const uint64_t key = keys[i];
            if (key == 0) continue;
            if (key == best || suppresses(winner, placed(boxes, index_of(key), a.classes, step), a.iou_threshold)) keys[i] = 0;
            else mine = key > mine ? key : mine;
        }
    }
    if (t == 0) a.kept_count[b] = found;
    for (int i = found + t; i < a.most; i += SUPPRESS_THREADS) {
        a.kept[(size_t)b * a.most + i] = -1;
        for (int j = 0; j < 5; j++) a.detections[((size_t)b * a.most + i) * 5 + j] = 0;
    }
}

// Queue everything on `stream`; returns at once.
static inline void nms_cuda(const NmsArguments& a, cudaStream_t stream) {
    const uint32_t total = (uint32_t)a.priors_count * a.classes, chunk = FILTER_THREADS * FILTER_EACH;
    cudaMemsetAsync(a.candidates, 0, sizeof(int32_t) * a.images, stream);
    cudaMemsetAsync(a.reach, 0, sizeof(uint32_t) * a.images, stream);
    KERNEL_LAUNCH(nms_filter, a.images * (int)((total + chunk - 1) / chunk), FILTER_THREADS, stream, a);
    KERNEL_LAUNCH(nms_suppress, a.images, SUPPRESS_THREADS, stream, a);
}

}  // namespace jt_kernels
