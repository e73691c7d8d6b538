// Dynamic soft label assignment of a whole padded batch on the CPU. Arithmetic: assign_common.h; decisions as in assign.cu.
#pragma once
#include <algorithm>
#include <vector>

#include "assign_common.h"

namespace jt_kernels {

static void assign_priors_cpu(const AssignArguments& a, int b, std::vector<int>& rows) {
    const float* gts = a.gt_boxes + (size_t)b * a.gt_places * 4;
    rows.clear();
    for (int p = 0; p < a.priors_count; p++) {
        const size_t at = (size_t)b * a.priors_count + p;
        bool found = false;
        for (int g = 0; g < a.gt_count[b] && !found; g++) found = inside(a.priors[p * 4], a.priors[p * 4 + 1], gts + g * 4);
        a.candidate[at] = found;
        a.chosen[at] = 0;
        a.base[at] = 0;
        if (found) rows.push_back(p);
    }
    a.valid[b] = (int)rows.size();
}

static double class_costs(const float* logits, int classes) {
    double sums[LANES] = {};
    int c = 0;
    for (; c + LANES <= classes; c += LANES)
        for (int lane = 0; lane < LANES; lane++) sums[lane] = add(sums[lane], class_term((double)logits[c + lane]));
    for (int lane = 0; c + lane < classes; lane++) sums[lane] = add(sums[lane], class_term((double)logits[c + lane]));
    return joined(sums);
}

static void assign_box_cpu(const AssignArguments& a, int b, int g, const std::vector<int>& rows, std::vector<uint64_t>& near, std::vector<uint64_t>& cheap) {
    const size_t column = (size_t)b * a.gt_places + g, images = (size_t)b * a.priors_count;
    const int valid = (int)rows.size(), label = a.gt_labels[column];
    if (g >= a.gt_count[b] || valid == 0) {
        a.topk_sum[column] = 0;
        return;
    }
    near.resize(valid);
    cheap.resize(valid);
    for (int i = 0; i < valid; i++) {
        const int p = rows[i];
        const float share = overlap_of(a.boxes + (images + p) * 4, a.gt_boxes + column * 4);
        const float price = cost_of(a.base[images + p], a.logits + (images + p) * a.classes, label, a.classes, share, a.iou_factor);
        a.overlap[column * a.priors_count + p] = share;
        a.cost[column * a.priors_count + p] = price;
        near[i] = near_key(share, p);
        cheap[i] = cheap_key(price, p);
    }
    const int count = std::min(a.topk, valid);
    std::partial_sort(near.begin(), near.begin() + count, near.end());
    float sum = 0;
    for (int i = 0; i < count; i++) sum = add(sum, from_ordered(~(uint32_t)(near[i] >> 32)));
    a.topk_sum[column] = sum;
    const int k = dynamic_k(sum, valid);
    std::partial_sort(cheap.begin(), cheap.begin() + k, cheap.end());
    for (int i = 0; i < k; i++) {
        int32_t* word = a.chosen + images + (uint32_t)cheap[i];
#pragma omp atomic
        *word += (1 << CHOSEN_SHIFT) + g + 1;
    }
}

// One image by the calling thread.
static void assign_image_cpu(const AssignArguments& a, int b, std::vector<int>& rows, std::vector<uint64_t>& near, std::vector<uint64_t>& cheap) {
    assign_priors_cpu(a, b, rows);
    const size_t images = (size_t)b * a.priors_count;
    for (int p : rows) a.base[images + p] = class_costs(a.logits + (images + p) * a.classes, a.classes);
    for (int g = 0; g < a.gt_places; g++) assign_box_cpu(a, b, g, rows, near, cheap);
    for (int p = 0; p < a.priors_count; p++) finish_prior(a, b, p);
}

static inline void assign_cpu(const AssignArguments& a) {
    if (a.images > 1) {  // no barrier inside: where cores are busy otherwise, each one would cost a turn of the scheduler
#pragma omp parallel
        {
            std::vector<int> rows;
            std::vector<uint64_t> near, cheap;
#pragma omp for schedule(dynamic)
            for (int b = 0; b < a.images; b++) assign_image_cpu(a, b, rows, near, cheap);
        }
        return;
    }
    std::vector<int> rows;
    assign_priors_cpu(a, 0, rows);
    if (!rows.empty()) {
#pragma omp parallel
        {
            std::vector<uint64_t> near, cheap;
#pragma omp for schedule(dynamic, 32)
            for (int i = 0; i < (int)rows.size(); i++) a.base[rows[i]] = class_costs(a.logits + (size_t)rows[i] * a.classes, a.classes);
#pragma omp for schedule(dynamic)
            for (int g = 0; g < a.gt_places; g++) assign_box_cpu(a, 0, g, rows, near, cheap);
        }
    } else {
        for (int g = 0; g < a.gt_places; g++) a.topk_sum[g] = 0;
    }
    for (int p = 0; p < a.priors_count; p++) finish_prior(a, 0, p);
}

}  // namespace jt_kernels
