// The arithmetic of filter and suppression, element by element; shared by nms.cu and nms_cpu.h.
#pragma once
#include "common.h"

namespace jt_kernels {

// Everything one call works on; all pointers lie on one device. B images, P priors, C classes, M detections at most.
struct NmsArguments {
    const float* boxes;      // (B, P, 4) x1, y1, x2, y2
    const float* scores;     // (B, P, C)
    float* detections;       // (B, M, 5) box and score, best first; 0 after the last
    int32_t* kept;           // (B, M) prior * C + class; -1 after the last
    int32_t* kept_count;     // (B,)
    int32_t* candidates;     // (B,) how many scores passed the threshold
    uint32_t* reach;         // (B,) workspace: largest coordinate of what passed, as `ordered`
    uint64_t* keys;          // (B, P * C) workspace: what passed, as `best_key`
    int images, priors_count, classes, most;
    float score_threshold;
    double iou_threshold;
};

constexpr uint32_t NAN_REACH = 0xffffffffu;  // above every number: a NaN among the coordinates wins, as in NumPy's max

KERNEL_FN uint32_t coordinate_key(float x) { return x == x ? ordered(x) : NAN_REACH; }
KERNEL_FN float reach_of(uint32_t key) { return key == NAN_REACH ? float_of(0x7fc00000u) : from_ordered(key); }

// Larger is better; of equal scores the lower index. Never 0.
KERNEL_FN uint64_t best_key(float score, uint32_t index) { return (uint64_t)ordered(score) << 32 | (uint32_t)~index; }
KERNEL_FN uint32_t index_of(uint64_t key) { return ~(uint32_t)key; }
KERNEL_FN float score_of(uint64_t key) { return from_ordered((uint32_t)(key >> 32)); }

struct Placed { float x1, y1, x2, y2, area; };

// A candidate's box, moved to its class's own place; the rounding of that sum is part of the answer.
KERNEL_FN Placed placed(const float* boxes, uint32_t index, int classes, float step) {
    const float* b = boxes + (size_t)(index / classes) * 4;
    const float offset = mul((float)(index % classes), step);
    Placed r = {add(b[0], offset), add(b[1], offset), add(b[2], offset), add(b[3], offset), 0};
    r.area = mul(sub(r.x2, r.x1), sub(r.y2, r.y1));
    return r;
}

// Whether two boxes overlap too much. In double as torchvision's CPU kernel compares: the float32 nearest to 0.6 lies above 0.6.
// A box without area has no IoU (0 / 0), not even with itself.
KERNEL_FN bool suppresses(const Placed& kept, const Placed& other, double threshold) {
    // NaN in any coordinate makes the areas, and with them the IoU, NaN
    const float w = sub(kept.x2 < other.x2 ? kept.x2 : other.x2, kept.x1 > other.x1 ? kept.x1 : other.x1);
    const float h = sub(kept.y2 < other.y2 ? kept.y2 : other.y2, kept.y1 > other.y1 ? kept.y1 : other.y1);
    const float inter = mul(w > 0 ? w : 0.0f, h > 0 ? h : 0.0f);
    return (double)quotient(inter, sub(add(kept.area, other.area), inter)) > threshold;
}

}  // namespace jt_kernels
