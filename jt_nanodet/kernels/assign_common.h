// The arithmetic of the assigner, element by element; shared by assign.cu and assign_cpu.h.
//
// Boxes are x1, y1, x2, y2. The overlap is computed in float32 in the order of `boxes.pairwise_overlap`. The cost is computed in double
// and rounded once, so it depends on no library's exp or log and hardly on the order of its sum.
#pragma once
#include "common.h"

namespace jt_kernels {

// Everything one call works on; all pointers lie on one device. B images, P priors, G box places an image, C classes, I ignored places.
struct AssignArguments {
    const float* logits;          // (B, P, C)
    const float* boxes;           // (B, P, 4) predictions
    const float* priors;          // (P, 4) x, y, stride, stride
    const float* gt_boxes;        // (B, G, 4), the first gt_count[b] of each image count
    const int32_t* gt_labels;     // (B, G)
    const int32_t* gt_count;      // (B,)
    const float* ignored;         // (B, I, 4)
    const int32_t* ignored_count; // (B,)
    int32_t* gt_index;            // (B, P) 1-based, 0 background, -1 not trained on
    float* iou;                   // (B, P) with the assigned box; UNMATCHED without one, 0 in images without candidates
    int32_t* label;               // (B, P) class, C where there is none
    float* quality;               // (B, P) iou where positive, else 0
    float* weight;                // (B, P) 0 where not trained on, else 1
    float* target;                // (B, P, 4) the assigned box, else 0
    float* distance;              // (B, P, 4) from prior to each side in strides, clamped; else 0
    int32_t* candidate;           // (B, P) 1 where the prior lies inside some box
    float* topk_sum;              // (B, G) sum of each box's best overlaps
    float* cost;                  // (B, G, P), of candidates alone
    float* overlap;               // (B, G, P), of candidates alone
    double* base;                 // (B, P) workspace: cost of all classes as if none were the box's
    int32_t* chosen;              // (B, P) workspace: number of boxes that chose the prior << 20 | sum of their numbers
    int32_t* valid;               // (B,) number of candidates
    int images, priors_count, gt_places, classes, ignored_places, topk;
    double iou_factor;
    float ignore_threshold;       // <= 0: off
    float limit;                  // upper end of a distance, in strides
};

constexpr float UNMATCHED = -1e8f;  // upstream's filler
constexpr int CHOSEN_SHIFT = 20;    // boxes below are summed; with at most 1000 boxes their numbers' sum stays below 2^20
constexpr int LANES = 8;            // partial sums over the classes

// strictly inside
KERNEL_FN bool inside(float x, float y, const float* g) {
    return sub(x, g[0]) > 0 && sub(y, g[1]) > 0 && sub(g[2], x) > 0 && sub(g[3], y) > 0;
}

KERNEL_FN float area_of(const float* b) { return mul(sub(b[2], b[0]), sub(b[3], b[1])); }

KERNEL_FN float intersection(const float* b, const float* g) {
    const float left = b[0] > g[0] ? b[0] : g[0], top = b[1] > g[1] ? b[1] : g[1];
    const float right = b[2] < g[2] ? b[2] : g[2], bottom = b[3] < g[3] ? b[3] : g[3];
    const float w = sub(right, left), h = sub(bottom, top);
    return mul(w > 0 ? w : 0.0f, h > 0 ? h : 0.0f);
}

// Intersection over union, the union at least 1e-6; infinity for NaN.
KERNEL_FN float overlap_of(const float* b, const float* g) {
    const float inter = intersection(b, g), whole = sub(add(area_of(b), area_of(g)), inter);
    const float share = quotient(inter, whole < 1e-6f ? 1e-6f : whole);
    return share == share ? share : (float)INFINITY;
}

// Intersection over the area of b, the area at least 1e-6.
KERNEL_FN float covered(const float* b, const float* g) {
    const float area = area_of(b);
    return quotient(intersection(b, g), area < 1e-6f ? 1e-6f : area);
}

// Cross entropy of the logit x with the target t, times the squared distance of its sigmoid from the target.
KERNEL_FN double class_term(double x, double t) {
    const double y = exp_of(x < 0 ? x : -x), one = add(1.0, y);
    const double sigmoid = quotient(x < 0 ? y : 1.0, one), distance = sub(t, sigmoid);
    const double entropy = add(sub(x > 0 ? x : 0.0, mul(x, t)), log1p_of(y));
    return mul(entropy, mul(distance, distance));
}
KERNEL_FN double class_term(double x) {  // target 0; not x * 0, which is NaN for an infinite x
    const double y = exp_of(x < 0 ? x : -x), one = add(1.0, y);
    const double sigmoid = quotient(x < 0 ? y : 1.0, one);
    return mul(add(x > 0 ? x : 0.0, log1p_of(y)), mul(sigmoid, sigmoid));
}

// The fixed order in which partial sums over the classes c = k, k + 8, ... are joined.
KERNEL_FN double joined(const double* s) {
    return add(add(add(s[0], s[4]), add(s[2], s[6])), add(add(s[1], s[5]), add(s[3], s[7])));
}

// Cost of a prior for a box: base with the label's class replaced, minus the logarithm of the overlap; infinity for NaN.
KERNEL_FN float cost_of(double base, const float* logits, int label, int classes, float overlap, double factor) {
    if (!(overlap < (float)INFINITY)) return (float)INFINITY;
    double cost = base;
    if (label >= 0 && label < classes) {
        const double x = logits[label];
        cost = add(sub(cost, class_term(x)), class_term(x, (double)overlap));
    }
    const float rounded = (float)sub(cost, mul(log_of((double)add(overlap, 1e-7f)), factor));
    return rounded == rounded ? rounded : (float)INFINITY;
}

// How many priors a box may take: the sum of its best overlaps, truncated, from 1 to the number of candidates.
KERNEL_FN int dynamic_k(float sum, int valid) {
    if (!(sum < 2147483648.0f)) return 1;  // what a conversion of infinity or NaN gives on x86, clamped
    const int k = (int)sum;
    return k < 1 ? 1 : k > valid ? valid : k;
}

// Smaller is cheaper; of equal costs the lower prior. Never ~0.
KERNEL_FN uint64_t cheap_key(float cost, int prior) { return (uint64_t)ordered(cost) << 32 | (uint32_t)prior; }
// Smaller is a larger overlap.
KERNEL_FN uint64_t near_key(float overlap, int prior) { return (uint64_t)(~ordered(overlap)) << 32 | (uint32_t)prior; }

// The decision for one prior and all it is trained on.
KERNEL_FN void finish_prior(const AssignArguments& a, int b, int p) {
    const size_t at = (size_t)b * a.priors_count + p;
    const float* box = a.boxes + at * 4;
    const float* gts = a.gt_boxes + (size_t)b * a.gt_places * 4;
    const int times = a.chosen[at] >> CHOSEN_SHIFT;
    int number = a.chosen[at] & ((1 << CHOSEN_SHIFT) - 1);
    if (times > 1) {  // the cheapest of all boxes, not only of those that chose it
        float best = (float)INFINITY;
        number = 1;
        for (int g = 0; g < a.gt_count[b]; g++) {
            const float cost = a.cost[((size_t)b * a.gt_places + g) * a.priors_count + p];
            if (cost < best) { best = cost; number = g + 1; }
        }
    }
    float iou = a.valid[b] > 0 ? UNMATCHED : 0.0f;
    if (number > 0) iou = a.overlap[((size_t)b * a.gt_places + number - 1) * a.priors_count + p];
    if (a.ignore_threshold > 0)
        for (int i = 0; i < a.ignored_count[b]; i++)
            if (covered(box, a.ignored + ((size_t)b * a.ignored_places + i) * 4) > a.ignore_threshold) number = -1;
    a.gt_index[at] = number;
    a.iou[at] = iou;
    a.label[at] = number > 0 ? a.gt_labels[(size_t)b * a.gt_places + number - 1] : a.classes;
    a.quality[at] = number > 0 ? iou : 0.0f;
    a.weight[at] = number < 0 ? 0.0f : 1.0f;
    const float x = a.priors[p * 4], y = a.priors[p * 4 + 1], stride = a.priors[p * 4 + 2];
    for (int side = 0; side < 4; side++) {
        float edge = 0, length = 0;
        if (number > 0) {
            const float centre = side % 2 ? y : x;
            edge = gts[(number - 1) * 4 + side];
            length = quotient(side < 2 ? sub(centre, edge) : sub(edge, centre), stride);
            length = length < 0 ? 0.0f : length > a.limit ? a.limit : length;
        }
        a.target[at * 4 + side] = edge;
        a.distance[at * 4 + side] = length;
    }
}

}  // namespace jt_kernels
