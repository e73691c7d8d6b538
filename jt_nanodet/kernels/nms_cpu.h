// Filter, class-wise suppression and the best M of a whole batch on the CPU. Arithmetic: nms_common.h; decisions as in nms.cu.
#pragma once
#include <algorithm>
#include <vector>

#include "nms_common.h"

namespace jt_kernels {

static void nms_image_cpu(const NmsArguments& a, int b) {
    const size_t total = (size_t)a.priors_count * a.classes;
    const float* scores = a.scores + b * total;
    const float* boxes = a.boxes + (size_t)b * a.priors_count * 4;
    uint64_t* keys = a.keys + b * total;
    uint32_t reach = 0;
    size_t count = 0;
    for (int p = 0; p < a.priors_count; p++) {
        const size_t before = count;
        const float* row = scores + (size_t)p * a.classes;
        int any = 0;
        for (int c = 0; c < a.classes; c++) any |= row[c] > a.score_threshold;
        if (!any) continue;
        for (int c = 0; c < a.classes; c++)
            if (row[c] > a.score_threshold) keys[count++] = best_key(row[c], (uint32_t)(p * a.classes + c));
        for (int j = 0; j < 4 && count > before; j++) reach = std::max(reach, coordinate_key(boxes[(size_t)p * 4 + j]));
    }
    a.candidates[b] = (int32_t)count;
    a.reach[b] = reach;
    const float step = add(reach_of(reach), 1.0f);
    // a heap, because few of the candidates are ever needed in order
    std::make_heap(keys, keys + count);
    std::vector<Placed> kept;
    kept.reserve(a.most);
    while (count > 0 && (int)kept.size() < a.most) {
        std::pop_heap(keys, keys + count);
        const uint32_t index = index_of(keys[--count]);
        const Placed box = placed(boxes, index, a.classes, step);
        bool alive = true;
        for (size_t i = 0; i < kept.size() && alive; i++) alive = !suppresses(kept[i], box, a.iou_threshold);
        if (!alive) continue;
        const size_t at = (size_t)b * a.most + kept.size();
        for (int j = 0; j < 4; j++) a.detections[at * 5 + j] = boxes[(size_t)(index / a.classes) * 4 + j];
        a.detections[at * 5 + 4] = scores[index];
        a.kept[at] = (int32_t)index;
        kept.push_back(box);
    }
    a.kept_count[b] = (int32_t)kept.size();
    for (size_t i = kept.size(); i < (size_t)a.most; i++) {
        a.kept[(size_t)b * a.most + i] = -1;
        for (int j = 0; j < 5; j++) a.detections[((size_t)b * a.most + i) * 5 + j] = 0;
    }
}

static inline void nms_cpu(const NmsArguments& a) {
#pragma omp parallel for schedule(dynamic) if (a.images > 1)
    for (int b = 0; b < a.images; b++) nms_image_cpu(a, b);
}

}  // namespace jt_kernels
