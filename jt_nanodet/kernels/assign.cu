// Dynamic soft label assignment of a whole padded batch: three kernels, no host in between. Arithmetic: assign_common.h.
//
//   1. priors   16 priors a block: which lie inside a box, and the class cost of those as if no class were the right one
//   2. boxes    one block a box: overlap and cost of every candidate, dynamic k, the k cheapest
//   3. finish   one thread a prior: conflicts, ignored boxes, targets
#pragma once
#include "assign_common.h"

namespace jt_kernels {

constexpr int PRIOR_TILE = 16, PRIOR_THREADS = PRIOR_TILE * LANES, BOX_THREADS = 128, FINISH_THREADS = 128;

__global__ void assign_priors(AssignArguments a) {
    __shared__ int found[PRIOR_TILE];
    __shared__ double partial[PRIOR_TILE][LANES];
    const int tiles = (a.priors_count + PRIOR_TILE - 1) / PRIOR_TILE;
    const int b = blockIdx.x / tiles, row = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int p = blockIdx.x % tiles * PRIOR_TILE + row;
    const bool real = p < a.priors_count;
    const size_t at = (size_t)b * a.priors_count + p;
    if (lane == 0) found[row] = 0;
    __syncthreads();
    if (real) {
        const float x = a.priors[p * 4], y = a.priors[p * 4 + 1];
        for (int g = lane; g < a.gt_count[b]; g += LANES)
            if (inside(x, y, a.gt_boxes + ((size_t)b * a.gt_places + g) * 4)) { found[row] = 1; break; }
    }
    __syncthreads();
    const bool candidate = real && found[row];
    double sum = 0;
    if (candidate)
        for (int c = lane; c < a.classes; c += LANES) sum = add(sum, class_term((double)a.logits[at * a.classes + c]));
    partial[row][lane] = sum;
    __syncthreads();
    if (real && lane == 0) {
        a.candidate[at] = candidate;
        a.chosen[at] = 0;
        a.base[at] = candidate ? joined(partial[row]) : 0.0;
        if (candidate) atomicAdd(a.valid + b, 1);
    }
}

// The smallest key of the block, seen by all its threads; `slots` has a place for each thread.
__device__ __forceinline__ uint64_t block_least(uint64_t key, uint64_t* slots, uint64_t* groups) {
    constexpr int GROUP = 16;
    slots[threadIdx.x] = key;
    __syncthreads();
    if (threadIdx.x < BOX_THREADS / GROUP) {
        uint64_t least = ~0ull;
        // neighbouring threads read neighbouring words
        for (int i = 0; i < GROUP; i++) {
            const uint64_t other = slots[i * (BOX_THREADS / GROUP) + threadIdx.x];
            least = other < least ? other : least;
        }
        groups[threadIdx.x] = least;
    }
    __syncthreads();
    uint64_t least = ~0ull;
    for (int i = 0; i < BOX_THREADS / GROUP; i++) least = groups[i] < least ? groups[i] : least;
    return least;
}

__global__ void assign_boxes(AssignArguments a) {
    __shared__ uint64_t slots[BOX_THREADS], groups[BOX_THREADS / 16];
    const int b = blockIdx.x / a.gt_places, g = blockIdx.x % a.gt_places, valid = a.valid[b];
    const size_t column = (size_t)b * a.gt_places + g, images = (size_t)b * a.priors_count;
    if (g >= a.gt_count[b] || valid == 0) {  // the whole block leaves
        if (threadIdx.x == 0) a.topk_sum[column] = 0;
        return;
    }
    float* cost = a.cost + column * a.priors_count;
    float* overlap = a.overlap + column * a.priors_count;
    const int label = a.gt_labels[column];
    uint64_t nearest = ~0ull, cheapest = ~0ull;  // the best of this thread's priors that is not taken yet
    for (int p = threadIdx.x; p < a.priors_count; p += BOX_THREADS) {
        if (!a.candidate[images + p]) continue;
        const float share = overlap_of(a.boxes + (images + p) * 4, a.gt_boxes + column * 4);
        const float price = cost_of(a.base[images + p], a.logits + (images + p) * a.classes, label, a.classes, share, a.iou_factor);
        overlap[p] = share;
        cost[p] = price;
        const uint64_t near = near_key(share, p), cheap = cheap_key(price, p);
        nearest = near < nearest ? near : nearest;
        cheapest = cheap < cheapest ? cheap : cheapest;
    }
    // The best overlaps one by one, in descending order; whoever had the last one looks for its next.
    float sum = 0;
    const int count = a.topk < valid ? a.topk : valid;
    for (int round = 0; round < count; round++) {
        const uint64_t best = block_least(nearest, slots, groups);
        sum = add(sum, from_ordered(~(uint32_t)(best >> 32)));
        if (nearest == best) {
            nearest = ~0ull;
            for (int p = threadIdx.x; p < a.priors_count; p += BOX_THREADS) {
                if (!a.candidate[images + p]) continue;
                const uint64_t key = near_key(overlap[p], p);
                if (key > best && key < nearest) nearest = key;
            }
        }
        // `groups` of this round is read by all before it is written again: two barriers lie between
    }
    if (threadIdx.x == 0) a.topk_sum[column] = sum;
    const int k = dynamic_k(sum, valid);
    for (int round = 0; round < k; round++) {
        const uint64_t best = block_least(cheapest, slots, groups);
        if (cheapest == best) {
            atomicAdd(a.chosen + images + (uint32_t)best, (1 << CHOSEN_SHIFT) + g + 1);
            cheapest = ~0ull;
            for (int p = threadIdx.x; p < a.priors_count; p += BOX_THREADS) {
                if (!a.candidate[images + p]) continue;
                const uint64_t key = cheap_key(cost[p], p);
                if (key > best && key < cheapest) cheapest = key;
            }
        }
    }
}

__global__ void assign_finish(AssignArguments a) {
    const size_t at = (size_t)blockIdx.x * FINISH_THREADS + threadIdx.x;
    if (at < (size_t)a.images * a.priors_count) finish_prior(a, (int)(at / a.priors_count), (int)(at % a.priors_count));
}

// Queue everything on `stream`; returns at once.
static inline void assign_cuda(const AssignArguments& a, cudaStream_t stream) {
    const int tiles = (a.priors_count + PRIOR_TILE - 1) / PRIOR_TILE;
    const size_t rows = (size_t)a.images * a.priors_count;
    cudaMemsetAsync(a.valid, 0, sizeof(int32_t) * a.images, stream);
    KERNEL_LAUNCH(assign_priors, a.images * tiles, PRIOR_THREADS, stream, a);
    KERNEL_LAUNCH(assign_boxes, a.images * a.gt_places, BOX_THREADS, stream, a);
    KERNEL_LAUNCH(assign_finish, (int)((rows + FINISH_THREADS - 1) / FINISH_THREADS), FINISH_THREADS, stream, a);
}

}  // namespace jt_kernels
